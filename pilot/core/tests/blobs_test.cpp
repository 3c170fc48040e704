#include "harness.h"

namespace farcall::pilot::test {
namespace {

using Hashes = std::vector<std::string>;
const std::string kA(64, 'a'), kB(64, 'b');

std::string needs(std::vector<std::string> hashes) {
  std::vector<wire::BlobRef> blobs;
  for (std::string& hash : hashes) blobs.push_back({std::move(hash), 100});
  return wire::pack_blob_payload(blobs, "[]", "P");
}

TEST(Blobs, ATaskWaitsForAllOfItsBlobsAndOthersRunMeanwhile) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, needs({kA, kB})}, {1, "J"}});
  EXPECT_EQ(bench.wanted, (Hashes{kA, kB}));
  ASSERT_EQ(bench.started.size(), 1u);
  EXPECT_EQ(bench.started[0].work.ref, ref(1, 1));
  EXPECT_EQ(bench.core->queued(), 1u);
  bench.succeed(ref(1, 1));
  bench.blob(kB, "/cache/b");
  EXPECT_EQ(bench.started.size(), 1u);
  bench.blob(kA, "/cache/a");
  ASSERT_EQ(bench.started.size(), 2u);
  EXPECT_EQ(bench.started[1].work.blobs,
            (std::map<std::string, std::string>{{kA, "/cache/a"}, {kB, "/cache/b"}}));
  EXPECT_TRUE(bench.let_go.empty());
  bench.succeed(ref(1, 0));
  EXPECT_EQ(bench.let_go, (Hashes{kA, kB}));
}

TEST(Blobs, IsAskedForOnceForAllTasksThatShareIt) {
  Bench bench(2);
  bench.welcome();
  std::vector<std::pair<std::uint32_t, std::string>> tasks;
  for (std::uint32_t i = 0; i < 50; ++i) tasks.emplace_back(i, needs({kA}));
  bench.dispatch(1, tasks);
  EXPECT_EQ(bench.wanted, Hashes{kA});
  bench.blob(kA, "/cache/a");
  EXPECT_EQ(bench.started.size(), 2u);
  for (std::uint32_t i = 0; i < 50; ++i) bench.succeed(ref(1, i));
  EXPECT_EQ(bench.delivered.size(), 50u);
  EXPECT_EQ(bench.wanted, Hashes{kA});
  EXPECT_EQ(bench.let_go, Hashes{kA});
}

TEST(Blobs, OneThatCannotBeHadFailsItsTasksAndNoOthers) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, needs({kA})}, {1, needs({kB})}, {2, needs({kA, kB})}});
  bench.blob(kA, fail(ErrorCode::kIo, "cannot write /cache/a.part: No space left on device"));
  ASSERT_EQ(bench.delivered.size(), 2u);
  EXPECT_EQ(bench.delivered[0].outcome.failure, FailureClass::kEnvironment);
  const auto failure = failure_json(bench.delivered[0].data);
  EXPECT_EQ(failure["type"], "InputUnavailable");
  EXPECT_EQ(failure["message"],
            "an argument or the function of the task could not be brought to n1: cannot write "
            "/cache/a.part: No space left on device");
  bench.blob(kB, "/cache/b");
  ASSERT_EQ(bench.started.size(), 1u);
  EXPECT_EQ(bench.started[0].work.ref, ref(1, 1));
  bench.succeed(ref(1, 1));
  // Placed again, it is asked for again.
  bench.dispatch(1, {{0, needs({kA})}}, 2);
  EXPECT_EQ(bench.wanted, (Hashes{kA, kB, kA}));
}

TEST(Blobs, ADamagedListFailsItsTask) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, "Bad"}, {1, "J"}});
  ASSERT_EQ(bench.delivered.size(), 1u);
  EXPECT_NE(failure_json(bench.delivered[0].data)["message"].get<std::string>().find(
                "a payload of 3 bytes has no whole list of its 0 blobs"),
            std::string::npos);
  EXPECT_EQ(bench.started.size(), 1u);
}

TEST(Blobs, CancelStopAndAbandonDoNotWaitForThem) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, needs({kA})}, {1, needs({kA})}, {2, needs({kA})}});
  bench.cancel({ref(1, 0)});
  ASSERT_EQ(bench.delivered.size(), 1u);
  EXPECT_EQ(bench.delivered[0].outcome.state, TaskState::kCancelled);
  bench.core->on_down(bench.now);
  EXPECT_EQ(bench.hello().holds.size(), 2u);
  bench.welcome({ref(1, 1)});
  EXPECT_TRUE(bench.let_go.empty());
  bench.stop(0);
  ASSERT_EQ(bench.handed_back.size(), 1u);
  EXPECT_EQ(bench.handed_back[0].first, ref(1, 2));
  EXPECT_EQ(bench.let_go, Hashes{kA});
  bench.blob(kA, "/cache/a");  // too late: nobody wants it
  EXPECT_TRUE(bench.started.empty());
}

}  // namespace
}  // namespace farcall::pilot::test
