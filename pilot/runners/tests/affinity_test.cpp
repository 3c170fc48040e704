#include "pilot/runners/affinity.h"

#include <gtest/gtest.h>

namespace farcall::pilot::test {
namespace {

using Shares = std::vector<Processors>;

Shares shares(const std::string& pattern, std::uint32_t workers, Processors processors) {
  auto affinity = Affinity::make(pattern, workers, std::move(processors));
  if (!affinity) {
    ADD_FAILURE() << affinity.error().message;
    return {};
  }
  Shares found;
  std::vector<std::shared_ptr<const Processors>> held;
  for (std::uint32_t i = 0; i < workers; ++i) {
    held.push_back(affinity->take());
    found.push_back(*held.back());
  }
  return found;
}

std::string problem(const std::string& pattern, std::uint32_t workers, Processors processors) {
  return Affinity::make(pattern, workers, std::move(processors)).error().message;
}

TEST(AffinityPatterns, AreThoseOfParsl) {
  const Processors seven = {9, 0, 1, 2, 3, 4, 8};
  EXPECT_EQ(shares("block", 3, seven), (Shares{{0, 1}, {2, 3}, {4, 8}}));
  EXPECT_EQ(shares("block-reverse", 3, seven), (Shares{{4, 8}, {2, 3}, {0, 1}}));
  EXPECT_EQ(shares("alternating", 3, seven), (Shares{{0, 3, 9}, {1, 4}, {2, 8}}));
  EXPECT_EQ(shares("list:0,2-4:9", 2, seven), (Shares{{0, 2, 3, 4}, {9}}));
}

TEST(AffinityPatterns, ThatCannotBeSayWhy) {
  EXPECT_EQ(
      problem("block", 3, {0, 1}),
      "cpu_affinity 'block': 3 workers cannot have processors of their own where there are 2");
  EXPECT_EQ(problem("list:0:1", 3, {0, 1}),
            "cpu_affinity 'list:0:1': it has 2 lists for 3 workers");
  EXPECT_EQ(problem("list:0:x", 2, {0, 1}),
            "cpu_affinity 'list:0:x': 'x' is no processor and no range of them");
  EXPECT_EQ(problem("list:0:1-2", 2, {0, 1}),
            "cpu_affinity 'list:0:1-2': this node has no processor 2 for it");
  EXPECT_EQ(problem("spread", 1, {0}),
            "cpu_affinity 'spread': it is none of none, block, block-reverse, alternating, "
            "list:0,1:2,3");
}

TEST(AffinityOfWorkers, GoesToTheLeastUsedOfThem) {
  const auto affinity = Affinity::make("block", 2, {0, 1});
  auto first = affinity->take(), second = affinity->take();
  EXPECT_EQ(*first, Processors{0});
  EXPECT_EQ(*second, Processors{1});
  const auto third = affinity->take();
  EXPECT_EQ(*third, Processors{0});
  first.reset();
  second.reset();
  EXPECT_EQ(*affinity->take(), Processors{1});
}

TEST(AffinityOfWorkers, IsForTasksOfOneCore) {
  const auto affinity = Affinity::make("block", 2, {0, 1});
  SubmissionHeader header;
  Assignment work;
  work.header = std::make_shared<SubmissionHeader>(header);
  const auto own = affinity->take();
  EXPECT_EQ(*affinity->of(work, own), Processors{0});
  header.resources.cores = 2;
  work.header = std::make_shared<SubmissionHeader>(header);
  EXPECT_EQ(*affinity->of(work, own), (Processors{0, 1}));
}

}  // namespace
}  // namespace farcall::pilot::test
