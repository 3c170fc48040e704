// Files, keys and subprocesses against the real system.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "base/files.h"
#include "base/keys.h"
#include "base/log.h"
#include "base/subprocess.h"

namespace farcall {
namespace {

class SystemTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/farcall-base-XXXXXX";
    directory = mkdtemp(name);
  }
  void TearDown() override { std::filesystem::remove_all(directory); }
  std::filesystem::path directory;
};

TEST_F(SystemTest, SecretsAreOursAloneOrRefused) {
  const auto path = directory / "key";
  ASSERT_TRUE(write_file(path, "secret", 0600));
  EXPECT_EQ(*read_secret_file(path), "secret");
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  auto refused = read_secret_file(path);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kDenied);
  EXPECT_NE(refused.error().message.find("has mode 0640; expected 0600: run `chmod 600 "),
            std::string::npos);
  EXPECT_EQ(read_file(directory / "none").error().code, ErrorCode::kNotFound);
}

TEST_F(SystemTest, ALockHasOneHolder) {
  auto first = FileLock::acquire(directory / "lock");
  ASSERT_TRUE(first);
  auto second = FileLock::acquire(directory / "lock");
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find(std::to_string(getpid())), std::string::npos);
  { FileLock gone = std::move(*first); }
  EXPECT_EQ(read_file(directory / "lock"), "");  // nobody has it, as everybody can read
  EXPECT_TRUE(FileLock::acquire(directory / "lock"));
}

TEST_F(SystemTest, CommandsGiveOutputAndExitCode) {
  auto done = run_command({.argv = {"sh", "-c", "cat; echo err >&2; exit 3"},
                           .standard_input = std::string(200'000, 'x')});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(done->out.size(), 200'000u);
  EXPECT_EQ(done->err, "err\n");
  EXPECT_EQ(done->exit_code, 3);
  EXPECT_FALSE(done->timed_out);
  auto none = run_command({.argv = {"no-such-command-here"}});
  EXPECT_EQ(none.error().code, ErrorCode::kNotFound);
}

// In a process of its own: a hard limit does not come back.
[[noreturn]] void raise_from(rlim_t soft, rlim_t hard) {
  start_logging("interchange");
  const rlimit low{soft, hard};
  if (setrlimit(RLIMIT_NOFILE, &low) != 0) _exit(1);
  raise_descriptor_limit("pilots");
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const auto child = run_command({.argv = {"sh", "-c", "echo $(ulimit -Sn) $(ulimit -Hn)"}});
  fmt::print(stderr, "ours {} of {}, a command's {}", limit.rlim_cur, limit.rlim_max, child->out);
  _exit(0);
}

TEST_F(SystemTest, TheDescriptorLimitIsRaisedForUsAndNotForCommands) {
  rlimit now{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &now), 0);
  ASSERT_GE(now.rlim_max, 4096u) << "too low a hard limit for this test";
  EXPECT_EXIT(raise_from(256, 4096), testing::ExitedWithCode(0),
              "^ours 4096 of 4096, a command's 256 4096\n$");
  EXPECT_EXIT(
      raise_from(256, 1024), testing::ExitedWithCode(0),
      "WARN  interchange: only 1024 file descriptors are allowed \\(ulimit -Hn\\): with many "
      "pilots raise it\nours 1024 of 1024, a command's 256 1024\n$");
}

TEST_F(SystemTest, ATimeLimitEndsTheWholeGroup) {
  const auto mark = directory / "pid";
  auto done =
      run_command({.argv = {"sh", "-c", "sleep 1000 & echo $! > " + mark.string() + "; wait"},
                   .time_limit = std::chrono::milliseconds(300)});
  ASSERT_TRUE(done);
  EXPECT_TRUE(done->timed_out);
  EXPECT_EQ(done->exit_code, 128 + 9);
  const int child = std::stoi(*read_file(mark));
  // The grandchild is reaped by init some time after it died: gone or a zombie, never running.
  for (int i = 0; i < 1000 && kill(child, 0) == 0; ++i) {
    auto state = read_file("/proc/" + std::to_string(child) + "/stat");
    if (!state || state->find(") Z") != std::string::npos) break;
    usleep(1000);
  }
  auto state = read_file("/proc/" + std::to_string(child) + "/stat");
  EXPECT_TRUE(!state || state->find(") Z") != std::string::npos) << *state;
}

TEST_F(SystemTest, ACommandThatDoesNotReadItsInputIsNoHarm) {
  auto done = run_command({.argv = {"true"}, .standard_input = std::string(4 << 20, 'x')});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(done->exit_code, 0);
}

TEST_F(SystemTest, ACommandEndsWhenItExitsThoughADaemonHoldsItsOutput) {
  auto done = run_command(
      {.argv = {"sh", "-c", "setsid sleep 1000 & echo $!"}, .time_limit = std::chrono::minutes(5)});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_FALSE(done->timed_out);
  const int daemon = std::stoi(done->out);
  EXPECT_EQ(kill(daemon, SIGKILL), 0) << "it was killed with the command";
}

TEST_F(SystemTest, CommandsGetTheirFolderEnvironmentAndLimits) {
  auto done = run_command({.argv = {"sh", "-c", "pwd; echo $FARCALL_X; echo 123456789 >&2"},
                           .working_directory = directory,
                           .extra_environment = {{"FARCALL_X", "a b"}},
                           .time_limit = Duration::max(),
                           .output_limit = 60});
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(done->out, directory.string() + "\na b\n");
  auto cut = run_command({.argv = {"seq", "100000"}, .output_limit = 5});
  EXPECT_EQ(cut->out, "1\n2\n3");
  EXPECT_EQ(cut->exit_code, 0);
  EXPECT_EQ(run_command({.argv = {"sh", "-c", "kill -TERM $$"}})->exit_code, 128 + 15);
  auto nowhere = run_command({.argv = {"true"}, .working_directory = directory / "none"});
  ASSERT_FALSE(nowhere);
  EXPECT_EQ(nowhere.error().code, ErrorCode::kIo);
  EXPECT_NE(nowhere.error().message.find("none: No such file"), std::string::npos)
      << nowhere.error().message;
}

// A daemon ignores SIGPIPE; `yes | head` in its commands must end all the same.
TEST_F(SystemTest, CommandsDoNotInheritAnIgnoredSigpipe) {
  auto* before = signal(SIGPIPE, SIG_IGN);
  auto done = run_command({.argv = {"sh", "-c", "kill -PIPE $$; echo survived"}});
  signal(SIGPIPE, before);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->exit_code, 128 + SIGPIPE) << done->out;
}

TEST_F(SystemTest, FoldersGetTheModeThatWasAskedFor) {
  auto mode_of = [](const std::filesystem::path& path) {
    struct stat info {};
    return stat(path.c_str(), &info) == 0 ? info.st_mode & 07777 : 0;
  };
  ASSERT_TRUE(make_directory(directory / "a" / "b" / "", 0700));
  EXPECT_EQ(mode_of(directory / "a" / "b"), 0700u);
  ASSERT_TRUE(make_directory(directory / "a" / "shared", 01777));
  EXPECT_EQ(mode_of(directory / "a" / "shared"), 01777u);
  ASSERT_TRUE(make_directory(directory / "a" / "shared"));  // not ours to change
  EXPECT_EQ(mode_of(directory / "a" / "shared"), 01777u);
  ASSERT_EQ(chmod((directory / "a" / "b").c_str(), 0755), 0);
  ASSERT_TRUE(make_directory(directory / "a" / "b", 0700));
  EXPECT_EQ(mode_of(directory / "a" / "b"), 0700u) << "a private folder that was open";
  ASSERT_TRUE(write_file(directory / "file", "", 0640));
  EXPECT_EQ(mode_of(directory / "file"), 0640u);
  auto refused = make_directory(directory / "file");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("Not a directory"), std::string::npos)
      << refused.error().message;
}

TEST_F(SystemTest, AFileIsReplacedWholeAndLeavesNothingBeside) {
  ASSERT_TRUE(write_file(directory / "state", "first"));
  ASSERT_TRUE(write_file(directory / "state", std::string("sec\0nd", 6)));
  EXPECT_EQ(*read_file(directory / "state"), std::string("sec\0nd", 6));
  EXPECT_FALSE(write_file(directory / "none" / "state", "x"));
  ASSERT_TRUE(make_directory(directory / "taken"));
  EXPECT_FALSE(write_file(directory / "taken", "x"));  // rename onto a folder
  int entries = 0;
  for ([[maybe_unused]] auto& entry : std::filesystem::directory_iterator(directory)) ++entries;
  EXPECT_EQ(entries, 2);
}

TEST(Keys, BelongTogether) {
  const KeyPair pair = make_key_pair();
  EXPECT_EQ(*public_key_of(pair.secret_key), pair.public_key);
  EXPECT_TRUE(is_key(pair.public_key));
  EXPECT_FALSE(is_key("short"));
  EXPECT_FALSE(public_key_of("short"));
  // From ZeroMQ's CURVE documentation (zmq_curve(7)).
  EXPECT_EQ(*public_key_of("D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"),
            "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID");
  EXPECT_EQ(content_hash(""), "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
  EXPECT_NE(random_token(16), random_token(16));
}

TEST(Shell, QuotesWhatNeedsIt) {
  EXPECT_EQ(shell_join({"echo", "a b", "it's", "", "--x=1"}), "echo 'a b' 'it'\\''s' '' --x=1");
}

TEST(Ids, PrintParseAndOrder) {
  Rng rng(1);
  auto early = make_id<SubmissionId>(WallTime::from_milliseconds(1000), rng);
  auto late = make_id<SubmissionId>(WallTime::from_milliseconds(2000), rng);
  EXPECT_LT(early, late);
  TaskId task{late, 77};
  auto back = TaskId::parse(task.string());
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, task);
  EXPECT_EQ(SubmissionId::parse(late.string())->string(), late.string());
  EXPECT_EQ(TaskId::parse("xyz").error().message,
            "'xyz' is not a task id: expected 32 hexadecimal digits as "
            "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
}

}  // namespace
}  // namespace farcall
