#include "pilot/runners/limits.h"

#include "harness.h"
#include "pilot/runners/native_runner.h"

namespace farcall::pilot::test {
namespace {

using nlohmann::json;

// Runners whose attempts are watched, as the agent does it.
class Limited : public testing::Test, public Bench {
 protected:
  RunnerEvents watched_events() {
    RunnerEvents e = events();
    e.finished = [this](Finished f) {
      limits.over(f.ref);
      finished[f.ref] = std::move(f);
    };
    return e;
  }
  Start shell_task(const wire::AttemptRef& r, const std::string& cmd, SubmissionHeader header) {
    return start(r, function(FunctionKind::kShell, {{"cmd", cmd}}), json::object(),
                 std::move(header));
  }
  void run(Runner& runner, const Start& what) {
    runner.start(what);
    runner.flush();
    limits.began(what.work, runner);
    EXPECT_TRUE(until_finished(what.work.ref));
  }
  static SubmissionHeader limit(std::uint64_t memory_mib, std::uint32_t processes) {
    SubmissionHeader header;
    header.resources.memory_mib = memory_mib;
    if (processes > 0) header.environment["FARCALL_TASK_MAX_PROCESSES"] = std::to_string(processes);
    return header;
  }
  Limits limits{poller, settings};
};

constexpr const char* kEat = "python3 -c 'x = bytearray(400 << 20); import time; time.sleep(60)'";

TEST_F(Limited, MemoryOfACommandAndItsChildren) {
  ShellRunner shell(poller, settings, watched_events());
  run(shell, shell_task(ref(0), std::string(kEat) + " & wait", limit(100, 0)));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kMemoryExceeded);
  const json why = failure(ref(0));
  EXPECT_EQ(why["type"], "MemoryExceeded");
  EXPECT_EQ(why["limit"], "memory 100 MiB");
  EXPECT_NE(why["message"].get<std::string>().find("more than its limit of 100 MiB"),
            std::string::npos);
  EXPECT_EQ(why["used"].get<std::string>().find(" MiB") == std::string::npos, false);
  run(shell, shell_task(ref(1), "echo fine", limit(100, 0)));
  EXPECT_EQ(shell_out(ref(1)), "fine\n");
}

TEST_F(Limited, MemoryOfAPythonFunction) {
  PythonRunner python(poller, settings, watched_events());
  const json body = {
      {"entry", "f"},
      {"source",
       "import time\ndef f(n):\n  x = bytearray(n << 20)\n  time.sleep(60 if n > 1 else 0)\n"}};
  run(python,
      start(ref(0), function(FunctionKind::kPythonSource, body), {{"args", {400}}}, limit(100, 0)));
  EXPECT_EQ(finished[ref(0)].outcome.failure, FailureClass::kMemoryExceeded);
  run(python,
      start(ref(1), function(FunctionKind::kPythonSource, body), {{"args", {1}}}, limit(100, 0)));
  EXPECT_EQ(finished[ref(1)].outcome.state, TaskState::kSucceeded);
}

TEST_F(Limited, AForkBombIsEndedWithAllOfIt) {
  ShellRunner shell(poller, settings, watched_events());
  // Parents end at once: the children are orphans that only their environment tells of.
  // Should we fail, it ends by itself and does not take the machine.
  const std::string bomb =
      "b() { sleep 0.02; [ $SECONDS -lt 20 ] || exit; b & b & }; b & sleep 1000";
  run(shell, shell_task(ref(0), bomb, limit(0, 30)));
  const json why = failure(ref(0));
  EXPECT_EQ(why["type"], "ProcessLimitExceeded");
  EXPECT_EQ(why["class"], "user_error");
  EXPECT_EQ(why["limit"], "30 processes");
  EXPECT_TRUE(until([&] { return descendants_alive() == 0; }));
}

TEST_F(Limited, APythonForkBombIsEndedWithoutALimitOfItsOwn) {
  settings.max_processes = 150;
  Limits own(poller, settings);
  PythonRunner python(poller, settings, watched_events());
  const json body = {{"entry", "f"},
                     {"source",
                      "import os, time\ndef f():\n  for i in range(2000):\n    if os.fork() == 0: "
                      "time.sleep(1000)\n  time.sleep(1000)\n"}};
  const Start what = start(ref(0), function(FunctionKind::kPythonSource, body), json::object());
  python.start(what);
  python.flush();
  own.began(what.work, python);
  EXPECT_TRUE(until_finished(ref(0)));
  EXPECT_EQ(failure(ref(0))["type"], "ProcessLimitExceeded");
  // The template stays.
  EXPECT_TRUE(until([&] { return descendants_alive() == 1; }));
}

TEST_F(Limited, ADaemonThatClearsItsEnvironmentIsFound) {
  ShellRunner shell(poller, settings, watched_events());
  const fs::path file = settings.scratch / "pid";
  run(shell, shell_task(ref(0),
                        "env -i setsid /bin/bash -c 'echo $$ > " + file.string() +
                            "; exec /bin/sleep 1000' & while [ ! -s " + file.string() +
                            " ]; do sleep 0.01; done",
                        {}));
  const pid_t daemon = pid_in(file);
  ASSERT_GT(daemon, 0);
  kill_left_behind([this](pid_t pid) { return poller.is_ours(pid); },
                   [](const std::string&) { return true; }, shell.oldest_start());
  EXPECT_TRUE(until([&] { return !alive(daemon); }));
}

}  // namespace
}  // namespace farcall::pilot::test
