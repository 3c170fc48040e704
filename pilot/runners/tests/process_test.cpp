#include "pilot/runners/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <set>

namespace farcall::pilot::test {
namespace {

using std::chrono::steady_clock;

// Each process starts two more and ends: who walks from parent to child only is always too late. It
// ends by itself after some seconds, whatever becomes of this test, and then says so.
TEST(KillTrees, EndsWhatStartsTwoMoreAndEnds) {
  const auto late = std::filesystem::temp_directory_path() / ("late." + std::to_string(getpid()));
  Spawn bomb;
  bomb.environment = process_environment();
  bomb.argv = {"/bin/bash", "-c",
               "b() { [ $SECONDS -lt 10 ] || { : > " + late.string() +
                   "; exit; }; b & b & }; b & exec sleep 1000"};
  become_subreaper();
  auto pid = spawn(bomb);
  ASSERT_TRUE(pid) << pid.error().message;
  std::set<pid_t> seen;
  const auto until = steady_clock::now() + std::chrono::seconds(8);
  while (seen.size() < 100 && steady_clock::now() < until)
    for (pid_t child : children_of(getpid())) seen.insert(child);
  EXPECT_GE(seen.size(), 100u) << "it did not fork";
  kill_trees([] { return children_of(getpid()); });
  while (waitpid(-1, nullptr, 0) > 0) {
  }
  EXPECT_EQ(kill(-*pid, 0), -1);
  EXPECT_EQ(errno, ESRCH);
  EXPECT_FALSE(std::filesystem::remove(late)) << "it went on until it ended by itself";
}

}  // namespace
}  // namespace farcall::pilot::test
