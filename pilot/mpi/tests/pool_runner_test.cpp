#include "pilot/mpi/pool_runner.h"

#include <set>

#include "base/files.h"
#include "base/keys.h"
#include "base/subprocess.h"
#include "harness.h"
#include "pilot/runners/process.h"

namespace farcall::pilot::test {
namespace {

using nlohmann::json;

constexpr const char* kSource = R"(
import os, time

def total(comm, x):
    return comm.allreduce(x + comm.Get_rank())

def wait(comm, path):
    comm.Barrier()
    while not os.path.exists(path):
        time.sleep(0.01)
    return "done"

def crash(comm):
    comm.Barrier()
    if comm.Get_rank() == 1:
        os.kill(os.getpid(), 11)
    comm.Barrier()

def disconnect(comm):
    import gc
    if comm.Get_rank() == 1:
        [one for one in gc.get_objects() if type(one).__name__ == "Channel"][0].socket.close()

def refuse(comm):
    if comm.Get_rank() == 1:
        raise ValueError("rank 1 will not")
    comm.Barrier()
)";

// Real pools of mpirun on this host.
class Pools : public testing::Test, public Bench {
 protected:
  Pools() {
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    settings.python = "/usr/bin/python3";
  }
  void SetUp() override {
    // One pilot that is asked for the other nodes' starts as well.
    mpi = std::make_unique<MpiRunner>(
        poller, settings, FARCALL_TEST_MPI_TOOL, events(),
        MpiEvents{[this](wire::Spawn spawn) { mpi->start_guest(spawn); },
                  [](const wire::Spawned&) {}});
    pools = std::make_unique<PoolRunner>(poller, settings, *mpi, events());
  }
  void TearDown() override {
    pools.reset();
    mpi.reset();
    EXPECT_EQ(shared_files(), std::set<std::string>{});
  }
  // Of this process's tasks.
  static std::set<std::string> shared_files() {
    std::string start = MpiRunner::directory_of(ref(0)).filename().string();
    start.resize(start.size() - std::string("-0-1").size());
    std::set<std::string> files;
    for (const auto& entry : fs::directory_iterator("/dev/shm"))
      if (entry.path().filename().string().starts_with(start)) files.insert(entry.path());
    return files;
  }
  Start call(const wire::AttemptRef& r, const std::string& name, std::uint32_t ranks,
             json args = json::array(), const std::string& result = "root") {
    const json body = {{"entry", name}, {"source", kSource}};
    auto code = std::make_shared<Function>(
        Function{{FunctionId{content_id(name + result)}, FunctionKind::kMpiFunction, name,
                  json({{"code", "python"}, {"result", result}}).dump()},
                 Bytes(body.dump())});
    SubmissionHeader header;
    header.resources.ranks = ranks;
    Start out = start(r, code, {{"args", args}}, header);
    out.work.place = std::make_shared<const wire::TaskPlace>(
        wire::TaskPlace{r, {{host_name(), 0, ranks, ranks, {}, {}}}});
    return out;
  }
  Start native(const wire::AttemptRef& r, const std::string& name, std::uint32_t ranks,
               const json& args) {
    Start out = call(r, name, ranks, args);
    out.work.function = std::make_shared<Function>(
        Function{{FunctionId{content_id("native" + name)}, FunctionKind::kMpiFunction, name,
                  json({{"code", "native"}, {"file", "libwork.so"}}).dump()},
                 Bytes(read_file(FARCALL_TEST_MPI_FUNCTIONS).value())});
    return out;
  }
  std::unique_ptr<MpiRunner> mpi;
  std::unique_ptr<PoolRunner> pools;
};

TEST_F(Pools, SubmissionsOfOneMomentHaveDirectoriesOfTheirOwn) {
  wire::AttemptRef one = ref(0), other = ref(0);
  one.submission.bytes[8] ^= 1;
  other.submission.bytes[7] ^= 1;
  EXPECT_NE(MpiRunner::directory_of(one), MpiRunner::directory_of(ref(0)));
  EXPECT_NE(MpiRunner::directory_of(other), MpiRunner::directory_of(ref(0)));
}

TEST_F(Pools, FunctionsOfCppGetTheCommunicatorToo) {
  pools->start(native(ref(0), "total", 3, {2.5}));
  ASSERT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(finished[ref(0)].data.view(), "J10.5");
  pools->start(native(ref(1), "throws", 2, {"too hot"}));
  ASSERT_TRUE(until_finished(ref(1)));
  EXPECT_EQ(finished[ref(1)].outcome.failure, FailureClass::kUserError);
  EXPECT_EQ(failure(ref(1))["message"], "too hot");
  EXPECT_EQ(failure(ref(1))["type"], "(anonymous namespace)::Unstable");
  EXPECT_EQ(failure(ref(1))["module"], "c++");
  pools->start(native(ref(2), "total", 2, {"x"}));
  ASSERT_TRUE(until_finished(ref(2)));
  EXPECT_EQ(failure(ref(2))["message"], "argument 1 is a text, \"x\"; expected a number");
  pools->start(native(ref(3), "plain", 2, {1}));
  ASSERT_TRUE(until_finished(ref(3)));
  const std::string text = failure(ref(3))["message"];
  EXPECT_TRUE(text.starts_with("libwork.so has no MPI function plain (")) << text;
  pools->start(native(ref(4), "crash", 2, json::array()));
  ASSERT_TRUE(until_finished(ref(4)));
  EXPECT_EQ(finished[ref(4)].outcome.failure, FailureClass::kCrash);
  EXPECT_EQ(finished[ref(4)].outcome.signal, 11);
}

TEST_F(Pools, RanksAreStartedOnceAndGiveWhatRankZeroOrAllOfThemReturn) {
  pools->start(call(ref(0), "total", 4, {10}));
  ASSERT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(finished[ref(0)].data.view(), "J46");
  pools->start(call(ref(1), "total", 2, {1}, "all"));
  pools->start(call(ref(2), "total", 2, {5}));
  ASSERT_TRUE(until_finished(ref(1)) && until_finished(ref(2)));
  EXPECT_EQ(finished[ref(1)].data.view(), "J[3,3]");
  EXPECT_EQ(finished[ref(2)].data.view(), "J11");
  EXPECT_EQ(pools->pool_count(), 1u);
}

// The pilot of the other node is told that the attempt is over, and looks for what it has left.
TEST_F(Pools, APoolOverTwoNodesOutlivesTheTaskThatStartedIt) {
  const auto wide = [&](std::uint32_t index) {
    Start out = call(ref(index), "total", 4, {10});
    auto header = std::make_shared<SubmissionHeader>(*out.work.header);
    // Two daemons on one host would take each other's shared memory for their own.
    header->environment["FARCALL_LAUNCHER_OPTIONS"] = "--mca btl tcp,self";
    out.work.header = std::move(header);
    out.work.place = std::make_shared<const wire::TaskPlace>(wire::TaskPlace{
        ref(index), {{host_name(), 0, 2, 2, {}, {}}, {"elsewhere", 1, 2, 2, {}, {}}}});
    return out;
  };
  const auto sweep = [&] {
    return kill_left_behind([this](pid_t pid) { return poller.is_ours(pid); },
                            [](const std::string&) { return true; }, UINT64_MAX);
  };
  pools->start(wide(0));
  int swept = 0;
  ASSERT_TRUE(until([&] {
    swept += sweep();
    return finished.contains(ref(0));
  }));
  EXPECT_EQ(swept, 0);
  EXPECT_EQ(finished[ref(0)].data.view(), "J46");
  mpi->end_guest(ref(0));
  EXPECT_EQ(sweep(), 0);
  pools->start(wide(1));
  ASSERT_TRUE(until_finished(ref(1)));
  EXPECT_EQ(finished[ref(1)].data.view(), "J46");
  EXPECT_EQ(pools->pool_count(), 1u);
}

TEST_F(Pools, ACrashIsChargedToItsTaskAndTheNeighbourRunsAgain) {
  const std::string go = (settings.scratch / "go").string();
  pools->start(call(ref(0), "total", 4, {0}));
  ASSERT_TRUE(until_finished(ref(0)));
  const Start neighbour = call(ref(1), "wait", 2, {go});
  pools->start(neighbour);
  pools->start(call(ref(2), "crash", 2));
  ASSERT_TRUE(until_finished(ref(2)));
  EXPECT_EQ(finished[ref(2)].outcome.failure, FailureClass::kCrash);
  EXPECT_EQ(finished[ref(2)].outcome.signal, 11);
  const std::string text = failure(ref(2))["message"];
  EXPECT_TRUE(
      text.starts_with("rank 1 of the task died by signal 11 (Segmentation fault). The "
                       "launcher said:\n"))
      << text;
  ASSERT_TRUE(until([&] { return !returned.empty(); }));
  EXPECT_EQ(returned, std::vector{ref(1)});
  pools->start(neighbour);
  std::ofstream(go) << "go";
  ASSERT_TRUE(until_finished(ref(1)));
  EXPECT_EQ(finished[ref(1)].data.view(), "J\"done\"");
}

TEST_F(Pools, OfAWidthThatTheEndpointSaysAreSharedByLaterTasks) {
  pools.reset();
  settings.pool_ranks = 4;
  pools = std::make_unique<PoolRunner>(poller, settings, *mpi, events());
  const std::string go = (settings.scratch / "go").string();
  pools->start(call(ref(0), "wait", 2, {go}));
  pools->start(call(ref(1), "wait", 2, {go}));
  EXPECT_EQ(pools->pool_count(), 1u);
  pools->start(call(ref(2), "total", 2, {0}));  // all ranks are taken
  ASSERT_TRUE(until_finished(ref(2)));
  EXPECT_EQ(pools->pool_count(), 2u);
  std::ofstream(go) << "go";
  ASSERT_TRUE(until_finished(ref(0)) && until_finished(ref(1)));
  EXPECT_EQ(finished[ref(1)].data.view(), "J\"done\"");
}

TEST_F(Pools, ARankThatCannotAnswerEndsItsPool) {
  pools->start(call(ref(0), "disconnect", 2));
  ASSERT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kCrash);
  EXPECT_TRUE(until([&] { return pools->pool_count() == 0; }));
}

TEST_F(Pools, AnExceptionOfOneRankDoesNotWaitForThoseThatWaitForIt) {
  pools->start(call(ref(0), "refuse", 2));
  ASSERT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kUserError);
  EXPECT_EQ(failure(ref(0))["message"], "rank 1 will not");
  EXPECT_TRUE(until([&] { return pools->pool_count() == 0; }));
}

TEST_F(Pools, AKillEndsThePoolAndTheNeighbourRunsAgain) {
  const std::string never = (settings.scratch / "never").string();
  pools->start(call(ref(0), "total", 4, {0}));
  ASSERT_TRUE(until_finished(ref(0)));
  pools->start(call(ref(1), "wait", 2, {never}));
  pools->start(call(ref(2), "wait", 2, {never}));
  pools->kill(ref(1));
  ASSERT_TRUE(until([&] { return !killed.empty() && !returned.empty(); }));
  EXPECT_EQ(killed, std::vector{ref(1)});
  EXPECT_EQ(returned, std::vector{ref(2)});
  EXPECT_EQ(pools->pool_count(), 0u);
}

TEST_F(Pools, APoolThatCannotStartSaysWhy) {
  settings.python = "/no/such/python";
  pools.reset();  // give up the sockets
  mpi.reset();
  SetUp();
  pools->start(call(ref(0), "total", 2, {0}));
  ASSERT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kEnvironment);
  const std::string text = failure(ref(0))["message"];
  EXPECT_TRUE(
      text.starts_with("the MPI ranks for the task could not be started from n1. The "
                       "launcher said:\n"))
      << text;
  EXPECT_NE(text.find("/no/such/python"), std::string::npos) << text;
}

}  // namespace
}  // namespace farcall::pilot::test
