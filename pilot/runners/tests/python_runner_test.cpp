#include "harness.h"

namespace farcall::pilot::test {
namespace {

using nlohmann::json;

constexpr const char* kSource = R"(
import os, sys, time, signal, subprocess
def double(x): return 2 * x
def boom(): return 1 / 0
def leave(code): os._exit(code)
def die(number): os.kill(os.getpid(), number)
def kill_template(): os.kill(os.getppid(), 9); time.sleep(60)
def sleep(seconds, path=None):
    if path:
        with open(path + ".tmp", "w") as file: file.write(str(os.getpid()))
        os.rename(path + ".tmp", path)
    time.sleep(seconds)
def daemon(path):
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open(path + ".tmp", "w") as file: file.write(str(child.pid))
    os.rename(path + ".tmp", path)
    time.sleep(1000)
def pid(): return os.getpid()
def where(): return [os.getcwd(), os.environ.get("X"), os.environ["FARCALL_TASK_ID"]]
def big(n): return "x" * n
)";

class Python : public testing::Test, public Bench {
 protected:
  Start call(const wire::AttemptRef& r, const std::string& entry, json arguments = json::array(),
             SubmissionHeader header = {}, bool line_up = false) {
    std::uint8_t id = 1;
    for (char c : entry) id = static_cast<std::uint8_t>(id * 31 + c);
    return start(r,
                 function(FunctionKind::kPythonSource, {{"entry", entry}, {"source", kSource}}, id),
                 {{"args", arguments}}, std::move(header), line_up);
  }
  void begin(const Start& what) {
    runner().start(what);
    runner().flush();
  }
  std::string run(const Start& what) {
    begin(what);
    if (!until_finished(what.work.ref)) return "never finished";
    return finished[what.work.ref].data.string();
  }
  PythonRunner& runner() {
    if (!runner_) runner_.emplace(poller, settings, events());
    return *runner_;
  }
  // The other end of the runner must go before the bench.
  std::optional<PythonRunner> runner_;
};

TEST_F(Python, CallsFunctionsOnWorkersThatStay) {
  EXPECT_EQ(run(call(ref(0), "double", {21})), "J42");
  const std::string pid = run(call(ref(1), "pid"));
  EXPECT_EQ(run(call(ref(2), "pid")), pid);
  EXPECT_EQ(runner().worker_count(), 1u);
  EXPECT_EQ(finished[ref(0)].outcome.state, TaskState::kSucceeded);
  EXPECT_GT(finished[ref(0)].outcome.started_ms, 0);
  EXPECT_EQ(began, (std::vector<wire::AttemptRef>{ref(0), ref(1), ref(2)}));
}

TEST_F(Python, ExceptionsAreTheUsers) {
  run(call(ref(0), "boom"));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kUserError);
  EXPECT_EQ(failure(ref(0))["type"], "ZeroDivisionError");
}

TEST_F(Python, LargeArgumentsAndResultsPass) {
  const std::string large(5'000'000, 'y');
  EXPECT_EQ(run(call(ref(0), "double", {large})).size(), 10'000'003u);
}

TEST_F(Python, ManyTasksOnTwoWorkers) {
  for (std::uint32_t i = 0; i < 500; ++i) runner().start(call(ref(i), "double", {i}, {}, i >= 2));
  runner().flush();
  ASSERT_TRUE(until([&] { return finished.size() == 500; }));
  for (std::uint32_t i = 0; i < 500; ++i)
    EXPECT_EQ(finished[ref(i)].data.view(), "J" + std::to_string(2 * i));
  EXPECT_EQ(runner().worker_count(), 2u);
}

TEST_F(Python, AWorkerThatDiesIsACrashOfItsTaskOnlyAndIsReplaced) {
  settings.slots = 1;
  begin(call(ref(0), "leave", {7}));
  begin(call(ref(1), "double", {1}, {}, true));
  ASSERT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kCrash);
  EXPECT_EQ(finished[ref(0)].outcome.exit_code, 7);
  EXPECT_EQ(failure(ref(0))["message"],
            "the Python worker exited with code 7 on n1 while it ran the task");
  ASSERT_TRUE(until([&] { return !returned.empty(); }));
  EXPECT_EQ(returned, (std::vector<wire::AttemptRef>{ref(1)}));
  EXPECT_EQ(run(call(ref(1), "double", {1})), "J2");
}

TEST_F(Python, SignalsAreNamed) {
  for (int number : {SIGSEGV, SIGKILL}) {
    const auto r = ref(static_cast<std::uint32_t>(number));
    run(call(r, "die", {number}));
    EXPECT_EQ(finished[r].outcome.failure, FailureClass::kCrash);
    EXPECT_EQ(finished[r].outcome.signal, number);
    EXPECT_NE(failure(r)["message"].get<std::string>().find("the Python worker was killed by " +
                                                            signal_text(number) + " on n1"),
              std::string::npos)
        << failure(r)["message"];
  }
}

TEST_F(Python, KillTakesTheWorkerWithAllThatItStarted) {
  const auto file = settings.scratch / "pid";
  begin(call(ref(0), "daemon", {file.string()}));
  ASSERT_TRUE(until([&] { return fs::exists(file); }));
  const pid_t daemon = pid_in(file), worker = runner().worker_of(ref(0));
  EXPECT_TRUE(alive(daemon));
  runner().kill(ref(0));
  ASSERT_TRUE(until([&] { return !killed.empty(); }));
  EXPECT_TRUE(until([&] { return !alive(daemon) && !alive(worker); }));
  EXPECT_TRUE(finished.empty());
  EXPECT_EQ(run(call(ref(1), "double", {4})), "J8");
}

TEST_F(Python, WhatIsLinedUpBehindAKilledTaskComesBack) {
  settings.slots = 1;
  const auto file = settings.scratch / "pid";
  begin(call(ref(0), "sleep", {1000, file.string()}));
  begin(call(ref(1), "double", {1}, {}, true));
  ASSERT_TRUE(until([&] { return fs::exists(file); }));
  runner().kill(ref(1));  // its turn has not come: nothing dies for it
  runner().kill(ref(0));
  ASSERT_TRUE(until([&] { return !killed.empty() && !returned.empty(); }));
  EXPECT_EQ(killed, (std::vector<wire::AttemptRef>{ref(0)}));
  EXPECT_EQ(returned, (std::vector<wire::AttemptRef>{ref(1)}));
}

TEST_F(Python, KilledBeforeItsWorkerIsThere) {
  runner().start(call(ref(0), "sleep", {1000}));
  runner().kill(ref(0));
  runner().flush();
  ASSERT_TRUE(until([&] { return !killed.empty(); }));
  EXPECT_TRUE(began.empty());
}

TEST_F(Python, ATemplateThatIsKilledIsStartedAgain) {
  EXPECT_EQ(run(call(ref(0), "double", {1})), "J2");
  run(call(ref(1), "kill_template"));
  EXPECT_EQ(finished[ref(1)].outcome.failure, FailureClass::kCrash);
  EXPECT_EQ(run(call(ref(2), "double", {5})), "J10");
}

TEST_F(Python, AnInterpreterThatIsNotThereIsAnEnvironmentFailure) {
  settings.python = "no-such-python";
  run(call(ref(0), "double", {1}));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kEnvironment);
  EXPECT_NE(failure(ref(0))["message"].get<std::string>().find(
                "the Python interpreter 'no-such-python' was not found on n1"),
            std::string::npos);
}

TEST_F(Python, AnInterpreterThatDiesSaysWhy) {
  const auto program = settings.scratch / "broken-python";
  ASSERT_TRUE(
      write_file(program, "#!/bin/sh\necho 'libmissing.so: no such file' >&2\nexit 5\n", 0755));
  settings.python = program.string();
  run(call(ref(0), "double", {1}));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kEnvironment);
  const std::string message = failure(ref(0))["message"];
  EXPECT_NE(message.find("exited with code 5 and said: libmissing.so: no such file"),
            std::string::npos)
      << message;
}

TEST_F(Python, SandboxAndEnvironmentReachTheFunction) {
  SubmissionHeader header;
  header.sandbox = true;
  header.environment = {{"X", "1"}};
  const json value = json::parse(run(call(ref(0, 3), "where", json::array(), header)).substr(1));
  const std::string id = TaskId{ref(0).submission, 0}.string();
  EXPECT_EQ(value, (json{(settings.scratch / "sandboxes" / (id + ".3.99")).string(), "1", id}));
}

TEST_F(Python, NothingIsLeftWhenTheRunnerGoes) {
  const auto file = settings.scratch / "pid";
  begin(call(ref(0), "sleep", {1000, file.string()}));
  ASSERT_TRUE(until([&] { return fs::exists(file); }));
  const pid_t worker = runner().worker_of(ref(0)), parent = runner().template_pid();
  runner_.reset();
  EXPECT_TRUE(until([&] { return !alive(worker) && !alive(parent); }));
}

}  // namespace
}  // namespace farcall::pilot::test
