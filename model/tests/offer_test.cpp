#include "model/offer.h"

#include <gtest/gtest.h>

namespace farcall {
namespace {

Offer offer() { return {2, {4, 4, 1, 8000}, true, 1, 600, 570}; }

Resources wants(std::uint32_t cores, std::uint32_t nodes = 1, std::uint32_t ranks = 0) {
  Resources resources;
  resources.cores = cores;
  resources.nodes = nodes;
  resources.ranks = ranks;
  return resources;
}

TEST(WhyImpossible, SaysWhatIsNeededAndWhatThereIs) {
  EXPECT_EQ(why_impossible(offer(), wants(4, 2), 570'000), "");
  EXPECT_EQ(why_impossible(offer(), wants(5), 0),
            "it needs 5 cores, but the largest node of this endpoint has 4 cores");
  EXPECT_EQ(why_impossible(offer(), wants(1, 3), 0),
            "it needs 3 nodes with 1 core each, but a block of this endpoint has 2 nodes "
            "(nodes_per_block)");
  EXPECT_EQ(why_impossible(offer(), wants(1, 0, 9), 0),
            "it needs 9 ranks with 1 core each, but 2 nodes of this endpoint, as many as a block "
            "has, hold at most 8");
  Resources gpus = wants(1);
  gpus.gpus = 2;
  EXPECT_EQ(why_impossible(offer(), gpus, 0),
            "it needs 1 core and 2 GPUs, but the nodes of this endpoint have 1 GPU");
  Resources memory = wants(1);
  memory.memory_mib = 9000;
  EXPECT_EQ(why_impossible(offer(), memory, 0),
            "it needs 1 core, 9000 MiB of memory, but the largest node of this endpoint has 8000 "
            "MiB");
  EXPECT_EQ(why_impossible(offer(), wants(1), 571'000),
            "its walltime of 571 s is longer than the blocks of this endpoint can give it: they "
            "last 600 s, of which 570 s are for tasks");
}

TEST(WhyImpossible, NothingIsKnownToBeImpossibleBeforeANodeWasSeen) {
  const Offer fresh{1, {}, false, {}, 0, 0};
  EXPECT_EQ(why_impossible(fresh, wants(64), 0), "");
  EXPECT_NE(why_impossible(fresh, wants(64, 2), 0), "") << "the nodes of a block are in its config";
}

TEST(Offer, IsReadAsItWasWritten) {
  EXPECT_EQ(Offer::parse(offer().dump()), offer());
  const Offer fresh{1, {}, false, {}, 0, 0};
  EXPECT_EQ(Offer::parse(fresh.dump()), fresh);
  for (const char* wrong : {"", "[]", "{}", R"({"nodes_per_block":"many"})"})
    EXPECT_EQ(Offer::parse(wrong), std::nullopt) << wrong;
}

}  // namespace
}  // namespace farcall
