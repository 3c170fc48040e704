// What the local provider promises beyond the contract: its jobs outlive whoever submitted them,
// and nothing of a job outlives the job.
#include <gmock/gmock.h>
#include <signal.h>

#include <sstream>

#include "provider_fixture.h"

namespace farcall::providers {
namespace {

using testing::HasSubstr;

class LocalProviderTest : public ProviderFixture {
 protected:
  void SetUp() override { load("local", {{"kill_wait", 0.5}}); }

  // Of the pids in a file of the job; zombies are gone.
  bool all_gone(const std::string& file) {
    std::istringstream pids(text_of(file));
    for (std::string pid; std::getline(pids, pid);) {
      const auto stat = text_of("/proc/" + pid + "/stat");
      if (!stat.empty() && stat.find(") Z ") == std::string::npos) return false;
    }
    return true;
  }
  std::filesystem::path job_folder(const std::string& id) {
    return directory_ / "state/local-jobs" / id;
  }
};

// A process that ignores SIGTERM, in a session of its own, whose parent is gone.
constexpr const char* kStubborn =
    "setsid bash -c 'trap \"\" TERM; echo $BASHPID >>pids; while :; do sleep 0.1; done' & disown\n"
    "while [ ! -s pids ]; do sleep 0.02; done\n";

TEST_F(LocalProviderTest, CancelReachesWhatHidesAndWhatIsStubborn) {
  const auto block = request(std::string(kStubborn) + "touch ready; sleep 600");
  const auto id = submit(block);
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(block.directory + "/ready"); }));
  EXPECT_FALSE(all_gone(block.directory + "/pids"));
  ASSERT_TRUE(provider_->cancel({id}));
  EXPECT_EQ(await(id, JobState::kEnded).ended_by, EndedBy::kCancelled);
  EXPECT_TRUE(all_gone(block.directory + "/pids"));
}

TEST_F(LocalProviderTest, WhatAJobLeavesBehindEndsWithIt) {
  const auto block = request(std::string(kStubborn) + "exit 0");
  const auto id = submit(block);
  EXPECT_EQ(await(id, JobState::kEnded).ended_by, EndedBy::kCompleted);
  EXPECT_TRUE(all_gone(block.directory + "/pids"));
}

TEST_F(LocalProviderTest, OneRanksEndDoesNotEndTheOthers) {
  const auto block = request(
      "if [ $FARCALL_NODE_RANK = 1 ]; then exit 4; fi\n"
      "touch alive; while [ ! -e finish ]; do sleep 0.02; done",
      2);
  const auto id = submit(block);
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(block.directory + "/alive"); }));
  EXPECT_EQ(status(id).state, JobState::kRunning);
  ASSERT_TRUE(write_file(block.directory + "/finish", ""));
  const auto end = await(id, JobState::kEnded);
  EXPECT_EQ(end.ended_by, EndedBy::kFailed);
  EXPECT_EQ(end.exit_code, 4);
}

TEST_F(LocalProviderTest, AnotherProviderObjectAdoptsTheJob) {
  const auto block = request("while [ ! -e finish ]; do sleep 0.02; done");
  const auto id = submit(block);
  provider_.reset();
  ASSERT_NO_FATAL_FAILURE(load("local", nlohmann::json::object()));
  EXPECT_EQ(await(id, JobState::kRunning).job_name, block.job_name);
  EXPECT_EQ(*provider_->find_by_name(block.job_name), std::vector<std::string>{id});
  ASSERT_TRUE(write_file(block.directory + "/finish", ""));
  EXPECT_EQ(await(id, JobState::kEnded).ended_by, EndedBy::kCompleted);
}

TEST_F(LocalProviderTest, AKeeperThatIsKilledTakesTheJobWithIt) {
  const auto block = request(std::string(kStubborn) + "echo $$ >>pids; touch ready; sleep 600");
  const auto id = submit(block);
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(block.directory + "/ready"); }));
  const int keeper = std::atoi(text_of(job_folder(id) / "keeper").c_str());
  ASSERT_GT(keeper, 1);
  kill(keeper, SIGKILL);
  const auto end = await(id, JobState::kEnded);
  EXPECT_EQ(end.ended_by, EndedBy::kFailed);
  EXPECT_EQ(end.signal, SIGKILL);
  EXPECT_THAT(end.reason, HasSubstr("keeper was killed"));
  EXPECT_TRUE(eventually([&] { return all_gone(block.directory + "/pids"); }));
}

// The pid of a keeper that is gone belongs to somebody else now: neither believed nor killed.
TEST_F(LocalProviderTest, AStrangerWithThePidOfAKeeperIsLeftAlone) {
  const auto id = submit(request("true"));
  await(id, JobState::kEnded);
  std::filesystem::remove(job_folder(id) / "ended");
  ASSERT_TRUE(write_file(job_folder(id) / "keeper", std::to_string(getpid()) + " 1 boot 0 600\n"));
  ASSERT_TRUE(provider_->cancel({id}));  // would end this test
  EXPECT_EQ(status(id).state, JobState::kEnded);
}

TEST_F(LocalProviderTest, ABlockThatCannotWriteItsOutputIsReported) {
  auto block = request("true");
  ASSERT_TRUE(make_directory(block.directory + "/job.out"));  // where the file belongs
  const auto end = await(submit(block), JobState::kEnded);
  EXPECT_EQ(end.ended_by, EndedBy::kFailed);
  EXPECT_EQ(end.exit_code, 126);
}

}  // namespace
}  // namespace farcall::providers
