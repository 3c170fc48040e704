#include "model/range_set.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace farcall {
namespace {

std::set<std::uint32_t> expand(const RangeSet& ranges) {
  std::set<std::uint32_t> all;
  ranges.for_each([&](std::uint32_t i) { all.insert(i); });
  return all;
}

TEST(RangeSet, MergesNeighboursAndSplitsOnErase) {
  RangeSet set{{0, 5}, {5, 10}, {20, 21}};
  EXPECT_EQ(set.string(), "0-9,20");
  set.erase(Range{3, 6});
  EXPECT_EQ(set.string(), "0-2,6-9,20");
  EXPECT_TRUE(set.contains(2));
  EXPECT_FALSE(set.contains(3));
  EXPECT_TRUE(set.contains(Range{6, 10}));
  EXPECT_FALSE(set.contains(Range{6, 11}));
}

TEST(RangeSet, RefusesFlatPairsThatAreNoSet) {
  EXPECT_FALSE(RangeSet::from_flat({0, 1, 2}).has_value());
  EXPECT_FALSE(RangeSet::from_flat({3, 3}).has_value());
  EXPECT_FALSE(RangeSet::from_flat({0, 5, 5, 6}).has_value());
  EXPECT_FALSE(RangeSet::from_flat({4, 5, 0, 1}).has_value());
  EXPECT_EQ(RangeSet::from_flat({0, 5, 6, 7})->string(), "0-4,6");
}

// Against std::set, which is the definition.
TEST(RangeSet, AgreesWithAPlainSetOverRandomOperations) {
  std::mt19937 rng(20260131);
  auto random_range = [&] {
    std::uint32_t a = rng() % 60, b = rng() % 60;
    return Range{std::min(a, b), std::max(a, b)};
  };
  for (int round = 0; round < 300; ++round) {
    RangeSet set, other;
    std::set<std::uint32_t> model, other_model;
    for (int step = 0; step < 20; ++step) {
      Range range = random_range();
      auto& target = rng() % 4 == 0 ? other : set;
      auto& target_model = &target == &other ? other_model : model;
      if (rng() % 3 == 0) {
        target.erase(range);
        for (auto i = range.first; i < range.last; ++i) target_model.erase(i);
      } else {
        target.insert(range);
        for (auto i = range.first; i < range.last; ++i) target_model.insert(i);
      }
      ASSERT_EQ(expand(set), model);
      for (std::size_t i = 1; i < set.ranges().size(); ++i)
        ASSERT_GT(set.ranges()[i].first, set.ranges()[i - 1].last) << "not merged";
    }
    std::set<std::uint32_t> both, only;
    for (auto i : model) (other_model.count(i) ? both : only).insert(i);
    EXPECT_EQ(expand(set.intersection(other)), both);
    EXPECT_EQ(expand(set.difference(other)), only);
    EXPECT_EQ(set.count(), model.size());
    const std::size_t n = rng() % 10;
    RangeSet front = set.take_front(n);
    EXPECT_EQ(front.count(), std::min(n, model.size()));
    for (auto i : expand(front)) {
      EXPECT_EQ(i, *model.begin());
      model.erase(model.begin());
    }
    EXPECT_EQ(expand(set), model);
  }
}

}  // namespace
}  // namespace farcall
