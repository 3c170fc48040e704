// Files, keys and subprocesses against the real system.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/files.h"
#include "base/keys.h"
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
