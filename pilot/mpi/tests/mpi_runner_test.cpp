#include "pilot/mpi/mpi_runner.h"

#include <unistd.h>

#include "base/subprocess.h"
#include "wire/blob_payload.h"
#include "wire/blobs.h"

#include "harness.h"

namespace farcall::pilot::test {
namespace {

using nlohmann::json;

// One pilot that is asked for the other nodes' starts as well: real mpirun, real daemons.
class Mpi : public testing::Test, public Bench {
 protected:
  Mpi() {
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  }
  Start program(const wire::AttemptRef& r, const std::string& script,
                std::vector<wire::NodeShare> shares, json more = json::object()) {
    json arguments = {{"argv", {"sh", "-c", script}}};
    arguments.update(more);
    SubmissionHeader header;
    for (const auto& share : shares) header.resources.ranks += share.ranks;
    Start out = start(r, function(FunctionKind::kMpiProgram, {{"argv", true}}), arguments, header);
    wire::TaskPlace place{r, std::move(shares)};
    out.work.place = std::make_shared<const wire::TaskPlace>(std::move(place));
    return out;
  }
  wire::ShellResult run(const Start& what) {
    runner->start(what);
    EXPECT_TRUE(until_finished(what.work.ref));
    return shell(what.work.ref);
  }
  static wire::NodeShare here(std::uint32_t ranks, std::vector<std::uint32_t> processors = {}) {
    return {host_name(), 0, ranks, ranks, std::move(processors), {}};
  }
  static wire::NodeShare elsewhere(std::uint32_t ranks) {
    return {"elsewhere", 1, ranks, ranks, {}, {}};
  }
  void make(std::function<void(wire::Spawn)> spawn) {
    runner.reset();  // gives up its socket
    runner = std::make_unique<MpiRunner>(
        poller, settings, FARCALL_TEST_MPI_TOOL, events(),
        MpiEvents{std::move(spawn), [this](wire::Spawned s) { runner->on_guest_ended(s); }});
  }
  void SetUp() override {
    make([this](wire::Spawn spawn) {
      spawns.push_back(spawn);
      runner->start_guest(spawn);
    });
  }
  std::vector<wire::Spawn> spawns;
  std::unique_ptr<MpiRunner> runner;
};

TEST_F(Mpi, RanksRunHereAndWhereThePilotOfTheOtherNodeStartsThem) {
  const auto result =
      run(program(ref(0), "echo $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE $FARCALL_TASK_ID",
                  {here(1), elsewhere(2)}));
  for (int rank = 0; rank < 3; ++rank)
    EXPECT_NE(result.out.find(
                  fmt::format("{} of 3 {}", rank, start(ref(0), nullptr, {}).work.task().string())),
              std::string::npos)
        << result.out << result.err;
  ASSERT_EQ(spawns.size(), 1u);
  EXPECT_EQ(spawns[0].node_rank, 1u);
  runner->end_guest(ref(0));
  EXPECT_FALSE(fs::exists(MpiRunner::directory_of(ref(0))));
}

TEST_F(Mpi, RanksAreBoundToTheirProcessors) {
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  std::vector<std::uint32_t> processors;
  for (std::uint32_t i = 0; i < CPU_SETSIZE && processors.size() < 2; ++i)
    if (CPU_ISSET(i, &set)) processors.push_back(i);
  if (processors.size() < 2) GTEST_SKIP() << "one processor only";
  const auto result = run(program(
      ref(0),
      "echo $OMPI_COMM_WORLD_RANK $FARCALL_CORES $(grep Cpus_allowed_list /proc/self/status)",
      {here(2, processors)}));
  for (int rank = 0; rank < 2; ++rank)
    EXPECT_NE(result.out.find(fmt::format("{} {} Cpus_allowed_list: {}", rank, processors[rank],
                                          processors[rank])),
              std::string::npos)
        << result.out << result.err;
}

TEST_F(Mpi, ExitCodeAndSignalAreThoseOfTheFailingRank) {
  auto result =
      run(program(ref(0), "[ $OMPI_COMM_WORLD_RANK = 0 ] || exit 7; sleep 60", {here(2)}));
  EXPECT_EQ(result.returncode, 7) << result.err;
  run(program(ref(1), "[ $OMPI_COMM_WORLD_RANK = 0 ] || kill -SEGV $$; sleep 60",
              {here(1), elsewhere(1)}));
  EXPECT_EQ(finished[ref(1)].outcome.exit_code, 139);
  EXPECT_EQ(finished[ref(1)].outcome.signal, 11) << finished[ref(1)].data.view();
}

TEST_F(Mpi, EachRankCanHaveAFileOfItsOwn) {
  const auto path = settings.scratch / "out.%t";
  run(program(ref(0), "echo I am $OMPI_COMM_WORLD_RANK", {here(2)}, {{"stdout", path.string()}}));
  EXPECT_EQ(read_file(settings.scratch / "out.0").value_or(""), "I am 0\n");
  EXPECT_EQ(read_file(settings.scratch / "out.1").value_or(""), "I am 1\n");
}

// As what the client sends with --input in.txt=… --output 'out.*'.
class MpiFiles : public Mpi {
 protected:
  MpiFiles() {
    settings.shared = settings.scratch / "shared";
    settings.results = (settings.scratch / "results").string();
    fs::create_directories(settings.results);
  }
  Start program_with_files(const std::string& script, const fs::path& input,
                           json more = json::object()) {
    Start out = program(ref(0), script, {here(1), elsewhere(2)}, std::move(more));
    const wire::BlobRef blob{std::string(64, 'a'), 3};
    EXPECT_TRUE(write_file(input, "17\n", 0600));
    out.work.blobs[blob.hash] = input.string();
    const json places = {{0, nullptr, {{"file", "in.txt"}, {"mode", 0644}}}};
    out.work.arguments =
        Bytes(wire::pack_blob_payload({blob}, places.dump(), out.work.arguments.view()));
    auto header = std::make_shared<SubmissionHeader>(*out.work.header);
    header->sandbox = true;
    header->environment["FARCALL_TASK_OUTPUTS"] = R"(["out.*"])";
    out.work.header = std::move(header);
    return out;
  }
};

TEST_F(MpiFiles, AreWhereEachRankRunsAndComeBack) {
  const Start what = program_with_files(
      "echo $OMPI_COMM_WORLD_SIZE $(cat in.txt) > out.$OMPI_COMM_WORLD_RANK; echo hello; exit 3",
      settings.scratch / "blob", {{"stdout", "out.log.%t"}});
  runner->start(what);
  ASSERT_TRUE(until_finished(ref(0)));
  const auto data = finished.at(ref(0)).data;
  ASSERT_EQ(data.view().substr(0, 1), "B") << data.view();
  const auto places = wire::blob_places(data.view());
  ASSERT_TRUE(places);
  std::vector<std::string> names;
  for (const json& place : json::parse(places->places)) names.push_back(place[1]);
  EXPECT_EQ(names, (std::vector<std::string>{"out.0", "out.1", "out.2", "out.log.0", "out.log.1",
                                             "out.log.2"}));
  const auto refs = wire::blob_refs(data.view());
  ASSERT_TRUE(refs);
  const auto task = what.work.task().string();
  const auto text =
      read_file(fmt::format("{}/{}.{}.file", settings.results, task, refs->at(0).hash));
  EXPECT_EQ(text.value_or(""), "3 17\n");
  ASSERT_EQ(spawns.size(), 1u);
  const fs::path sandbox = spawns[0].environment.at("FARCALL_SANDBOX");
  EXPECT_EQ(sandbox.parent_path(), settings.shared / "sandboxes");
  EXPECT_FALSE(fs::exists(sandbox));
  EXPECT_EQ(finished.at(ref(0)).outcome.exit_code, 3);
}

TEST_F(MpiFiles, ThatAreOnlyHereAreCopiedToWhereAllNodesSeeThem) {
  const Start what =
      program_with_files("[ ! -L in.txt ] && cp in.txt out.txt", settings.scratch / "blob");
  runner->start(what);
  ASSERT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(finished.at(ref(0)).data.view().substr(0, 1), "B") << finished.at(ref(0)).data.view();
}

TEST_F(MpiFiles, OfANodeThatDoesNotSeeThemAreAnErrorThatSaysWhatToSet) {
  make([this](wire::Spawn spawn) {
    spawn.environment["FARCALL_SANDBOX"] += ".elsewhere";
    runner->start_guest(spawn);
  });
  runner->start(program_with_files("true", settings.scratch / "blob"));
  ASSERT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kEnvironment);
  const std::string text = failure(ref(0))["message"];
  EXPECT_NE(text.find("n1 sees no directory "), std::string::npos) << text;
  EXPECT_NE(text.find("set working_dir of the endpoint to a directory that all its nodes see"),
            std::string::npos)
      << text;
}

TEST_F(MpiFiles, NeedAPlaceThatAllNodesSee) {
  settings.shared.clear();
  SetUp();
  runner->start(program_with_files("true", settings.scratch / "blob"));
  ASSERT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(failure(ref(0))["message"],
            "no sandbox for a task over 2 nodes: set working_dir of the endpoint to a directory "
            "that all its nodes see");
}

TEST_F(Mpi, AKillReachesTheRanksOnEveryNode) {
  const std::string mark = (settings.scratch / "pid").string();
  runner->start(program(ref(0), "echo $$ > " + mark + ".$OMPI_COMM_WORLD_RANK; exec sleep 1000",
                        {here(1), elsewhere(1)}));
  ASSERT_TRUE(until([&] { return pid_in(mark + ".0") > 0 && pid_in(mark + ".1") > 0; }));
  runner->kill(ref(0));
  runner->end_guest(ref(0));
  ASSERT_TRUE(until([&] { return !killed.empty(); }));
  for (const char* rank : {".0", ".1"})
    EXPECT_TRUE(until([&] { return !alive(pid_in(mark + rank)); })) << rank;
  EXPECT_FALSE(fs::exists(MpiRunner::directory_of(ref(0))));
}

TEST_F(Mpi, ANodeThatDoesNotStartIsLostAndSaysWhy) {
  make([this](wire::Spawn spawn) {
    runner->on_guest_ended({spawn.attempt, spawn.request, 255, "the pilot on n2 is not connected"});
  });
  runner->start(program(ref(0), "true", {here(1), elsewhere(1)}));
  ASSERT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kLost);
  const std::string text = failure(ref(0))["message"];
  EXPECT_NE(text.find("elsewhere: the pilot on n2 is not connected"), std::string::npos) << text;
}

TEST_F(Mpi, AScriptPlacesThePrefixItself) {
  Start what = program(ref(0), "", {here(2)});
  what.work.function = function(
      FunctionKind::kMpiProgram,
      {{"cmd", "true; $PARSL_MPI_PREFIX sh -c 'echo rank $OMPI_COMM_WORLD_RANK'; echo done"}});
  what.work.arguments = Bytes(std::string("J{}"));
  const auto result = run(what);
  EXPECT_NE(result.out.find("rank 0\n"), std::string::npos) << result.out << result.err;
  EXPECT_NE(result.out.find("done\n"), std::string::npos);
}

}  // namespace
}  // namespace farcall::pilot::test
