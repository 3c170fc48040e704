#include "pilot/runners/native_runner.h"
#include "harness.h"

namespace farcall::pilot::test {
namespace {

using nlohmann::json;

class Native : public testing::Test, public Bench {
 protected:
  Start call(const wire::AttemptRef& r, const std::string& name,
             const json& arguments = json::array(), SubmissionHeader header = {}) {
    if (body_.empty()) body_ = Bytes(*read_file(FARCALL_TEST_LIBRARY));
    return with_body(r, name, body_, arguments, std::move(header));
  }
  Start with_body(const wire::AttemptRef& r, const std::string& name, Bytes body,
                  const json& arguments = json::array(), SubmissionHeader header = {}) {
    auto function = std::make_shared<Function>(
        Function{{function_id(FunctionKind::kNative, name, body.view()), FunctionKind::kNative,
                  name, R"({"file": "libwork.so"})"},
                 body});
    return start(r, function, {{"args", arguments}}, std::move(header));
  }
  std::string run(const Start& what) {
    runner.start(what);
    if (!until_finished(what.work.ref)) return "never finished";
    return finished[what.work.ref].data.string();
  }
  json failure_of(const Start& what) {
    runner.start(what);
    if (!until_finished(what.work.ref)) return {{"message", "never finished"}};
    return failure(what.work.ref);
  }
  Bytes body_;
  NativeRunner runner{poller, settings, events()};
};

TEST_F(Native, CallsFunctionsWithTypedArguments) {
  EXPECT_EQ(run(call(ref(0), "add", {2, 40})), "J42");
  EXPECT_EQ(run(call(ref(1), "sum", {{1, 2.5}})), "J3.5");
  EXPECT_EQ(run(call(ref(2), "join", {{"a", "b"}, "-"})), R"(J"a-b")");
  EXPECT_EQ(run(call(ref(3), "count", {{{"x", 1}, {"y", 2}}, nullptr})), "J[3,null,true]");
  EXPECT_EQ(run(call(ref(4), "bend", {{{"length", 4}, {"parts", 3}, {"loads", {1, 2}}}})),
            R"(J{"length":2.0,"loads":[2.0,1.0],"parts":6})");
  EXPECT_EQ(run(call(ref(5), "nothing")), "Jnull");
  EXPECT_EQ(run(call(ref(6), "nan"))[0], 'M');
  EXPECT_EQ(finished[ref(0)].outcome.state, TaskState::kSucceeded);
  EXPECT_GT(finished[ref(0)].outcome.started_ms, 0);
}

TEST_F(Native, KeepsItsProcessForTheNextTask) {
  const std::string pid = run(call(ref(0), "pid"));
  EXPECT_EQ(run(call(ref(1), "pid")), pid);
  EXPECT_EQ(run(call(ref(2), "again")), "J1");
  EXPECT_EQ(run(call(ref(3), "again")), "J2");
  EXPECT_EQ(runner.process_count(), 1u);
}

TEST_F(Native, SaysWhichArgumentIsWrong) {
  EXPECT_EQ(failure_of(call(ref(0), "add", {1}))["message"], "it takes 2 arguments, found 1");
  const json wrong = failure_of(call(ref(1), "add", {1, "two"}));
  EXPECT_EQ(wrong["type"], "WrongArguments");
  EXPECT_EQ(wrong["class"], "user_error");
  EXPECT_NE(
      wrong["message"].get<std::string>().find("argument 2 is a text, \"two\"; expected a whole"),
      std::string::npos);
  EXPECT_NE(failure_of(call(ref(2), "bend", {{{"length", 1}}}))["message"].get<std::string>().find(
                "key 'parts' not found"),
            std::string::npos);
}

TEST_F(Native, PassesExceptionsOnWithTheirType) {
  const json thrown = failure_of(call(ref(0), "throws", {"too hot"}));
  EXPECT_NE(thrown["type"].get<std::string>().find("Unstable"), std::string::npos);
  EXPECT_EQ(thrown["message"], "too hot");
  EXPECT_EQ(thrown["module"], "c++");
  EXPECT_EQ(failure_of(call(ref(1), "throws_int"))["type"], "int");
  EXPECT_EQ(run(call(ref(2), "add", {1, 1})), "J2");
}

TEST_F(Native, ACrashCostsOneTask) {
  const json crash = failure_of(call(ref(0), "crash"));
  EXPECT_EQ(crash["class"], "crash");
  EXPECT_EQ(
      crash["message"],
      "the process of native function crash on n1 was killed by signal 11 (Segmentation fault); "
      "the last line of its output: about to crash");
  EXPECT_EQ(finished[ref(0)].outcome.signal, SIGSEGV);
  EXPECT_EQ(run(call(ref(1), "add", {1, 1})), "J2");
  EXPECT_NE(failure_of(call(ref(2), "leave", {3}))["message"].get<std::string>().find(
                "exited with code 3"),
            std::string::npos);
}

TEST_F(Native, ListsTheFunctionsThatExist) {
  const json missing = failure_of(call(ref(0), "ad"));
  EXPECT_EQ(missing["type"], "FunctionNotFound");
  const std::string text = missing["message"];
  EXPECT_EQ(text.find("libwork.so has no function ad; it has: add, again,"), 0u) << text;
  const json other = failure_of(with_body(ref(1), "f", Bytes("#!/bin/sh\nexit")));
  EXPECT_EQ(other["type"], "NotASharedObject");
  EXPECT_EQ(other["message"],
            "libwork.so is no ELF shared object: it has 14 bytes and begins with '#!/bin/sh.ex'");
}

TEST_F(Native, RefusesAnotherMachineAndAnOldHeader) {
  std::string body = *read_file(FARCALL_TEST_LIBRARY);
  body[18] = static_cast<char>(0xb7);  // e_machine: AArch64
  const json machine = failure_of(with_body(ref(0), "add", Bytes(body)));
  EXPECT_EQ(machine["class"], "environment");
  EXPECT_NE(machine["message"].get<std::string>().find("is built for AArch64, but n1 is x86-64"),
            std::string::npos);
  EXPECT_NE(failure_of(call(ref(1), "outdated"))["message"].get<std::string>().find(
                "built with version 0 of <farcall/function.h>, this runner has version 1"),
            std::string::npos);
  const json cut = failure_of(with_body(ref(2), "add", Bytes(body.substr(0, 3000))));
  EXPECT_NE(cut["message"].get<std::string>().find("a damaged ELF file"), std::string::npos);
}

TEST_F(Native, GivesTheTaskItsDirectoryAndEnvironment) {
  SubmissionHeader header;
  header.environment["X"] = "1";
  header.environment["FARCALL_TASK_DIRECTORY"] = settings.scratch.string();
  const std::string at = settings.scratch.string();
  EXPECT_EQ(run(call(ref(0), "where", json::array(), header)),
            "J" + json({at, "1", TaskId{ref(0).submission, 0}.string()}).dump());
  header.environment.clear();
  header.environment["FARCALL_TASK_DIRECTORY"] = "/no/such";
  EXPECT_NE(
      failure_of(call(ref(1), "where", json::array(), header))["message"].get<std::string>().find(
          "the working directory '/no/such' cannot be used: No such file"),
      std::string::npos);
  EXPECT_EQ(json::parse(run(call(ref(2), "where")).substr(1))[1], "");
}

TEST_F(Native, KillsAndEndsWhatATaskLeavesBehind) {
  runner.start(call(ref(0), "sleeps", {1000}));
  const pid_t pid = runner.processes_of(ref(0)).at(0);
  runner.kill(ref(0));
  EXPECT_TRUE(until([&] { return !killed.empty(); }));
  EXPECT_FALSE(alive(pid));
  const fs::path file = settings.scratch / "daemon.pid";
  EXPECT_EQ(run(call(ref(1), "daemon", {file.string()})), "Jnull");
  EXPECT_GT(pid_in(file), 0);
  EXPECT_FALSE(alive(pid_in(file)));
}

TEST_F(Native, ReportsProgress) {
  EXPECT_EQ(run(call(ref(0), "steps", {8})), "J8");
  ASSERT_FALSE(notes.empty());
  EXPECT_EQ(notes.back().second.done, 8);
  EXPECT_EQ(notes.back().second.total, 8);
  EXPECT_EQ(notes.back().second.text, "step 8");
  EXPECT_LT(notes.size(), 8u);  // merged
}

TEST_F(Native, ReplacesAProcessAfterSoManyTasks) {
  settings.recycle_after = 2;
  NativeRunner recycling(poller, settings, events());
  const auto pid_of = [&](std::uint32_t index) {
    recycling.start(call(ref(index), "pid"));
    EXPECT_TRUE(until_finished(ref(index)));
    return finished[ref(index)].data.string();
  };
  const std::string first = pid_of(0);
  EXPECT_EQ(pid_of(1), first);
  EXPECT_NE(pid_of(2), first);
  EXPECT_TRUE(until([&] { return recycling.process_count() == 1; }));
}

TEST_F(Native, IsBoundToItsProcessorsUnlessATaskHasSeveralCores) {
  const Processors usable = json::parse(run(call(ref(0), "processors")).substr(1));
  if (usable.size() < 2) GTEST_SKIP() << "one processor";
  settings.affinity = std::make_shared<Affinity>(*Affinity::make("block-reverse", 2, usable));
  NativeRunner binding(poller, settings, events());
  const auto processors = [&](std::uint32_t index, std::uint32_t cores) {
    SubmissionHeader header;
    header.resources.cores = cores;
    binding.start(call(ref(index), "processors", json::array(), header));
    EXPECT_TRUE(until_finished(ref(index)));
    return json::parse(finished[ref(index)].data.string().substr(1)).get<Processors>();
  };
  const Processors own = processors(1, 1);
  EXPECT_EQ(own.back(), usable[usable.size() / 2 * 2 - 1]);
  EXPECT_EQ(own.size(), usable.size() / 2);
  EXPECT_EQ(processors(2, 2), usable);
  EXPECT_EQ(processors(3, 1), own);
}

}  // namespace
}  // namespace farcall::pilot::test
