// Answers of a real Slurm 22.05, as captured (separators of -O lines shown here as |).
#include <gtest/gtest.h>

#include <algorithm>

#include "providers_slurm/slurm_text.h"
#include "test_support/commands.h"

namespace farcall::providers::slurm {
namespace {

using test::said;

CommandOutput hung() { return test::hung(std::chrono::seconds(30)); }

std::string jobs(std::string text) {
  std::replace(text.begin(), text.end(), '|', '\x1f');
  return text;
}

TEST(SlurmSubmit, ReadsTheId) {
  EXPECT_EQ(read_submit(said(0, "7\n"))->job_id, "7");
  EXPECT_EQ(read_submit(said(0, "7;north\n"))->job_id, "7;north");
  EXPECT_EQ(read_submit(said(0, "Welcome to our cluster!\n7\n", "sbatch: info\n"))->job_id, "7");
}

struct SubmitCase {
  const char* err;
  int exit_code;
  ErrorCode code;
};

class SlurmSubmitErrors : public testing::TestWithParam<SubmitCase> {};

TEST_P(SlurmSubmitErrors, AreClassified) {
  const auto reply = read_submit(said(GetParam().exit_code, "", GetParam().err));
  ASSERT_FALSE(reply);
  EXPECT_EQ(error_name(reply.error().code), error_name(GetParam().code)) << reply.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Captures, SlurmSubmitErrors,
    testing::Values(
        SubmitCase{"sbatch: error: invalid partition specified: nosuch\nsbatch: error: Batch job "
                   "submission failed: Invalid partition name specified\n",
                   1, ErrorCode::kSchedulerRefused},
        SubmitCase{
            "sbatch: error: CPU count per node can not be satisfied\nsbatch: error: Batch job "
            "submission failed: Requested node configuration is not available\n",
            1, ErrorCode::kSchedulerRefused},
        SubmitCase{"sbatch: error: Invalid generic resource (gres) specification\n", 1,
                   ErrorCode::kSchedulerRefused},
        SubmitCase{
            "sbatch: error: Batch job submission failed: Invalid account or account/partition "
            "combination specified\n",
            1, ErrorCode::kSchedulerRefused},
        SubmitCase{"sbatch: error: Batch job submission failed: Requested time limit is invalid "
                   "(missing or exceeds some limit)\n",
                   1, ErrorCode::kSchedulerRefused},
        SubmitCase{"sbatch: error: Batch job submission failed: Required partition not available "
                   "(inactive or drain)\n",
                   1, ErrorCode::kSchedulerRefused},
        SubmitCase{"sbatch: error: Invalid --time specification\n", 255,
                   ErrorCode::kSchedulerRefused},
        SubmitCase{
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission "
            "failed: Job violates accounting/QOS policy (job submit limit, user's size "
            "and/or time limits)\n",
            1, ErrorCode::kSchedulerLimit},
        SubmitCase{"sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job "
                   "submission failed: Job violates accounting/QOS policy (job submit limit, "
                   "user's size and/or time limits)\n",
                   1, ErrorCode::kSchedulerRefused},
        SubmitCase{"sbatch: error: Batch job submission failed: Unable to contact slurm controller "
                   "(connect failure)\n",
                   1, ErrorCode::kSchedulerUnavailable},
        SubmitCase{"sbatch: error: Batch job submission failed: Unable to contact slurm controller "
                   "(receive failure)\n",
                   1, ErrorCode::kOutcomeUnknown},
        SubmitCase{"sbatch: error: Batch job submission failed: Socket timed out on send/recv "
                   "operation\n",
                   1, ErrorCode::kOutcomeUnknown},
        SubmitCase{"", 1, ErrorCode::kOutcomeUnknown},
        SubmitCase{"Segmentation fault\n", 139, ErrorCode::kOutcomeUnknown}));

TEST(SlurmSubmit, KeepsTheSchedulersWords) {
  const auto reply =
      read_submit(said(1, "",
                       "sbatch: error: invalid partition specified: nosuch\nsbatch: error: Batch "
                       "job submission failed: Invalid partition name specified\n"));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().message,
            "sbatch: invalid partition specified: nosuch; Batch job submission failed: Invalid "
            "partition name specified");
}

TEST(SlurmSubmit, WhatIsNoAnswerLeavesTheOutcomeUnknown) {
  EXPECT_EQ(read_submit(hung()).error().code, ErrorCode::kOutcomeUnknown);
  EXPECT_EQ(read_submit(said(0, "")).error().code, ErrorCode::kOutcomeUnknown);
  EXPECT_EQ(read_submit(said(0, "ok\n")).error().code, ErrorCode::kOutcomeUnknown);
}

TEST(SlurmStatus, ReadsJobsInTheOrderAsked) {
  const auto answer = read_status(
      said(0,
           jobs("1       |FAILED   |10:00  |768   |0    |we      |NonZeroExitCode  |n1      |\n"
                "2       |FAILED   |10:00  |9     |0    |wrap    |JobLaunchFailure |n1      |\n"
                "4       |PENDING  |10:00  |0     |0    |wrap    |ReqNodeNotAvail, "
                "UnavailableNodes:n[1-4]|        |\n"
                "3       |RUNNING  |4:59   |0     |2    |wrap    |None             |n[1-3]  |\n")),
      {"3", "1", "2", "4", "99"});
  ASSERT_TRUE(answer) << answer.error().message;
  ASSERT_EQ(answer->size(), 5U);
  const auto& running = (*answer)[0];
  EXPECT_EQ(running.state, JobState::kRunning);
  EXPECT_EQ(running.remaining_s, 299);
  EXPECT_EQ(running.restarts, 2);
  EXPECT_EQ(running.reason, "");
  EXPECT_EQ(running.nodes, (std::vector<std::string>{"n1", "n2", "n3"}));
  EXPECT_EQ((*answer)[1].ended_by, EndedBy::kFailed);
  EXPECT_EQ((*answer)[1].exit_code, 3);
  EXPECT_EQ((*answer)[1].job_name, "we");
  EXPECT_EQ((*answer)[2].signal, 9);
  EXPECT_FALSE((*answer)[2].exit_code);
  EXPECT_EQ((*answer)[3].state, JobState::kQueued);
  EXPECT_EQ((*answer)[3].reason, "ReqNodeNotAvail, UnavailableNodes:n[1-4]");
  EXPECT_FALSE((*answer)[4].listed);
  EXPECT_EQ((*answer)[4].job_id, "99");
  EXPECT_EQ((*answer)[4].state, JobState::kUnknown);
}

TEST(SlurmStatus, KnowsEveryState) {
  const auto state_of = [](const std::string& word) {
    return read_status(said(0, jobs("1|" + word + "|1:00|0|0|x|None|n1|\n")), {"1"})->front();
  };
  EXPECT_EQ(state_of("CONFIGURING").state, JobState::kQueued);
  EXPECT_EQ(state_of("REQUEUE_HOLD").state, JobState::kQueued);
  EXPECT_EQ(state_of("SUSPENDED").state, JobState::kRunning);
  EXPECT_EQ(state_of("COMPLETING").state, JobState::kEnding);
  EXPECT_EQ(state_of("COMPLETED").ended_by, EndedBy::kCompleted);
  EXPECT_EQ(state_of("CANCELLED").ended_by, EndedBy::kCancelled);
  EXPECT_EQ(state_of("TIMEOUT").ended_by, EndedBy::kWalltime);
  EXPECT_EQ(state_of("DEADLINE").ended_by, EndedBy::kWalltime);
  EXPECT_EQ(state_of("NODE_FAIL").ended_by, EndedBy::kNodeFailure);
  EXPECT_EQ(state_of("BOOT_FAIL").ended_by, EndedBy::kNodeFailure);
  EXPECT_EQ(state_of("PREEMPTED").ended_by, EndedBy::kPreempted);
  EXPECT_EQ(state_of("OUT_OF_MEMORY").ended_by, EndedBy::kOutOfMemory);
  const auto novel = state_of("LEVITATING");
  EXPECT_EQ(novel.state, JobState::kUnknown);
  EXPECT_TRUE(novel.listed);
  EXPECT_EQ(novel.word, "LEVITATING");
}

TEST(SlurmStatus, OnlyUnknownIdsAreNotListed) {
  const auto answer =
      read_status(said(1, "", "slurm_load_jobs error: Invalid job id specified\n"), {"5", "6"});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_FALSE((*answer)[0].listed);
  EXPECT_FALSE((*answer)[1].listed);
}

TEST(SlurmStatus, OfACluster) {
  const auto answer =
      read_status(said(0, jobs("CLUSTER: north\n7|RUNNING|1:00|0|0|x|None|n1|\n"
                               "CLUSTER: south\n7|PENDING|1:00|0|0|x|Priority||\n")),
                  {"7;north", "7;south"});
  ASSERT_TRUE(answer);
  EXPECT_EQ((*answer)[0].state, JobState::kRunning);
  EXPECT_EQ((*answer)[1].state, JobState::kQueued);
  EXPECT_EQ((*answer)[1].job_id, "7;south");
}

TEST(SlurmStatus, AControllerThatIsAwayTellsNothingAboutJobs) {
  EXPECT_EQ(read_status(hung(), {"1"}).error().code, ErrorCode::kSchedulerUnavailable);
  for (const char* text :
       {"slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n",
        "slurm_load_jobs error: Socket timed out on send/recv operation\n"}) {
    EXPECT_EQ(read_status(said(1, "", text), {"1"}).error().code, ErrorCode::kSchedulerUnavailable);
    EXPECT_EQ(read_find(said(1, "", text), "x").error().code, ErrorCode::kSchedulerUnavailable);
  }
}

TEST(SlurmFind, TakesExactNamesOnly) {
  const auto ids = read_find(said(0, jobs("3|ep-1\n4|ep-10\n")), "ep-1");
  ASSERT_TRUE(ids);
  EXPECT_EQ(*ids, std::vector<std::string>{"3"});
  EXPECT_TRUE(read_find(said(0, ""), "ep-1")->empty());
}

TEST(SlurmCancel, ReadsAnswers) {
  EXPECT_TRUE(read_cancel(said(0, "")));
  EXPECT_TRUE(read_cancel(
      said(1, "", "scancel: error: Kill job error on job id 38: Invalid job id specified\n")));
  EXPECT_EQ(
      read_cancel(
          said(210, "", "scancel: error: Kill job error on job id 3: Access/permission denied\n"))
          .error()
          .code,
      ErrorCode::kSchedulerRefused);
  EXPECT_EQ(read_cancel(said(8, "",
                             "scancel: error: Kill job error on job id 10: Unable to contact "
                             "slurm controller (connect failure)\n"))
                .error()
                .code,
            ErrorCode::kSchedulerUnavailable);
  EXPECT_EQ(read_cancel(said(140, "",
                             "scancel: error: Kill job error on job id 10: Socket timed out "
                             "on send/recv operation\n"))
                .error()
                .code,
            ErrorCode::kOutcomeUnknown);
  EXPECT_EQ(read_cancel(hung()).error().code, ErrorCode::kOutcomeUnknown);
}

TEST(SlurmDiscovery, ListsPartitionsAndAccounts) {
  EXPECT_EQ(read_partitions("debug*|up|1:00:00|4|8|3000|(null)\nbig|up|infinite|2|64|500000|gpu:4\n"
                            "big|up|infinite|9|32|250000|(null)\nold|down|1:00|1|1|1|(null)\n"),
            (std::vector<Choice>{
                {"debug", "4 nodes, 8 cores and 3000 MiB each, at most 1:00:00", true},
                {"big", "2 nodes, 64 cores and 500000 MiB each, at most infinite, gpu:4", false},
                {"old", "1 nodes, 1 cores and 1 MiB each, at most 1:00, down", false}}));
  EXPECT_EQ(read_accounts("chem\nchem\nphys\n"),
            (std::vector<Choice>{{"chem", "", true}, {"phys", "", false}}));
}

TEST(SlurmTry, GivesTheSchedulersWords) {
  EXPECT_EQ(*read_try(said(0, "",
                           "sbatch: Job 21 to start at 2026-11-23T07:28:49 using 1 processors on "
                           "nodes n1 in partition debug\n")),
            "sbatch: Job 21 to start at 2026-11-23T07:28:49 using 1 processors on nodes n1 in "
            "partition debug");
  const auto bad =
      read_try(said(1, "",
                    "allocation failure: Invalid account or account/partition combination "
                    "specified\n"));
  EXPECT_EQ(bad.error().code, ErrorCode::kSchedulerRefused);
  EXPECT_NE(bad.error().message.find("Invalid account"), std::string::npos);
}

TEST(SlurmNodes, Expand) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(expand_nodes("n1"), Names{"n1"});
  EXPECT_EQ(expand_nodes("n[1-3,07],login2"), (Names{"n1", "n2", "n3", "n07", "login2"}));
  EXPECT_EQ(expand_nodes("n[008-011]"), (Names{"n008", "n009", "n010", "n011"}));
  EXPECT_EQ(expand_nodes("r[1-2]n[1-2]"), (Names{"r1n1", "r1n2", "r2n1", "r2n2"}));
  EXPECT_EQ(expand_nodes(""), Names{});
  EXPECT_EQ(expand_nodes("n[1-3,7"), Names{});
  EXPECT_EQ(expand_nodes("n1]"), Names{});
}

TEST(SlurmTimeLeft, IsSeconds) {
  EXPECT_EQ(parse_time_left("4:59"), 299);
  EXPECT_EQ(parse_time_left("1:00:00"), 3600);
  EXPECT_EQ(parse_time_left("1-02:03:04"), 93784);
  EXPECT_EQ(parse_time_left("UNLIMITED"), std::nullopt);
  EXPECT_EQ(parse_time_left("INVALID"), std::nullopt);
  EXPECT_EQ(parse_time_left(""), std::nullopt);
}

}  // namespace
}  // namespace farcall::providers::slurm
