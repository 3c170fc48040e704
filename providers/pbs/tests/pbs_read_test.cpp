// Answers of qsub, qstat, qselect and qdel, as captured from a real OpenPBS.
#include <gmock/gmock.h>

#include "captures.h"
#include "providers_pbs/pbs_text.h"
#include "providers_pbs/records.h"
#include "test_support/commands.h"

namespace farcall::providers::pbs {
namespace {

using test::said;
using testing::HasSubstr;
using testing::Not;

CommandOutput hung() { return test::hung(std::chrono::seconds(120)); }

const Capture& captured(const std::vector<Capture>& all, const std::string& command) {
  const auto found = std::find_if(
      all.begin(), all.end(), [&](const Capture& capture) { return capture.command == command; });
  FARCALL_CHECK(found != all.end(), "no capture of " + command);
  return *found;
}

TEST(PbsSubmit, ReadsEveryCapture) {
  int accepted = 0, refused = 0, away = 0, unsure = 0;
  for (const auto& capture : captures("qsub")) {
    const auto& output = capture.output;
    if (capture.command.find(';') != std::string::npos || capture.command.find("qsub -z") == 0)
      continue;  // a script of several commands; -z prints no id
    const auto reply = read_submit(output);
    if (output.exit_code == 0 && !output.timed_out) {
      ASSERT_TRUE(reply) << capture.command << ": " << reply.error().message;
      EXPECT_TRUE(is_job_id(reply->job_id));
      ++accepted;
      continue;
    }
    ASSERT_FALSE(reply) << capture.command;
    EXPECT_THAT(reply.error().message, Not(HasSubstr("usage:"))) << capture.command;
    switch (reply.error().code) {
      case ErrorCode::kSchedulerRefused:
        ++refused;
        break;
      case ErrorCode::kSchedulerUnavailable:
        ++away;
        break;
      default:
        EXPECT_TRUE(output.timed_out || output.exit_code == 173) << capture.command;
        ++unsure;
    }
  }
  EXPECT_GT(accepted, 40);
  EXPECT_GT(refused, 20);
  EXPECT_EQ(away, 6);
  EXPECT_EQ(unsure, 3) << "two that hung, one queue that is closed";
}

TEST(PbsSubmit, KeepsTheSchedulersWords) {
  const auto all = captures("qsub");
  const auto message = [&](const std::string& command) {
    return read_submit(captured(all, command).output).error().message;
  };
  EXPECT_EQ(message("qsub -q nosuchq ok.sh"), "qsub: Unknown queue");
  EXPECT_EQ(message("qsub -q short -l walltime=01:00:00 ok.sh"),
            "qsub: Job violates queue and/or server resource limits");
  EXPECT_EQ(message("qsub -N \"has space\" ok.sh"), "qsub: illegal -N value");
  EXPECT_EQ(message("qsub -u root ok.sh"), "qsub: Bad UID for job execution");
}

TEST(PbsSubmit, ALimitIsNoRefusal) {
  const auto reply =
      read_submit(said(38, "", "qsub: would exceed queue generic's per-user limit\n"));
  EXPECT_EQ(reply.error().code, ErrorCode::kSchedulerLimit);
  EXPECT_EQ(read_submit(said(173, "", "qsub: Queue is not enabled\n")).error().code,
            ErrorCode::kSchedulerLimit);
}

TEST(PbsSubmit, WhatIsNoAnswerLeavesTheOutcomeUnknown) {
  EXPECT_EQ(read_submit(hung()).error().code, ErrorCode::kOutcomeUnknown);
  EXPECT_THAT(read_submit(hung()).error().message, HasSubstr("privileged ports"));
  EXPECT_EQ(read_submit(said(0, "")).error().code, ErrorCode::kOutcomeUnknown);
  EXPECT_EQ(read_submit(said(0, "9\n")).error().code, ErrorCode::kOutcomeUnknown);
  EXPECT_EQ(read_submit(said(137, "")).error().code, ErrorCode::kOutcomeUnknown);
  EXPECT_EQ(read_submit(said(255, "", "Failed to recv data from background qsub\n")).error().code,
            ErrorCode::kOutcomeUnknown);
  EXPECT_EQ(read_submit(said(1, "")).error().code, ErrorCode::kOutcomeUnknown);
}

TEST(PbsSubmit, WithoutPbsSaysSo) {
  const auto error = read_submit(said(127, "", "env: 'qsub': No such file or directory\n")).error();
  EXPECT_EQ(error.code, ErrorCode::kSchedulerUnavailable);
  EXPECT_EQ(error.message,
            "env: 'qsub': No such file or directory; is PBS's client installed here?");
}

TEST(PbsSubmit, KnowsSlurmsWrapper) {
  EXPECT_TRUE(is_slurms_wrapper("#!/usr/bin/perl -w\n# qsub - submit a batch job\n … sbatch …"));
  EXPECT_FALSE(
      is_slurms_wrapper("\x7f"
                        "ELF sbatch"));
  EXPECT_FALSE(is_slurms_wrapper("#!/bin/sh\nexec /opt/pbs/bin/qsub \"$@\"\n"));
}

TEST(PbsStatus, AnswersForEveryIdInTheOrderAsked) {
  const std::string document =
      "{\n\t\"timestamp\":\t100,\n\t\"Jobs\":\t{\n\t\t\"7.pbsctl\":\t{\n\t\t\t\"Job_Name\":\t\"x\","
      "\n"
      "\t\t\t\"job_state\":\t\"R\",\n\t\t\t\"substate\":\t42\n\t\t}\n\t}\n}\n";
  const auto jobs = read_status(said(0, document), {"9.pbsctl", "7.alias.of.it", "bogus"});
  ASSERT_TRUE(jobs) << jobs.error().message;
  ASSERT_EQ(jobs->size(), 3U);
  EXPECT_FALSE((*jobs)[0].listed);
  EXPECT_EQ((*jobs)[0].reason, "not listed");
  EXPECT_EQ((*jobs)[1].state, JobState::kRunning) << "the number counts, a server has aliases";
  EXPECT_EQ((*jobs)[1].job_id, "7.alias.of.it");
  EXPECT_FALSE((*jobs)[2].listed);
}

TEST(PbsStatus, EveryCapturedAnswerIsReadOrItsFailureSaid) {
  int read = 0, unread = 0;
  for (const Capture& capture : captures("qstat")) {
    // As it came, not what grep has left of it.
    if (capture.command.find("-F json") == std::string::npos ||
        capture.command.find('|') != std::string::npos)
      continue;
    std::vector<std::string> ids{"99999.pbsctl"};
    for (const auto& [id, job] : read_listing(capture.output.out).jobs) ids.push_back(id);
    const auto jobs = read_status(capture.output, ids);
    if (!jobs) {
      ++unread;
      EXPECT_EQ(jobs.error().code, ErrorCode::kSchedulerUnavailable) << capture.command;
      EXPECT_THAT(jobs.error().message, HasSubstr("qstat")) << capture.file << capture.command;
      continue;
    }
    ++read;
    ASSERT_EQ(jobs->size(), ids.size());
    EXPECT_FALSE(jobs->front().listed);
    for (std::size_t i = 1; i < ids.size(); ++i) {
      EXPECT_TRUE(jobs->at(i).listed) << capture.file << ": " << ids[i];
      EXPECT_NE(jobs->at(i).state, JobState::kUnknown) << capture.file << ": " << ids[i];
    }
  }
  EXPECT_GE(read, 33);
  EXPECT_GE(unread, 3);
}

TEST(PbsStatus, UnknownAndFinishedJobsAreAnAnswer) {
  const auto all = captures("qstat");
  for (const char* command : {"qstat -x -f -F json 99999", "qstat -f -F json 49"}) {
    const auto jobs = read_status(captured(all, command).output, {"99999.pbsctl"});
    ASSERT_TRUE(jobs) << jobs.error().message;
    EXPECT_FALSE(jobs->front().listed);
  }
}

// The document is valid and has no jobs: what counts is the exit code.
TEST(PbsStatus, AServerThatIsAwayTellsNothingAboutJobs) {
  const auto all = captures("qstat");
  const auto down =
      read_status(captured(all, "qstat -E -x -f -F json 320 321").output, {"320.pbsctl"});
  ASSERT_FALSE(down);
  EXPECT_EQ(down.error().code, ErrorCode::kSchedulerUnavailable);
  EXPECT_THAT(down.error().message, HasSubstr("cannot connect to server pbsctl (errno=15010)"));
  const auto denied = read_status(captured(all, "qstat -x -f -F json 25").output, {"25.pbsctl"});
  ASSERT_FALSE(denied);
  EXPECT_THAT(denied.error().message, HasSubstr("Unable to authenticate connection"));
  EXPECT_EQ(read_status(hung(), {"1.s"}).error().code, ErrorCode::kSchedulerUnavailable);
  EXPECT_EQ(read_find(hung()).error().code, ErrorCode::kSchedulerUnavailable);
}

TEST(PbsStatus, KnowsAServerWithoutHistory) {
  const auto all = captures("qstat");
  bool found = false;
  for (const auto& capture : all) {
    if (capture.file != "nohistory.txt") continue;
    EXPECT_TRUE(says_no_history(capture.output));
    found = true;
  }
  EXPECT_TRUE(found);
  EXPECT_FALSE(says_no_history(captured(all, "qstat -x -f -F json 99999").output));
}

TEST(PbsCommands, AskForAllJobsAtOnce) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(status_command({"3.s", "4.s", "bogus; rm"}, true),
            (Words{"qstat", "-x", "-E", "-f", "-F", "json", "3.s", "4.s"}));
  EXPECT_EQ(status_command({"3.s"}, false), (Words{"qstat", "-E", "-f", "-F", "json", "3.s"}));
  EXPECT_EQ(find_command("x", true), (Words{"qselect", "-x", "-N", "x"}));
  EXPECT_EQ(cancel_command({"3.s", "4.s"}), (Words{"qdel", "3.s", "4.s"}));
  EXPECT_EQ(submit_command("/b/x.pbs"), (Words{"qsub", "-f", "/b/x.pbs"}));
}

TEST(PbsFind, ReadsIds) {
  const auto all = captures("qselect");
  EXPECT_EQ(*read_find(captured(all, "qselect -x -N fail7").output),
            std::vector<std::string>{"49.pbsctl"});
  EXPECT_TRUE(read_find(said(0, ""))->empty());
  EXPECT_EQ(read_find(captured(all, "qselect").output).error().code,
            ErrorCode::kSchedulerUnavailable);
}

TEST(PbsCancel, ReadsAnswers) {
  const auto all = captures("qdel");
  for (const char* fine :
       {"qdel 65", "qdel 64", "qdel 99999", "qdel 99999.pbsctl 98888", "qdel 48 99999 9"})
    EXPECT_TRUE(read_cancel(captured(all, fine).output)) << fine;
  EXPECT_EQ(read_cancel(captured(all, "qdel 320").output).error().code,
            ErrorCode::kSchedulerUnavailable);
  EXPECT_EQ(read_cancel(captured(all, "qdel 25").output).error().code,
            ErrorCode::kSchedulerUnavailable);
  EXPECT_EQ(read_cancel(said(159, "", "qdel: Unauthorized Request  3.pbsctl\n")).error().code,
            ErrorCode::kSchedulerRefused);
  EXPECT_EQ(read_cancel(hung()).error().code, ErrorCode::kOutcomeUnknown);
}

TEST(PbsFind, EveryCapturedAnswerOfTheOtherCommandsIsReadOrItsFailureSaid) {
  for (const Capture& capture : captures("qselect")) {
    const auto found = read_find(capture.output);
    EXPECT_THAT(found ? "qselect" : found.error().message, HasSubstr("qselect")) << capture.file;
  }
  for (const Capture& capture : captures("qdel")) {
    const auto gone = read_cancel(capture.output);
    EXPECT_THAT(gone ? "qdel" : gone.error().message, HasSubstr("qdel")) << capture.file;
  }
}

TEST(PbsRecords, TellWhatBecameOfAJobThatPbsHasForgotten) {
  const auto told = [](const char* text) {
    return status_from_record("7.s", parse_record(text).value());
  };
  EXPECT_EQ(told("name=x\nends_at=1000\nended=100\nexit_code=0\n").ended_by, EndedBy::kCompleted);
  EXPECT_EQ(told("name=x\nends_at=1000\nended=100\nexit_code=3\n").ended_by, EndedBy::kFailed);
  EXPECT_EQ(told("name=x\nends_at=1000\nended=100\nexit_code=3\n").exit_code, 3);
  EXPECT_EQ(told("name=x\nends_at=1000\nended=100\nsignal=15\n").ended_by, EndedBy::kCancelled);
  EXPECT_EQ(told("name=x\nends_at=1000\nended=1006\nsignal=15\n").ended_by, EndedBy::kWalltime);
  EXPECT_EQ(told("name=x\nends_at=1000\nended=1000\nexit_code=143\n").ended_by, EndedBy::kWalltime)
      << "what it ran was ended before itself";
  const auto silent = told("name=x\nends_at=1000\n");
  EXPECT_EQ(silent.state, JobState::kUnknown)
      << "it may run: PBS may have forgotten it for a moment";
  EXPECT_FALSE(silent.listed);
  EXPECT_EQ(parse_record("something else"), std::nullopt);
}

}  // namespace
}  // namespace farcall::providers::pbs
