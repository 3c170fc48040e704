// Slurm commands that hang, answer late or lose the answer: stand-ins first on PATH.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstdlib>

#include "base/log.h"
#include "provider_fixture.h"

namespace farcall::providers {
namespace {

using testing::HasSubstr;

class SlurmFaults : public ProviderFixture {
 protected:
  void SetUp() override {
    ASSERT_TRUE(make_directory(directory_ / "bin"));
    give_up_after(120);
    old_path_ = std::getenv("PATH");
    setenv("PATH", ((directory_ / "bin").string() + ":/usr/bin:/bin").c_str(), 1);
  }
  void TearDown() override {
    setenv("PATH", old_path_.c_str(), 1);
    provider_.reset();
  }
  virtual const char* kind() const { return "slurm"; }
  // Short only where a command hangs: on a machine with much to do any takes its time.
  void give_up_after(double seconds) { load(kind(), {{"cmd_timeout", seconds}}); }
  void stand_in(const std::string& name, const std::string& text) {
    ASSERT_TRUE(write_file(directory_ / "bin" / name, "#!/bin/bash\n" + text + "\n", 0755));
  }
  Error submit_error(BlockRequest block) {
    const auto reply = provider_->submit(block);
    return reply ? Error{ErrorCode::kInternal, "accepted as " + reply->job_id} : reply.error();
  }
  std::string old_path_;
};

TEST_F(SlurmFaults, AnSbatchThatHangs) {
  give_up_after(3);
  stand_in("sbatch", "echo $$ >" + (directory_ / "pid").string() + "; sleep 600");
  const auto error = submit_error(request("true"));
  EXPECT_EQ(error.code, ErrorCode::kOutcomeUnknown) << error.message;
  EXPECT_THAT(error.message, HasSubstr("may have been accepted"));
  const std::string pid = text_of(directory_ / "pid");
  ASSERT_FALSE(pid.empty());
  EXPECT_TRUE(eventually([&] {  // gone, or waiting to be collected
    const auto stat = text_of("/proc/" + pid.substr(0, pid.size() - 1) + "/stat");
    return stat.empty() || stat.find(") Z ") != std::string::npos;
  }));
}

TEST_F(SlurmFaults, AnIdThatIsPrintedAndThenAHang) {
  give_up_after(3);
  stand_in("sbatch", "echo 17; sleep 600");
  EXPECT_EQ(submit_error(request("true")).code, ErrorCode::kOutcomeUnknown);
}

TEST_F(SlurmFaults, AnAnswerThatIsLost) {
  stand_in("sbatch",
           "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv "
           "operation' >&2; exit 1");
  const auto error = submit_error(request("true"));
  EXPECT_EQ(error.code, ErrorCode::kOutcomeUnknown);
  EXPECT_THAT(error.message, HasSubstr("Socket timed out on send/recv operation"));
}

TEST_F(SlurmFaults, AnSbatchThatIsKilled) {
  stand_in("sbatch", "kill -9 $$");
  EXPECT_EQ(submit_error(request("true")).code, ErrorCode::kOutcomeUnknown);
}

TEST_F(SlurmFaults, AControllerThatIsDownSurelyTookNothing) {
  stand_in("sbatch",
           "echo 'sbatch: error: Batch job submission failed: Unable to contact slurm controller "
           "(connect failure)' >&2; exit 1");
  EXPECT_EQ(submit_error(request("true")).code, ErrorCode::kSchedulerUnavailable);
}

TEST_F(SlurmFaults, ASubmitLimitIsNoRefusal) {
  stand_in("sbatch",
           "echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2\n"
           "echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
           "(job submit limit, "
           "user'\\''s size and/or time limits)' >&2; exit 1");
  EXPECT_EQ(submit_error(request("true")).code, ErrorCode::kSchedulerLimit);
}

TEST_F(SlurmFaults, NoSlurmAtAll) {
  setenv("PATH", (directory_ / "bin").c_str(), 1);
  const auto error = submit_error(request("true"));
  EXPECT_EQ(error.code, ErrorCode::kSchedulerUnavailable);
  EXPECT_THAT(error.message, HasSubstr("sbatch"));
  EXPECT_THAT(error.message, HasSubstr("is Slurm's client installed here?"));
}

TEST_F(SlurmFaults, ASqueueThatHangsTellsNothingAboutJobs) {
  give_up_after(3);
  stand_in("squeue", "sleep 600");
  const auto jobs = provider_->status({"1"});
  ASSERT_FALSE(jobs);
  EXPECT_EQ(jobs.error().code, ErrorCode::kSchedulerUnavailable);
  EXPECT_EQ(provider_->find_by_name("x").error().code, ErrorCode::kSchedulerUnavailable);
}

TEST_F(SlurmFaults, AJobOfAnotherClusterIsFollowedThere) {
  const auto log = (directory_ / "calls").string();
  const std::string line = "printf '%s\\n' \"$*\" >>" + log + "\n";
  stand_in("sbatch", "echo '7;north'");
  stand_in("squeue", line +
                         "printf 'CLUSTER: north\\n7\\x1fRUNNING\\x1f1:00\\x1f0\\x1f0\\x1fx"
                         "\\x1fNone\\x1fn1\\x1f\\n'");
  stand_in("scancel", line);
  const auto reply = provider_->submit(request("true"));
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->job_id, "7;north");
  const auto jobs = provider_->status({"7;north"});
  ASSERT_TRUE(jobs) << jobs.error().message;
  EXPECT_EQ(jobs->front().state, JobState::kRunning);
  EXPECT_EQ(jobs->front().job_id, "7;north");
  ASSERT_TRUE(provider_->cancel({"7;north", "8;south"}));
  const std::string calls = text_of(log);
  EXPECT_THAT(calls, HasSubstr("--clusters=north"));
  EXPECT_THAT(calls, HasSubstr("--clusters=north 7\n--clusters=south 8\n"));
}

TEST_F(SlurmFaults, AnAnswerThatIsCutOffTellsNothingAboutTheRest) {
  stand_in("squeue",
           "printf '1\\x1fRUNNING\\x1f1:00\\x1f0\\x1f0\\x1fx\\x1fNone\\x1fn1\\x1f\\n2\\x1fRUN'");
  const auto jobs = provider_->status({"1", "2"});
  ASSERT_TRUE(jobs) << jobs.error().message;
  EXPECT_EQ((*jobs)[0].state, JobState::kRunning);
  EXPECT_FALSE((*jobs)[1].listed);
}

// The state of the controller was lost: the id is somebody else's now, as its name tells.
TEST_F(SlurmFaults, AnIdThatIsGivenOutAgainHasAnotherName) {
  stand_in("squeue",
           "printf '1\\x1fRUNNING\\x1f1:00\\x1f0\\x1f0\\x1fanother\\x1fNone\\x1fn1\\x1f\\n'");
  EXPECT_EQ(status("1").job_name, "another");
}

TEST_F(SlurmFaults, AStateThatIsNotKnownIsSaidOnce) {
  stand_in("squeue",
           "printf '1\\x1fLEVITATING\\x1f1:00\\x1f0\\x1f0\\x1fx\\x1fNone\\x1fn1\\x1f\\n'");
  std::vector<std::string> said;
  set_log_observer([&](LogLevel, std::string_view text) { said.emplace_back(text); });
  for (int i = 0; i < 3; ++i) EXPECT_EQ(status("1").word, "LEVITATING");
  set_log_observer({});
  ASSERT_EQ(said.size(), 1U);
  EXPECT_THAT(said[0], HasSubstr("job 1 is in state \"LEVITATING\""));
  EXPECT_THAT(said[0], HasSubstr("its last known state stands"));
}

TEST_F(SlurmFaults, TryingGivesTheSchedulersWordsAndLeavesNoJob) {
  stand_in("sbatch",
           "[ \"$1\" = --test-only ] || exit 9\n"
           "echo 'allocation failure: Invalid account or account/partition combination specified' "
           ">&2; exit 1");
  const auto said = provider_->try_submit(request("true"));
  ASSERT_FALSE(said);
  EXPECT_EQ(said.error().message,
            "sbatch --test-only: allocation failure: Invalid account or account/partition "
            "combination specified");
}

TEST_F(SlurmFaults, AsksForAllJobsWithOneCommand) {
  const auto log = (directory_ / "calls").string();
  stand_in("squeue", "echo call >>" + log);
  stand_in("scancel", "echo $# >>" + log + ".cancel");
  std::vector<std::string> ids;
  for (int i = 1; i <= 250; ++i) ids.push_back(std::to_string(i));
  const auto jobs = provider_->status(ids);
  ASSERT_TRUE(jobs);
  EXPECT_EQ(jobs->size(), 250U);
  EXPECT_EQ(text_of(log), "call\n");
  ASSERT_TRUE(provider_->cancel(ids));
  EXPECT_EQ(text_of(log + ".cancel"), "100\n100\n50\n");
}

// What a qsub is that translates for Slurm: said before it is called.
class PbsFaults : public SlurmFaults {
 protected:
  const char* kind() const override { return "pbspro"; }
};

TEST_F(PbsFaults, AQsubThatIsSlurmsWrapperIsRecognised) {
  stand_in("qsub", "# runs sbatch\ntouch " + (directory_ / "called").string());
  const auto error = submit_error(request("true"));
  EXPECT_EQ(error.code, ErrorCode::kSchedulerRefused);
  EXPECT_THAT(error.message, HasSubstr("a wrapper round Slurm's sbatch"));
  EXPECT_THAT(error.message, HasSubstr("use `type: SlurmProvider`"));
  EXPECT_FALSE(std::filesystem::exists(directory_ / "called"));
}

TEST_F(PbsFaults, WhatTheServerGetsIsClean) {
  setenv("FARCALL_ODD", "\xff\n'", 1);
  stand_in("qsub", "env >" + (directory_ / "environment").string() + "; pwd >>" +
                       (directory_ / "environment").string() + "; echo 7.server");
  const auto reply = provider_->submit(request("true"));
  unsetenv("FARCALL_ODD");
  ASSERT_TRUE(reply) << reply.error().message;
  const std::string environment = text_of(directory_ / "environment");
  EXPECT_THAT(environment, HasSubstr("LANG=C\n"));
  EXPECT_THAT(environment, testing::Not(HasSubstr("FARCALL_ODD")));
  EXPECT_THAT(environment, testing::EndsWith("\n/\n"));
}

TEST_F(PbsFaults, PrivilegedPortsThatAreUsedUpLeaveTheOutcomeUnknown) {
  give_up_after(3);
  stand_in("qsub", "sleep 61; echo 7.server");
  const auto error = submit_error(request("true"));
  EXPECT_EQ(error.code, ErrorCode::kOutcomeUnknown);
  EXPECT_THAT(error.message, HasSubstr("run out of privileged ports"));
}

TEST_F(PbsFaults, AServerWithoutHistoryIsAskedOnceMoreAndThenRemembered) {
  const auto log = (directory_ / "calls").string();
  stand_in("qstat", "echo \"$*\" >>" + log +
                        "\ncase \"$*\" in *-x*) echo 'qstat: PBS is not configured to maintain job "
                        "history 1.s' >&2;; esac\necho '{}'");
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(provider_->status({"1.s", "2.s"}));
  EXPECT_EQ(text_of(log),
            "-x -E -f -F json 1.s 2.s\n-E -f -F json 1.s 2.s\n-E -f -F json 1.s 2.s\n");
}

}  // namespace
}  // namespace farcall::providers
