// Many worlds from seeds. A failing one is printed; FARCALL_SIM_SEED=N runs it alone (with
// FARCALL_SIM_LOG=1 the core's log as well), FARCALL_SIM_SEEDS=N runs so many more.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/log.h"
#include "world.h"

namespace farcall::interchange::sim {
namespace {

std::uint64_t number(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : std::strtoull(text, nullptr, 10);
}

void play(Scenario scenario, const char* kind) {
  World world(scenario);
  const std::string wrong = world.run();
  EXPECT_EQ(wrong, "") << kind << " world of seed " << scenario.seed
                       << ": again with FARCALL_SIM_SEED=" << scenario.seed << "\n"
                       << world.summary();
  if (std::getenv("FARCALL_SIM_LOG") != nullptr)
    fmt::print("{} {}: {}\n", kind, scenario.seed, world.summary());
}

std::vector<std::uint64_t> seeds(std::uint64_t count) {
  if (const std::uint64_t only = number("FARCALL_SIM_SEED", 0); only != 0) return {only};
  std::vector<std::uint64_t> result;
  for (std::uint64_t seed = 1; seed <= count + number("FARCALL_SIM_SEEDS", 0); ++seed)
    result.push_back(seed);
  return result;
}

class InterchangeSim : public testing::Test {
 protected:
  void SetUp() override {
    start_logging("sim", "", std::getenv("FARCALL_SIM_LOG") != nullptr ? "debug" : "error");
  }
};

TEST_F(InterchangeSim, CalmWorldRunsEverythingOnce) {
  for (const std::uint64_t seed : seeds(3)) play({.seed = seed, .faults = false}, "calm");
}

TEST_F(InterchangeSim, WhateverBreaksEveryTaskGetsOneOutcome) {
  for (const std::uint64_t seed : seeds(12)) play({.seed = seed}, "faulty");
}

TEST_F(InterchangeSim, ShortBlocksAndLongTasks) {
  for (const std::uint64_t seed : seeds(6))
    play({.seed = seed, .task_max = seconds(60), .walltime = seconds(90)}, "short");
}

TEST_F(InterchangeSim, AThousandNodes) {
  for (const std::uint64_t seed : seeds(1))
    play({.seed = seed,
          .submissions = 20,
          .tasks_per_submission = 1000,
          .nodes_per_block = 100,
          .max_blocks = 10,
          .calm_after = seconds(120),
          .fault_every_ms = 200,
          .check_every = 500,
          .window_tasks = 30'000},
         "large");
}

}  // namespace
}  // namespace farcall::interchange::sim
