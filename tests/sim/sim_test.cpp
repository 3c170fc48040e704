// The interchange's core in virtual time with faults. A failure prints its seed;
//   FARCALL_SIM_SEED=n     runs that seed only
//   FARCALL_SIM_SEEDS=n    runs n seeds
//   FARCALL_TEST_LONG=1    runs 200 seeds
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/log.h"
#include "simulation.h"

namespace farcall::sim {
namespace {

using std::chrono::minutes;

std::uint64_t number(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr ? 0 : std::strtoull(text, nullptr, 10);
}

std::vector<std::uint64_t> seeds(std::uint64_t count) {
  if (const auto one = number("FARCALL_SIM_SEED")) return {one};
  if (number("FARCALL_TEST_LONG") != 0) count = 200;
  if (const auto many = number("FARCALL_SIM_SEEDS")) count = many;
  std::vector<std::uint64_t> all;
  for (std::uint64_t seed = 1; seed <= count; ++seed) all.push_back(seed);
  return all;
}

void expect_sound(const Options& options, const Tally& tally) {
  EXPECT_EQ(tally.error, "") << "seed " << options.seed
                             << ": again with FARCALL_SIM_SEED=" << options.seed;
  if (!tally.error.empty()) return;
  EXPECT_EQ(tally.succeeded + tally.failed + tally.cancelled,
            static_cast<std::uint64_t>(options.submissions) * options.tasks_per_submission);
  EXPECT_LE(tally.cancelled, tally.wished);
  // What an interchange that was started again could not judge, the relay takes as it comes; and a
  // report of a retry can be lost with its session.
  if (tally.crashes + tally.resets == 0) {
    EXPECT_EQ(tally.early, 0u);
  }
}

void print(const Options& options, const Tally& t) {
  fmt::print(
      "seed {}: {} events, {} checks, {:.0f} s, {} succeeded, {} failed, {} cancelled, {} starts, "
      "{} jobs, {} resets, {} crashes, {} outages, {} kills, {} repeats, {} stale failures, "
      "{} early, {} of {} left files taken, attempts up to {}\n",
      options.seed, t.events, t.checks, std::chrono::duration<double>(t.virtual_time).count(),
      t.succeeded, t.failed, t.cancelled, t.starts, t.jobs, t.resets, t.crashes, t.outages, t.kills,
      t.duplicates, t.stale_failures, t.early, t.left_taken, t.left, t.attempt_max);
}

class Sim : public testing::Test {
 protected:
  void SetUp() override { start_logging("sim", "", "error"); }
};

TEST_F(Sim, SmallEndpointWithAllFaults) {
  std::uint64_t crashes = 0, resets = 0, kills = 0, outages = 0, cancelled = 0, repeats = 0;
  std::uint64_t left = 0;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  const auto all = seeds(2);  // slow; what a sanitizer finds does not need many of them
#else
  const auto all = seeds(12);
#endif
  for (auto seed : all) {
    Options options;
    options.seed = seed;
    const Tally tally = Simulation(options).run();
    print(options, tally);
    expect_sound(options, tally);
    crashes += tally.crashes;
    resets += tally.resets;
    kills += tally.kills;
    outages += tally.outages;
    cancelled += tally.cancelled;
    repeats += tally.duplicates;
    left += tally.left_taken;
  }
  if (all.size() < 12) return;
  // The faults really happen.
  EXPECT_GT(crashes, 0u);
  EXPECT_GT(resets, 0u);
  EXPECT_GT(kills, 0u);
  EXPECT_GT(outages, 0u);
  EXPECT_GT(cancelled, 0u);
  EXPECT_GT(repeats, 0u);
  EXPECT_GT(left, 0u);
}

TEST_F(Sim, WithoutFaultsEveryTaskSucceedsAtItsFirstAttempt) {
  Options options;
  options.faults_until = Duration{0};
  options.task_failure = 0;
  options.walltime_s = 3600;
  const Tally tally = Simulation(options).run();
  print(options, tally);
  expect_sound(options, tally);
  EXPECT_EQ(tally.succeeded, 800u);
  EXPECT_EQ(tally.starts, 800u);
  EXPECT_EQ(tally.attempt_max, 1);
}

// Three tasks of 30 s fit into a block of two minutes; what nothing fits into is given back at
// once. Without a walltime it is learned from the first ones how long they take.
TEST_F(Sim, ShortBlocksAreUsedToTheLastMinute) {
  for (const std::uint64_t walltime_ms : {30'000, 0}) {
    for (const std::uint64_t seed : {1, 2}) {
      Options options;
      options.seed = seed;
      options.faults_until = Duration{0};
      options.task_failure = 0;
      options.blocks = 2;
      options.nodes_per_block = 2;
      options.slots = 4;
      options.submissions = 1;
      options.tasks_per_submission = 480;  // a quarter of an hour for sixteen slots
      options.walltime_s = 120;
      options.task_ms = 30'000;
      options.walltime_ms = walltime_ms;
      options.ends_known = true;
      options.latency_ms_max = 600;  // as a Slurm that has room, measured
      options.prefetch = 0;
      const Tally tally = Simulation(options).run();
      print(options, tally);
      expect_sound(options, tally);
      EXPECT_EQ(tally.starts, 480u);  // nothing is lost
      EXPECT_EQ(tally.cut_off, 0u);
      const double waste = 1 - tally.worked_s / tally.held_s;
      fmt::print("{:.0f} core-seconds held, {:.0f} worked: {:.1f} % wasted, {} jobs, {} queries\n",
                 tally.held_s, tally.worked_s, waste * 100, tally.jobs, tally.queries);
      EXPECT_LT(waste, 0.05);
    }
  }
}

TEST_F(Sim, ATaskFailsOnlyWhenTheBudgetOfItsClassIsSpent) {
  Options options;
  options.faults_until = Duration{0};
  options.task_failure = 0.4;
  options.walltime_s = 3600;
  const Tally tally = Simulation(options).run();
  print(options, tally);
  expect_sound(options, tally);
  EXPECT_EQ(tally.crashes + tally.resets, 0u);
  EXPECT_GT(tally.failed, 100u);
  EXPECT_GT(tally.attempt_max, 2);
}

// What is never tried again survives that its node is out of reach for minutes.
TEST_F(Sim, WithRetryNeverALateResultCounts) {
  for (auto seed : seeds(3)) {
    Options options;
    options.seed = seed;
    options.retry_never = true;
    options.task_failure = 0;
    options.task_ms = 60'000;
    options.tasks_per_submission = 100;
    options.walltime_s = 7200;
    options.message_loss = options.scheduler_fault = 0;
    options.pilot_kill_every = options.outage_every = options.cancel_every = Duration{0};
    options.crash_every = minutes(5);
    options.cut_every = seconds(40);
    const Tally tally = Simulation(options).run();
    print(options, tally);
    expect_sound(options, tally);
    EXPECT_GT(tally.cuts, 0u);
    EXPECT_EQ(tally.succeeded, 400u);
    EXPECT_EQ(tally.starts, 400u);
    EXPECT_EQ(tally.attempt_max, 1);
  }
}

// With every fault there is, the restart of an interchange without its relay among them.
TEST_F(Sim, WithRetryNeverNothingRunsTwice) {
  std::uint64_t lost = 0;
  for (auto seed : seeds(7)) {
    Options options;
    options.seed = seed;
    options.retry_never = true;
    options.walltime_s = 7200;
    options.cut_every = seconds(60);
    const Tally tally = Simulation(options).run();
    print(options, tally);
    expect_sound(options, tally);
    EXPECT_EQ(tally.attempt_max, 1);
    EXPECT_EQ(tally.after_lost, 0u);
    lost += tally.lost;
  }
  EXPECT_GT(lost, 0u);
}

TEST_F(Sim, TheSameSeedIsTheSameRun) {
  Options options;
  options.seed = 3;
  const Tally first = Simulation(options).run();
  const Tally second = Simulation(options).run();
  EXPECT_EQ(first.trace, second.trace);
  EXPECT_EQ(first.events, second.events);
}

TEST_F(Sim, AThousandNodes) {
  Options options;
  options.seed = seeds(1).front();
  options.blocks = 50;
  options.nodes_per_block = 20;
  options.submissions = 8;
#ifdef NDEBUG
  options.tasks_per_submission = 2500;
#else
  options.tasks_per_submission = 300;  // half a minute when optimised, many when not
#endif
  options.chunk_tasks = 512;
  options.window_tasks = 8000;
  options.task_ms_max = 30'000;
  options.walltime_s = 600;
  options.message_loss = 0.0005;
  options.crash_every = seconds(120);
  const Tally tally = Simulation(options).run();
  print(options, tally);
  expect_sound(options, tally);
}

}  // namespace
}  // namespace farcall::sim
