#include "interchange/core/fit.h"

#include <gtest/gtest.h>

namespace farcall::interchange {
namespace {

Room room(std::uint32_t free, std::uint32_t total = 8, std::uint32_t gpus = 0) {
  return {free, total, gpus, 1000};
}

std::string laid(const Wish& wish, const std::vector<Room>& rooms) {
  const auto parts = fit(wish, rooms);
  if (!parts) return "no";
  std::string text;
  for (const Part& part : *parts) text += fmt::format("{}:{} ", part.node, part.units);
  return text;
}

Wish ranks(std::uint32_t units, std::uint32_t nodes = 0) {
  Wish wish;
  wish.units = units;
  wish.nodes = nodes;
  return wish;
}

TEST(Fit, RanksGoToTheTightestNodeThatHoldsThemAll) {
  EXPECT_EQ(laid(ranks(4), {room(8), room(5), room(2)}), "1:4 ");
}

TEST(Fit, RanksThatNoNodeHoldsGoToAsFewAsFit) {
  EXPECT_EQ(laid(ranks(11), {room(3), room(8), room(4)}), "0:3 1:8 ");
  EXPECT_EQ(laid(ranks(16), {room(3), room(8), room(4)}), "no");
}

TEST(Fit, GivenNodesGetEqualShares) {
  EXPECT_EQ(laid(ranks(5, 2), {room(8), room(3), room(2)}), "1:3 2:2 ");
  EXPECT_EQ(laid(ranks(2, 4), {room(8), room(8), room(8), room(8)}), "no");
  EXPECT_EQ(laid(ranks(4, 4), {room(8), room(8), room(0), room(8)}), "no");
}

TEST(Fit, CoresGpusMemoryAndWholeNodesCount) {
  Wish wish = ranks(2);
  wish.slots = 3;
  EXPECT_EQ(laid(wish, {room(5), room(7)}), "1:2 ");
  wish.gpus = 1;
  EXPECT_EQ(laid(wish, {room(8), room(8, 8, 1), room(8, 8, 2)}), "2:2 ");
  wish.memory_mib = 1001;
  EXPECT_EQ(laid(wish, {room(8, 8, 2)}), "no");
  Wish whole = ranks(1);
  whole.exclusive = true;
  EXPECT_EQ(laid(whole, {room(7), room(8)}), "1:1 ");
}

TEST(Fit, ATaskWithoutRanksTakesItsCoresOnEachNode) {
  Resources resources;
  resources.nodes = 2;
  resources.cores = 4;
  EXPECT_EQ(laid(Wish::of(resources), {room(4), room(3), room(8)}), "0:1 2:1 ");
}

TEST(PickSlots, StaysInOneMemoryDomainIfItCan) {
  const RangeSet free{{1, 4}, {4, 8}};
  using Slots = std::vector<std::uint32_t>;
  EXPECT_EQ(pick_slots(free, 3, {4, 4}), (Slots{1, 2, 3}));
  EXPECT_EQ(pick_slots(free, 4, {4, 4}), (Slots{4, 5, 6, 7}));
  EXPECT_EQ(pick_slots(free, 6, {4, 4}), (Slots{1, 2, 4, 5, 6, 7}));
  EXPECT_EQ(pick_slots(RangeSet{{0, 1}, {2, 3}, {5, 8}}, 2, {}), (Slots{5, 6}));
}

}  // namespace
}  // namespace farcall::interchange
