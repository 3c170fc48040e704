#include "interchange/core/scaling.h"

#include <gtest/gtest.h>

namespace farcall::interchange {
namespace {

BlockId id(std::uint8_t n) { return BlockId{{n}}; }

ScalingSettings settings(Strategy strategy, int most = 10) {
  ScalingSettings s;
  s.strategy = strategy;
  s.max_blocks = most;
  s.nodes_per_block = 2;
  s.max_idletime = seconds(120);
  return s;
}

ScalingBlock running(std::uint8_t n, std::uint64_t load, Duration idle = Duration{0}) {
  return {id(n), true, false, load, idle};
}
ScalingBlock waiting(std::uint8_t n) { return {id(n), false, false, 0, Duration{0}}; }

ScalingView view(std::uint64_t cores, std::vector<ScalingBlock> blocks) {
  ScalingView v;
  v.cores = v.tasks = cores;
  v.slots_per_node = 4;
  v.blocks = std::move(blocks);
  return v;
}

TEST(Scaling, TheFirstBlockFindsOutHowLargeANodeIs) {
  ScalingView v = view(1000, {});
  v.slots_per_node = 0;
  EXPECT_EQ(plan_blocks(settings(Strategy::kAuto), v).make, 1);
}

TEST(Scaling, ParallelismSharesSlots) {
  ScalingSettings s = settings(Strategy::kAuto);
  EXPECT_EQ(plan_blocks(s, view(33, {})).make, 5);  // 8 slots a block
  s.parallelism = 0.5;
  EXPECT_EQ(plan_blocks(s, view(33, {})).make, 3);
  s.parallelism = 0;
  EXPECT_EQ(plan_blocks(s, view(33, {})).make, 1);  // but never none
}

TEST(Scaling, BlocksThatWaitCount) {
  EXPECT_EQ(plan_blocks(settings(Strategy::kAuto), view(24, {waiting(1), waiting(2)})).make, 1);
  EXPECT_EQ(plan_blocks(settings(Strategy::kAuto), view(16, {waiting(1), waiting(2)})).make, 0);
}

TEST(Scaling, MaxAndMinBlocksAreLimits) {
  ScalingSettings s = settings(Strategy::kAuto, 2);
  EXPECT_EQ(plan_blocks(s, view(1000, {running(1, 8)})).make, 1);
  s.min_blocks = 2;
  EXPECT_EQ(plan_blocks(s, view(0, {})).make, 2);
}

TEST(Scaling, InitBlocksAreMadeOnce) {
  ScalingSettings s = settings(Strategy::kAuto);
  s.init_blocks = 3;
  ScalingView v = view(0, {});
  v.first = true;
  EXPECT_EQ(plan_blocks(s, v).make, 3);
  v.first = false;
  EXPECT_EQ(plan_blocks(s, v).make, 0);
}

TEST(Scaling, NoneNeverMakesAnotherOneAndGivesNoneBack) {
  ScalingSettings s = settings(Strategy::kNone);
  s.init_blocks = 2;
  ScalingView v = view(1000, {});
  v.first = true;
  EXPECT_EQ(plan_blocks(s, v).make, 2);
  v.first = false;
  EXPECT_EQ(plan_blocks(s, v).make, 0);
  v = view(0, {running(1, 0, seconds(1000))});
  v.no_task_for = v.excess_for = seconds(1000);
  EXPECT_TRUE(plan_blocks(s, v).give_back.empty());
}

TEST(Scaling, AutoCountsCoresAndTheOthersTasks) {
  ScalingView v = view(64, {});
  v.tasks = 8;  // of eight cores each
  EXPECT_EQ(plan_blocks(settings(Strategy::kAuto), v).make, 8);
  EXPECT_EQ(plan_blocks(settings(Strategy::kSimple), v).make, 1);
}

TEST(Scaling, ABlockAtItsEndIsNoRoomButCountsForTheLimit) {
  ScalingView v = view(16, {running(1, 8), running(2, 8)});
  v.blocks[0].ends_soon = true;
  EXPECT_EQ(plan_blocks(settings(Strategy::kAuto), v).make, 1);
  EXPECT_EQ(plan_blocks(settings(Strategy::kAuto, 2), v).make, 0);
}

TEST(Scaling, SimpleGivesBackOnlyWhenThereIsNoTaskAtAll) {
  const ScalingSettings s = settings(Strategy::kSimple);
  ScalingView v = view(1, {running(1, 1), running(2, 0, seconds(1000))});
  EXPECT_TRUE(plan_blocks(s, v).give_back.empty());
  v.tasks = 0;
  v.no_task_for = seconds(119);
  EXPECT_TRUE(plan_blocks(s, v).give_back.empty());
  v.no_task_for = seconds(120);
  EXPECT_EQ(plan_blocks(s, v).give_back, (std::vector<BlockId>{id(2), id(1)}));
}

TEST(Scaling, HtexAutoScaleGivesBackEachIdleBlock) {
  ScalingSettings s = settings(Strategy::kHtexAutoScale);
  ScalingView v = view(1, {running(1, 1), running(2, 0, seconds(1000)), running(3, 0)});
  EXPECT_EQ(plan_blocks(s, v).give_back, std::vector<BlockId>{id(2)});
  s.min_blocks = 3;
  EXPECT_TRUE(plan_blocks(s, v).give_back.empty());
}

TEST(Scaling, AutoGivesBackWaitingBlocksFirstThenTheEmptiest) {
  ScalingView v = view(9, {running(1, 6), running(2, 1), running(3, 2), waiting(4), waiting(5)});
  v.excess_for = seconds(120);
  // Two blocks are needed for nine cores.
  EXPECT_EQ(plan_blocks(settings(Strategy::kAuto), v).give_back,
            (std::vector<BlockId>{id(5), id(4), id(2)}));
}

// The demand goes up and down around the size of a block: a block is neither made nor given back.
TEST(Scaling, AutoDoesNotOscillate) {
  const ScalingSettings s = settings(Strategy::kAuto);
  Duration excess{0};
  std::vector<ScalingBlock> blocks = {running(1, 7), running(2, 1)};
  int made = 0, given = 0;
  for (int second = 0; second < 3600; ++second) {
    ScalingView v = view(second / 60 % 2 == 0 ? 9 : 8, blocks);
    const bool in_excess = static_cast<int>(blocks.size()) > needed_blocks(s, v);
    excess = in_excess ? excess + seconds(1) : Duration{0};
    v.excess_for = excess;
    const ScalingPlan plan = plan_blocks(s, v);
    made += plan.make;
    given += static_cast<int>(plan.give_back.size());
  }
  EXPECT_EQ(made, 0);
  EXPECT_EQ(given, 0);
}

TEST(Scaling, AutoKeepsABlockThatHasJustBecomeEmpty) {
  ScalingView v = view(1, {running(1, 1), running(2, 0, seconds(10))});
  v.excess_for = seconds(500);
  EXPECT_TRUE(plan_blocks(settings(Strategy::kAuto), v).give_back.empty());
  v.blocks[1].idle = seconds(120);
  EXPECT_EQ(plan_blocks(settings(Strategy::kAuto), v).give_back, std::vector<BlockId>{id(2)});
}

}  // namespace
}  // namespace farcall::interchange
