// Slurm commands that hang, answer late or lose the answer: stand-ins first on PATH.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstdlib>

#include "provider_fixture.h"

namespace farcall::providers {
namespace {

using testing::HasSubstr;

class SlurmFaults : public ProviderFixture {
 protected:
  void SetUp() override {
    ASSERT_TRUE(make_directory(directory_ / "bin"));
    load("slurm", {{"cmd_timeout", 1.0}});
    old_path_ = std::getenv("PATH");
    setenv("PATH", ((directory_ / "bin").string() + ":/usr/bin:/bin").c_str(), 1);
  }
  void TearDown() override {
    setenv("PATH", old_path_.c_str(), 1);
    provider_.reset();
  }
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
  stand_in("squeue", "sleep 600");
  const auto jobs = provider_->status({"1"});
  ASSERT_FALSE(jobs);
  EXPECT_EQ(jobs.error().code, ErrorCode::kSchedulerUnavailable);
  EXPECT_EQ(provider_->find_by_name("x").error().code, ErrorCode::kSchedulerUnavailable);
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

}  // namespace
}  // namespace farcall::providers
