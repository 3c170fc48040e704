#include "pilot/runners/output_log.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/files.h"
#include "harness.h"

namespace farcall::pilot::test {
namespace {

class Printing : public ::testing::Test {
 protected:
  Printing() {
    char name[] = "/tmp/farcall-log-test-XXXXXX";
    directory = mkdtemp(name);
  }
  ~Printing() override { fs::remove_all(directory); }

  pid_t run(OutputLog& log, const std::string& command) {
    Spawn what;
    what.argv = {"/bin/sh", "-c", command};
    what.environment = process_environment();
    what.out = what.err = log.writer();
    auto pid = spawn(what);
    EXPECT_TRUE(pid) << pid.error().message;
    log.close_writer();
    return *pid;
  }
  void run_to_end(OutputLog& log, const std::string& command) {
    bool ended = false;
    poller.on_exit(run(log, command), [&](int) { ended = true; });
    while (!ended) poller.dispatch(1s);
  }

  fs::path directory;
  fs::path file() const { return directory / "log"; }
  Poller poller;
};

TEST_F(Printing, IsAddedToTheFileAndItsEndIsKnown) {
  std::ofstream(file()) << "before\n";
  OutputLog log(poller, file());
  run_to_end(log, "echo one; echo two >&2; echo");
  EXPECT_EQ(log.tail(), "one\ntwo");
  EXPECT_EQ(*read_file(file()), "before\none\ntwo\n\n");
  log.forget();
  EXPECT_EQ(log.tail(), "");
}

TEST_F(Printing, OfMuchTheFileHasTheNewest) {
  OutputLog log(poller, file());
  run_to_end(log, "yes | head -c 50000000; echo; echo last");
  const std::string tail = log.tail();
  EXPECT_EQ(tail.size(), OutputLog::kTailBytesMax - 1);
  EXPECT_TRUE(tail.ends_with("y\n\nlast")) << tail.substr(tail.size() - 10);
  EXPECT_LE(fs::file_size(file()), OutputLog::kFileBytesMax);
  EXPECT_TRUE(read_file(file())->ends_with("y\n\nlast\n"));
}

TEST_F(Printing, WithoutEndLeavesTheOthersTheirTurn) {
  OutputLog log(poller, file());
  const pid_t pid = run(log, "exec yes");
  bool ended = false, rang = false;
  poller.on_exit(pid, [&](int) { ended = true; });
  poller.after(200ms, [&] { rang = true; });
  while (!rang) poller.dispatch(1s);
  EXPECT_TRUE(log.tail().ends_with("y")) << "tail() comes back";
  kill(pid, SIGKILL);
  while (!ended) poller.dispatch(1s);
  EXPECT_LE(fs::file_size(file()), OutputLog::kFileBytesMax);
}

TEST_F(Printing, IntoAFileThatCannotBeWrittenIsStillKnown) {
  OutputLog log(poller, directory / "none" / "log");
  run_to_end(log, "echo text");
  EXPECT_EQ(log.tail(), "text");
}

}  // namespace
}  // namespace farcall::pilot::test
