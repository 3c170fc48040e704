// Listings of jobs: valid JSON, what only looks like it, and what the states mean.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "captures.h"
#include "providers_pbs/pbs_text.h"

namespace farcall::providers::pbs {
namespace {

using testing::HasSubstr;

// The one job of the first captured document of a file in which `mark` stands.
JobStatus job_of(const std::string& file, const std::string& mark = "") {
  for (const auto& [name, text] : captured_documents()) {
    if (name != file || text.find(mark) == std::string::npos) continue;
    const Listing listing = read_listing(text);
    if (listing.jobs.empty()) continue;
    const auto& [id, job] = *listing.jobs.begin();
    return status_of(id, job, listing.timestamp);
  }
  ADD_FAILURE() << "no job in " << file;
  return {};
}

TEST(PbsListing, ReadsEveryCapturedDocumentAlsoWhenItIsNoJson) {
  int documents = 0, jobs = 0;
  for (const auto& [file, text] : captured_documents()) {
    if (text.find("pbs_server") == std::string::npos) continue;
    ++documents;
    const Listing strict = read_listing(text);
    EXPECT_TRUE(strict.timestamp) << file;
    jobs += static_cast<int>(strict.jobs.size());
    // The same document made invalid, as a job named nan would make it: nothing else may change.
    std::string broken = text;
    broken.insert(broken.find('\n') + 1, "\t\"broken\":\tnan,\n");
    ASSERT_TRUE(nlohmann::json::parse(broken, nullptr, false).is_discarded());
    const Listing tolerant = read_listing(broken);
    EXPECT_EQ(tolerant.timestamp, strict.timestamp) << file;
    ASSERT_EQ(tolerant.jobs.size(), strict.jobs.size()) << file;
    for (const auto& [id, job] : strict.jobs) {
      ASSERT_TRUE(tolerant.jobs.contains(id)) << file << " " << id;
      EXPECT_EQ(tolerant.jobs.at(id), job) << file << " " << id;
    }
  }
  EXPECT_GT(documents, 50);
  EXPECT_GT(jobs, 30);
}

// What version 23.06.06 writes for names, accounts and paths: one such job spoils the listing.
TEST(PbsListing, ReadsWhatOldClientsWriteAsItComes) {
  const Listing listing = read_listing(
      "{\n    \"timestamp\":1795421788,\n    \"pbs_version\":\"23.06.06\",\n    \"Jobs\":{\n"
      "        \"7.pbsctl\":{\n            \"Job_Name\":nan,\n            \"job_state\":\"R\",\n"
      "            \"Account_Name\":.5,\n            "
      "\"Output_Path\":\"pbsctl:/home/w\xed\xff/x\",\n"
      "            \"Resource_List\":{\n                \"walltime\":\"01:00:00\"\n            },\n"
      "            \"Variable_List\":{\n                \"V\":\"a\\\\,PBS_O_QUEUE=workq\",\n"
      "                \"W\":\"\\\\u0041 \\x\",\n                \"BASH_FUNC_x%%\":\"() {  a\n}\"\n"
      "            },\n            \"substate\":42\n        },\n"
      "        \"8.pbsctl\":{\n            \"Job_Name\":42,\n            \"job_state\":\"F\",\n"
      "            \"substate\":93,\n            \"Exit_status\":3\n        }\n    }\n}");
  ASSERT_EQ(listing.jobs.size(), 2U);
  const auto first = status_of("7.pbsctl", listing.jobs.at("7.pbsctl"), listing.timestamp);
  EXPECT_EQ(first.job_name, "nan");
  EXPECT_EQ(first.state, JobState::kRunning);
  EXPECT_EQ(first.remaining_s, 3600);
  const auto second = status_of("8.pbsctl", listing.jobs.at("8.pbsctl"), listing.timestamp);
  EXPECT_EQ(second.job_name, "42");
  EXPECT_EQ(second.ended_by, EndedBy::kFailed);
  EXPECT_EQ(second.exit_code, 3);
}

TEST(PbsListing, NumbersThatWereNamesAreNamesAgain) {
  const Listing listing =
      read_listing(R"({"Jobs": {"1.s": {"Job_Name": 42, "job_state": "Q"}}, "timestamp": 5})");
  EXPECT_EQ(status_of("1.s", listing.jobs.at("1.s"), 5).job_name, "42");
}

TEST(PbsStates, OfJobsThatWaitRunAndEnd) {
  const auto queued = job_of("json_queued.txt");
  EXPECT_EQ(queued.state, JobState::kQueued);
  EXPECT_EQ(queued.reason,
            "Can Never Run: Insufficient amount of resource: ncpus (R: 999 A: 24 T: 24)");
  EXPECT_EQ(job_of("json_held.txt").state, JobState::kQueued);
  EXPECT_EQ(job_of("json_held.txt").reason, "held (u)");
  EXPECT_EQ(job_of("json_waiting.txt").state, JobState::kQueued);
  const auto running = job_of("json_running.txt");
  EXPECT_EQ(running.state, JobState::kRunning);
  EXPECT_EQ(running.job_name, "st_run");
  EXPECT_EQ(running.nodes, std::vector<std::string>{"pbsn1"});
  EXPECT_EQ(running.restarts, 0);
  ASSERT_TRUE(running.remaining_s);
  const auto exiting = job_of("json_exiting.txt");
  EXPECT_EQ(exiting.state, JobState::kEnding) << "its output is not yet where it belongs";
}

// stime has no zone: what counts is that both times are read alike.
TEST(PbsStates, TellHowMuchTimeIsLeft) {
  setenv("TZ", "UTC", 1);
  EXPECT_EQ(job_of("json_running.txt").remaining_s, 3600 - 18);
  unsetenv("TZ");
}

TEST(PbsStates, SuccessIsAnExitStatusThatIsThere) {
  EXPECT_EQ(job_of("json_finished_ok.txt").ended_by, EndedBy::kCompleted);
  EXPECT_EQ(job_of("json_finished_ok.txt").exit_code, 0);
  // Accepted with an id, then dropped: finished, substate 92, and it never ran.
  const auto dropped = status_of("31.pbsctl", {{"job_state", "F"}, {"substate", "92"}}, 1);
  EXPECT_EQ(dropped.ended_by, EndedBy::kFailed);
  EXPECT_EQ(dropped.reason, "finished without ever running");
  EXPECT_FALSE(dropped.exit_code);
}

TEST(PbsStates, TellHowItEnded) {
  EXPECT_EQ(job_of("json_finished_fail.txt").ended_by, EndedBy::kFailed);
  EXPECT_EQ(job_of("json_finished_fail.txt").exit_code, 3);
  EXPECT_EQ(job_of("json_walltime.txt").ended_by, EndedBy::kWalltime);
  EXPECT_EQ(job_of("json_deleted_running.txt").ended_by, EndedBy::kCancelled);
  EXPECT_EQ(job_of("json_deleted_running.txt").signal, 15);
  EXPECT_EQ(job_of("json_deleted_queued.txt").ended_by, EndedBy::kCancelled);
  const auto end = [](const char* code) {
    return status_of("1.s", {{"job_state", "F"}, {"substate", "93"}, {"Exit_status", code}}, 1);
  };
  EXPECT_EQ(end("-20").ended_by, EndedBy::kNodeFailure);
  EXPECT_EQ(end("-20").reason, "the node was lost (Exit_status -20)");
  EXPECT_EQ(end("-27").ended_by, EndedBy::kOutOfMemory);
  EXPECT_EQ(end("-2").ended_by, EndedBy::kFailed);
  EXPECT_EQ(end("265").signal, 9);
  EXPECT_EQ(end("-99").reason, "an error of PBS (Exit_status -99)");
}

TEST(PbsStates, AnExitStatusBeforeTheEndMeansNothing) {
  const auto again = status_of(
      "1.s", {{"job_state", "Q"}, {"substate", "10"}, {"Exit_status", "-20"}, {"run_count", "1"}},
      1);
  EXPECT_EQ(again.state, JobState::kQueued);
  EXPECT_FALSE(again.exit_code);
}

TEST(PbsStates, OfASentJobThatIsNotConfirmed) {
  const auto sent = status_of("1.s", {{"job_state", "R"}, {"substate", "41"}}, 1);
  EXPECT_EQ(sent.state, JobState::kRunning);
  EXPECT_EQ(sent.reason, "sent to its node, not yet confirmed");
}

TEST(PbsStates, WhatIsNotKnownKeepsItsWord) {
  const auto moved = job_of("moved.txt", "Job has been moved");
  EXPECT_EQ(moved.state, JobState::kUnknown);
  EXPECT_TRUE(moved.listed);
  EXPECT_EQ(moved.word, "M");
  EXPECT_EQ(moved.reason, "Job has been moved to \"remq@pbsctl2\"");
  EXPECT_EQ(status_of("1.s", {{"job_state", "Z"}}, 1).word, "Z");
}

TEST(PbsQueues, OfQstatQ) {
  const Listing listing = read_listing(
      R"({"pbs_version": "23.06.06", "Queue": {
        "workq": {"total_jobs": 5, "enabled": "True", "started": "True"},
        "closedq": {"total_jobs": 0, "enabled": "False", "started": "True"},
        "short": {"total_jobs": 0, "enabled": "True", "started": "False",
                  "resources_max": {"walltime": "00:10:00"}}}})",
      "Queue");
  EXPECT_EQ(listing.version, "23.06.06");
  EXPECT_EQ(read_queues(listing),
            (std::vector<Choice>{{"short", "0 jobs, at most 00:10:00, stopped", false},
                                 {"workq", "5 jobs", false}}));
}

TEST(PbsNodes, OfExecHost) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(nodes_of_exec_host("pbsn1/0"), Names{"pbsn1"});
  EXPECT_EQ(nodes_of_exec_host("pbsn3/0*2+pbsn3/1*2"), Names{"pbsn3"});
  EXPECT_EQ(nodes_of_exec_host("n1/0+n2/1*0"), (Names{"n1", "n2"}));
  EXPECT_EQ(nodes_of_exec_host(""), Names{});
}

}  // namespace
}  // namespace farcall::providers::pbs
