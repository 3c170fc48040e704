#include "base/keys.h"
#include "harness.h"
#include "pilot/mpi/launch.h"
#include "pilot/mpi/mpi_runner.h"
#include "pilot/mpi/pool_runner.h"

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

// Real mpirun on this host.
class Mpi : public testing::Test, public Bench {
 protected:
  Mpi() {
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    settings.python = "/usr/bin/python3";
  }
  void SetUp() override {
    programs = std::make_unique<MpiRunner>(poller, settings, FARCALL_TEST_MPI_TOOL, events());
    pools = std::make_unique<PoolRunner>(poller, settings, events());
  }
  void TearDown() override {
    programs.reset();
    pools.reset();
    for (std::uint32_t i = 0; i < 3; ++i) EXPECT_FALSE(fs::exists(mpi_directory(ref(i))));
  }
  static SubmissionHeader with_ranks(std::uint32_t ranks) {
    SubmissionHeader header;
    header.environment["FARCALL_NUM_RANKS"] = std::to_string(ranks);
    return header;
  }
  Start program(const wire::AttemptRef& r, std::uint32_t ranks, const std::string& script,
                json more = json::object()) {
    json arguments = {{"argv", {"sh", "-c", script}}};
    arguments.update(more);
    return start(r, function(FunctionKind::kMpiProgram, {{"argv", true}}), arguments,
                 with_ranks(ranks));
  }
  wire::ShellResult run(const Start& what) {
    programs->start(what);
    EXPECT_TRUE(until_finished(what.work.ref));
    return shell(what.work.ref);
  }
  Start call(const wire::AttemptRef& r, const std::string& name, std::uint32_t ranks,
             json args = json::array(), const std::string& result = "root") {
    const json body = {{"entry", name}, {"source", kSource}};
    auto code = std::make_shared<Function>(
        Function{{FunctionId{content_id(name + result)}, FunctionKind::kMpiFunction, name,
                  json({{"code", "python"}, {"result", result}}).dump()},
                 Bytes(body.dump())});
    return start(r, code, {{"args", args}}, with_ranks(ranks));
  }
  std::unique_ptr<MpiRunner> programs;
  std::unique_ptr<PoolRunner> pools;
};

TEST_F(Mpi, AProgramRunsOnAsManyRanksAsItsTaskHas) {
  const auto result = run(program(ref(0), 3, "echo $OMPI_COMM_WORLD_RANK of $FARCALL_NUM_RANKS"));
  for (int rank = 0; rank < 3; ++rank)
    EXPECT_NE(result.out.find(fmt::format("{} of 3\n", rank)), std::string::npos)
        << result.out << result.err;
}

TEST_F(Mpi, ExitCodeAndSignalAreThoseOfTheFailingRank) {
  EXPECT_EQ(run(program(ref(0), 2, "[ $OMPI_COMM_WORLD_RANK = 0 ] || exit 7; sleep 60")).returncode,
            7);
  run(program(ref(1), 2, "[ $OMPI_COMM_WORLD_RANK = 0 ] || kill -SEGV $$; sleep 60"));
  EXPECT_EQ(finished[ref(1)].outcome.exit_code, 139);
  EXPECT_EQ(finished[ref(1)].outcome.signal, 11);
}

TEST_F(Mpi, EachRankCanHaveAFileOfItsOwn) {
  const auto path = settings.scratch / "out.%t";
  run(program(ref(0), 2, "echo I am $OMPI_COMM_WORLD_RANK", {{"stdout", path.string()}}));
  EXPECT_EQ(read_file(settings.scratch / "out.0").value_or(""), "I am 0\n");
  EXPECT_EQ(read_file(settings.scratch / "out.1").value_or(""), "I am 1\n");
}

TEST_F(Mpi, AKillReachesAllRanksOfAProgram) {
  const std::string mark = (settings.scratch / "pid").string();
  programs->start(
      program(ref(0), 2, "echo $$ > " + mark + ".$OMPI_COMM_WORLD_RANK; exec sleep 1000"));
  ASSERT_TRUE(until([&] { return pid_in(mark + ".0") > 0 && pid_in(mark + ".1") > 0; }));
  programs->kill(ref(0));
  ASSERT_TRUE(until([&] { return !killed.empty(); }));
  for (const char* rank : {".0", ".1"})
    EXPECT_TRUE(until([&] { return !alive(pid_in(mark + rank)); })) << rank;
}

TEST_F(Mpi, AScriptPlacesThePrefixItself) {
  Start what = program(ref(0), 2, "");
  what.work.function = function(
      FunctionKind::kMpiProgram,
      {{"cmd", "true; $PARSL_MPI_PREFIX sh -c 'echo rank $OMPI_COMM_WORLD_RANK'; echo done"}});
  what.work.arguments = Bytes(std::string("J{}"));
  const auto result = run(what);
  EXPECT_NE(result.out.find("rank 1\n"), std::string::npos) << result.out << result.err;
  EXPECT_NE(result.out.find("done\n"), std::string::npos);
}

TEST_F(Mpi, FunctionsFindTheRanksOfEarlierOnes) {
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

TEST_F(Mpi, ACrashIsChargedToItsTaskAndTheNeighbourRunsAgain) {
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

TEST_F(Mpi, ARankThatCannotAnswerEndsItsPool) {
  pools->start(call(ref(0), "disconnect", 2));
  ASSERT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kCrash);
  EXPECT_TRUE(until([&] { return pools->pool_count() == 0; }));
}

TEST_F(Mpi, AnExceptionOfOneRankDoesNotWaitForThoseThatWaitForIt) {
  pools->start(call(ref(0), "refuse", 2));
  ASSERT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kUserError);
  EXPECT_EQ(failure(ref(0))["message"], "rank 1 will not");
  EXPECT_TRUE(until([&] { return pools->pool_count() == 0; }));
}

TEST_F(Mpi, AKillEndsThePoolAndTheNeighbourRunsAgain) {
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

TEST_F(Mpi, APoolThatCannotStartSaysWhy) {
  settings.python = "/no/such/python";
  pools.reset();  // gives up the socket
  pools = std::make_unique<PoolRunner>(poller, settings, events());
  pools->start(call(ref(0), "total", 2, {0}));
  ASSERT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kEnvironment);
  const std::string text = failure(ref(0))["message"];
  EXPECT_TRUE(
      text.starts_with("the MPI ranks for the task could not be started on n1. The "
                       "launcher said:\n"))
      << text;
  EXPECT_NE(text.find("/no/such/python"), std::string::npos) << text;
}

}  // namespace
}  // namespace farcall::pilot::test
