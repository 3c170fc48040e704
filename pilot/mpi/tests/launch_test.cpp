#include "pilot/mpi/launch.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace farcall::pilot {
namespace {

wire::TaskPlace place() {
  wire::TaskPlace place;
  place.shares.push_back({"n1", 0, 2, 4, {0, 1, 2, 3}, {"a", "b"}});
  place.shares.push_back({"n2", 1, 1, 2, {4, 6}, {"c"}});
  return place;
}

TEST(Launch, EachRankFindsItsPartOfItsNode) {
  const std::string text = nodes_text(place());
  EXPECT_EQ(text, "n1|2|0-3|a,b;n2|1|4,6|c");
  const auto second = rank_share(text, 1);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->node, "n1");
  EXPECT_EQ(second->rank_on_node, 1u);
  EXPECT_EQ(second->processors, (std::vector<std::uint32_t>{2, 3}));
  EXPECT_EQ(second->gpus, std::vector<std::string>{"b"});
  const auto third = rank_share(text, 2);
  ASSERT_TRUE(third);
  EXPECT_EQ(third->processors, (std::vector<std::uint32_t>{4, 6}));
  const auto fourth = rank_share(text, 3);
  ASSERT_FALSE(fourth);
  EXPECT_EQ(fourth.error().message,
            "rank 3 has no share: the task has 3 ranks (n1|2|0-3|a,b;n2|1|4,6|c)");
}

TEST(Launch, UnboundRanksHaveNoProcessors) {
  wire::TaskPlace unbound;
  unbound.shares.push_back({"n1", 0, 2, 2, {}, {}});
  const auto share = rank_share(nodes_text(unbound), 1);
  ASSERT_TRUE(share);
  EXPECT_TRUE(share->processors.empty());
}

TEST(Launch, ThePrefixNamesExactlyTheNodesOfTheTask) {
  SubmissionHeader header;
  header.resources.ranks = 3;
  header.environment["FARCALL_LAUNCHER_OPTIONS"] = "--mca btl tcp,self";
  const auto out = launch_environment(place(), header, {"/opt/x y/farcall-mpi", "/s", "/d"});
  EXPECT_EQ(out.at("FARCALL_MPI_PREFIX"),
            "mpirun -np 3 --host n1:2,n2:1 --bind-to none --mca btl tcp,self '/opt/x "
            "y/farcall-mpi' rank");
  EXPECT_EQ(out.at("PARSL_MPI_PREFIX"), out.at("FARCALL_MPI_PREFIX"));
  EXPECT_EQ(out.at("FARCALL_NUM_RANKS"), "3");
  EXPECT_EQ(out.at("FARCALL_CORES"), "0-3");
  EXPECT_FALSE(out.contains("CUDA_VISIBLE_DEVICES"));  // of each rank, not of the task
}

TEST(Launch, OneNodeIsThisOneAndNeedsNoName) {
  wire::TaskPlace one = place();
  one.shares.resize(1);
  const auto words = launch_words(one, {}, "/opt/farcall-mpi");
  EXPECT_EQ(*std::next(std::find(words.begin(), words.end(), "--host")), "localhost:2");
}

TEST(Launch, ATaskWithoutRanksGetsItsGpusByTheirNames) {
  wire::TaskPlace one;
  one.shares.push_back({"n1", 0, 0, 1, {2}, {"GPU-1", "GPU-2"}});
  const auto out = place_environment(one, {});
  EXPECT_FALSE(out.contains("OMPI_MCA_orte_tmpdir_base"));  // it launches nothing
  for (const char* name : {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"})
    EXPECT_EQ(out.at(name), "GPU-1,GPU-2");
}

TEST(Launch, ReadsWhatMpirunSays) {
  EXPECT_EQ(read_launcher("mpirun noticed that process rank 3 with PID 24099 on node nodeb exited "
                          "on signal 11 (Segmentation fault).",
                          139)
                .signal,
            11);
  EXPECT_FALSE(read_launcher("  Exit code:    7", 7).node_lost);
  EXPECT_TRUE(read_launcher("ORTE has lost communication with a remote daemon.", 1).node_lost);
}

TEST(Launch, ASignalIsKnownFromTheExitCodeWhereMpirunDoesNotNameIt) {
  // What it says on a busy node, and nothing else.
  const char* text =
      "Primary job  terminated normally, but 1 process returned\n"
      "a non-zero exit code. Per user-direction, the job has been aborted.";
  EXPECT_EQ(read_launcher(text, 139).signal, 11);
  EXPECT_EQ(read_launcher(text, 7).signal, 0);
  EXPECT_EQ(read_launcher("  Exit code:    139", 139).signal, 0);
  EXPECT_EQ(read_launcher("MPI_ABORT was invoked on rank 1 with errorcode 139", 139).signal, 0);
}

}  // namespace
}  // namespace farcall::pilot
