#include "harness.h"

namespace farcall::pilot::test {
namespace {

using nlohmann::json;

class Shell : public testing::Test, public Bench {
 protected:
  Start command(const wire::AttemptRef& r, const std::string& cmd, json arguments = json::object(),
                SubmissionHeader header = {}) {
    return start(r, function(FunctionKind::kShell, {{"cmd", cmd}}), arguments, std::move(header));
  }
  Start words(const wire::AttemptRef& r, json arguments) {
    return start(r, function(FunctionKind::kShell, {{"argv", true}}), arguments);
  }
  wire::ShellResult run(const Start& what) {
    runner.start(what);
    EXPECT_TRUE(until_finished(what.work.ref));
    return shell(what.work.ref);
  }
  ShellRunner runner{poller, settings, events()};
};

TEST_F(Shell, ReturnsOutputErrorsAndExitCode) {
  auto result = run(command(ref(0), "echo out; echo err >&2; exit 3"));
  EXPECT_EQ(result.out, "out\n");
  EXPECT_EQ(result.err, "err\n");
  EXPECT_EQ(result.returncode, 3);
  EXPECT_EQ(result.exception_name, "subprocess.CalledProcessError");
  EXPECT_FALSE(result.truncated);
  EXPECT_EQ(finished[ref(0)].outcome.state, TaskState::kSucceeded);
  EXPECT_EQ(finished[ref(0)].outcome.exit_code, 3);
  EXPECT_EQ(began.size(), 1u);
  EXPECT_TRUE(fs::is_empty(settings.scratch));
}

TEST_F(Shell, QuotesValuesUnlessTheyAreRaw) {
  json arguments = {{"kwargs", {{"x", "a; echo INJECTED"}, {"n", 3}, {"flags", "1 2"}}},
                    {"raw", {"flags"}}};
  auto result =
      run(command(ref(0), "printf '%s|' {x} {n} {flags}; echo a b | awk '{print $2}'", arguments));
  EXPECT_EQ(result.out, "a; echo INJECTED|3|1|2|b\n");
}

TEST_F(Shell, RunsArgumentVectorsWithoutAShellAndFeedsTheirInput) {
  EXPECT_EQ(run(words(ref(0), {{"argv", {"echo", "a b", "$HOME"}}})).out, "a b $HOME\n");
  EXPECT_EQ(run(words(ref(1), {{"argv", {"cat"}}, {"stdin", "line\n"}})).out, "line\n");
}

// The program's parent is the pilot itself.
TEST_F(Shell, ACommandOfPlainWordsRunsWithoutAShellAndLooksTheSame) {
  const auto file = settings.scratch / "who";
  std::ofstream(file) << "#!/bin/bash\necho \"$0|$1|$PWD|$(cat /proc/$PPID/comm)\"\n";
  fs::permissions(file, fs::perms::owner_all);
  std::string comm;
  std::ifstream("/proc/self/comm") >> comm;
  const std::string folder = settings.scratch.string();
  const auto direct = run(command(ref(0), "./who a=b", {{"cwd", folder}}));
  EXPECT_EQ(direct.out, "./who|a=b|" + folder + "|" + comm + "\n") << direct.err;
  EXPECT_EQ(direct.cmd, "./who a=b");
  // What the kernel cannot run by itself a shell can.
  std::ofstream(file) << "echo \"$1\"\n";
  EXPECT_EQ(run(command(ref(1), "./who text", {{"cwd", folder}})).out, "text\n");
  // Somebody's own function or start-up file comes first.
  json arguments = {{"env", {{"BASH_FUNC_env%%", "() { echo mine; }"}}}};
  EXPECT_EQ(run(command(ref(2), "env x", arguments)).out, "mine\n");
  fs::remove(file);
}

TEST_F(Shell, SaysWhichCommandWasNotFoundAndWhere) {
  auto result = run(words(ref(0), {{"argv", {"no-such-thing", "x"}}, {"env", {{"PATH", "/bin"}}}}));
  EXPECT_EQ(result.returncode, 127);
  EXPECT_EQ(result.err, "command 'no-such-thing' was not found on n1: looked on PATH=/bin\n");
  EXPECT_EQ(finished[ref(0)].outcome.exit_code, 127);
  auto bash = run(command(ref(1), "no-such-thing"));
  EXPECT_EQ(bash.returncode, 127);
}

TEST_F(Shell, ItsOwnWalltimeGives124AndKillsTheWholeGroup) {
  const auto file = settings.scratch / "pid";
  auto result =
      run(command(ref(0), "sleep 1000 & echo $! > " + file.string() + "; echo before; wait",
                  {{"walltime_s", 0.3}}));
  EXPECT_EQ(result.returncode, 124);
  EXPECT_EQ(result.exception_name, "subprocess.TimeoutExpired");
  EXPECT_EQ(result.out, "before\n");
  EXPECT_EQ(finished[ref(0)].outcome.exit_code, 124);
  const pid_t child = pid_in(file);
  ASSERT_GT(child, 0);
  EXPECT_TRUE(until([&] { return !alive(child); }));
}

TEST_F(Shell, KillReachesWhatHasEscapedIntoItsOwnSession) {
  const auto file = settings.scratch / "pid";
  runner.start(command(ref(0), "setsid bash -c 'echo $$ > " + file.string() +
                                   "; while true; do sleep 1000; done' & sleep 1000"));
  ASSERT_TRUE(until([&] { return pid_in(file) > 0; }));
  const pid_t escaped = pid_in(file);
  EXPECT_TRUE(alive(escaped));
  runner.kill(ref(0));
  ASSERT_TRUE(until([&] { return !killed.empty(); }));
  EXPECT_TRUE(until([&] { return !alive(escaped); }));
  EXPECT_TRUE(finished.empty());
}

TEST_F(Shell, ADaemonThatATaskLeavesBehindEndsWithIt) {
  const auto file = settings.scratch / "pid";
  auto result = run(command(ref(0), "setsid bash -c 'sleep 1000 & echo $! > " + file.string() +
                                        "' </dev/null >/dev/null 2>&1; cat " + file.string()));
  EXPECT_EQ(result.returncode, 0);
  const pid_t daemon = pid_in(file);
  ASSERT_GT(daemon, 0);
  EXPECT_TRUE(until([&] { return !alive(daemon); }));
}

TEST_F(Shell, TheWarningBeforeTheEndOfAJobKillsNoTask) {
  auto result = run(command(ref(0), "kill -USR1 $$; sh -c 'kill -USR1 $$'; echo runs on"));
  EXPECT_EQ(result.returncode, 0);
  EXPECT_EQ(result.out, "runs on\n");
}

TEST_F(Shell, SignalsAreReportedAsSubprocessDoes) {
  auto result = run(command(ref(0), "kill -SEGV $$"));
  EXPECT_EQ(result.returncode, -SIGSEGV);
  EXPECT_EQ(finished[ref(0)].outcome.signal, SIGSEGV);
  EXPECT_EQ(finished[ref(0)].outcome.exit_code, 128 + SIGSEGV);
}

TEST_F(Shell, LongOutputComesBackAsItsLastLines) {
  auto result = run(command(ref(0), "seq 1 3000"));
  EXPECT_TRUE(result.truncated);
  EXPECT_EQ(result.out.substr(0, 10), "2001\n2002\n");
  EXPECT_EQ(result.out.substr(result.out.size() - 5), "3000\n");
  auto wide = run(command(ref(1), "head -c 3000000 /dev/zero"));
  EXPECT_TRUE(wide.truncated);
  EXPECT_EQ(wide.out.size(), 1u << 20);
  auto exact = run(command(ref(2), "seq 1 1000"));
  EXPECT_FALSE(exact.truncated);
}

TEST_F(Shell, SandboxesCarryTaskAttemptAndIncarnation) {
  SubmissionHeader header;
  header.sandbox = true;
  header.environment = {{"FROM_SUBMISSION", "yes"}};
  auto result = run(command(ref(4, 2),
                            "pwd; echo $FARCALL_SANDBOX $FARCALL_TASK_ATTEMPT $FROM_SUBMISSION; "
                            "echo $FARCALL_TASK_ID $GC_TASK_UUID; touch made-here",
                            json::object(), header));
  const std::string id = TaskId{ref(4).submission, 4}.string();
  const fs::path sandbox = settings.scratch / "sandboxes" / (id + ".2.99");
  EXPECT_EQ(result.out,
            sandbox.string() + "\n" + sandbox.string() + " 2 yes\n" + id + " " + id + "\n");
  EXPECT_TRUE(fs::exists(sandbox / "made-here"));
}

TEST_F(Shell, OutputFilesOfTheUsersChoiceStay) {
  Start what =
      start(ref(0), function(FunctionKind::kShell, {{"cmd", "echo new"}, {"stdout", "log"}}),
            {{"cwd", settings.scratch.string()}});
  std::ofstream(settings.scratch / "log") << "old\n";
  EXPECT_EQ(run(what).out, "new\n");
  EXPECT_EQ(*read_file(settings.scratch / "log"), "old\nnew\n");
}

TEST_F(Shell, BrokenArgumentsAreTheUsersErrors) {
  struct Case {
    json body, arguments;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{{"cmd", "echo {x:5}"}},
       {{"kwargs", {{"x", 1}}}},
       "the command has {x:…}: formats are not supported in the template of a shell function; give "
       "the argument as the text that is wanted and write {x}"},
      {{{"argv", true}},
       json::object(),
       "a shell function without \"cmd\" needs arguments with \"argv\""},
      {{{"argv", true}}, {{"argv", {"echo", 1}}}, "argv has to be a list of strings, found 1"},
      {{{"cmd", "true"}},
       {{"cwd", "/no/such/place"}},
       "the working directory '/no/such/place' does not exist on n1"}};
  std::uint32_t index = 0;
  for (const Case& c : cases) {
    const auto r = ref(index++);
    runner.start(start(r, function(FunctionKind::kShell, c.body), c.arguments));
    ASSERT_TRUE(until_finished(r));
    EXPECT_EQ(finished[r].outcome.failure, FailureClass::kUserError);
    EXPECT_EQ(failure(r)["message"], c.message);
  }
}

TEST_F(Shell, TenAtOnce) {
  for (std::uint32_t i = 0; i < 10; ++i) runner.start(command(ref(i), "echo " + std::to_string(i)));
  ASSERT_TRUE(until([&] { return finished.size() == 10; }));
  for (std::uint32_t i = 0; i < 10; ++i) EXPECT_EQ(shell(ref(i)).out, std::to_string(i) + "\n");
}

}  // namespace
}  // namespace farcall::pilot::test
