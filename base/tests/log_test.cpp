#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/files.h"
#include "test_support/logs.h"

namespace farcall {
namespace {

class LogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    unsetenv("FARCALL_LOG");
    char name[] = "/tmp/farcall-log-XXXXXX";
    directory = mkdtemp(name);
  }
  void TearDown() override {
    set_log_observer({});
    start_logging("test");
    std::filesystem::remove_all(directory);
  }
  std::string start_and_read(const std::string& level) {
    test::expect_error_log("bad and {}");
    const auto file = directory / "log";
    start_logging("relay", file, level);
    log_debug("fine {}", 1);
    log_info("block {}: submitted→running", 3);
    log_error("{} and {{}}", "bad");
    return *read_file(file);
  }
  std::filesystem::path directory;
};

TEST_F(LogTest, LinesHaveTimeLevelAndComponent) {
  const std::string time = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{3}Z ";
  EXPECT_THAT(start_and_read("info"),
              ::testing::MatchesRegex(time + "INFO  relay: block 3: submitted→running\n" + time +
                                      "ERROR relay: bad and \\{\\}\n"));
}

TEST_F(LogTest, TheEnvironmentHasTheLastWordOnTheLevel) {
  setenv("FARCALL_LOG", "debug", 1);
  EXPECT_THAT(start_and_read("error"), ::testing::HasSubstr("DEBUG relay: fine 1\n"));
  unsetenv("FARCALL_LOG");
}

TEST_F(LogTest, AnObserverSeesEveryLine) {
  start_logging("relay", directory / "log", "error");
  std::vector<std::pair<LogLevel, std::string>> seen;
  set_log_observer([&](LogLevel level, std::string_view text) { seen.emplace_back(level, text); });
  log_debug("a {}", 1);
  log_error("b");
  EXPECT_THAT(seen, ::testing::ElementsAre(::testing::Pair(LogLevel::kDebug, "a 1"),
                                           ::testing::Pair(LogLevel::kError, "b")));
  EXPECT_THAT(*read_file(directory / "log"), ::testing::Not(::testing::HasSubstr("DEBUG")));
}

TEST_F(LogTest, AFileThatCannotBeWrittenIsNoEnd) {
  ASSERT_TRUE(write_file(directory / "plain", ""));
  std::vector<std::string> seen;
  set_log_observer([&](LogLevel, std::string_view text) { seen.emplace_back(text); });
  start_logging("relay", directory / "plain" / "log");
  EXPECT_THAT(seen, ::testing::ElementsAre(::testing::HasSubstr("plain/log, using stderr: ")));
}

}  // namespace
}  // namespace farcall
