#include "interchange/core/node_plan.h"

#include <gtest/gtest.h>

namespace farcall::interchange {
namespace {

MonoTime at(int seconds) { return {std::chrono::seconds(seconds)}; }

TEST(NodePlan, GivesWhatIsFreeAllTheTime) {
  NodePlan node({8, 8, 2, 100}, MonoTime::max());
  node.hold({at(0), at(10), 3, 1, 40});   // runs
  node.hold({at(20), at(30), 6, 2, 80});  // is kept
  EXPECT_EQ(node.least(at(0), at(10)).slots, 5u);
  EXPECT_EQ(node.least(at(10), at(20)).slots, 8u);
  const Room across = node.least(at(5), at(25));
  EXPECT_EQ(across.slots, 2u);
  EXPECT_EQ(across.gpus, 0u);
  EXPECT_EQ(across.memory_mib, 20u);
  EXPECT_EQ(across.slots_total, 8u);
  EXPECT_EQ(node.least(at(30), MonoTime::max()).slots, 8u);
  std::set<MonoTime> times;
  node.add_times(times);
  EXPECT_EQ(times, (std::set<MonoTime>{at(10), at(30)}));
}

TEST(NodePlan, NothingIsFreeThatIsGivenTwiceOrBeyondTheAllocation) {
  NodePlan node({4, 4, 0, 0}, at(100));
  node.hold({at(0), MonoTime::max(), 3, 0, 0});
  node.hold({at(0), at(50), 3, 0, 0});
  EXPECT_EQ(node.least(at(1), at(2)).slots, 0u);
  EXPECT_EQ(node.least(at(50), at(100)).slots, 1u);
  EXPECT_EQ(node.least(at(50), at(101)).slots, 0u);
  std::set<MonoTime> times;
  node.add_times(times);
  EXPECT_EQ(times, std::set<MonoTime>{at(50)});
}

}  // namespace
}  // namespace farcall::interchange
