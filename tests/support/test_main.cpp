// main() of every GoogleTest program of farcall.
#include <gtest/gtest.h>

#include <mutex>
#include <vector>

#include "base/log.h"
#include "test_support/logs.h"

namespace farcall::test {
namespace {

struct State {
  std::mutex mutex;
  std::vector<std::string> logged;
  struct Expected {
    std::string text;
    bool came = false;
  };
  std::vector<Expected> expected;
};

State& state() {
  static State* const the_state = new State;  // threads may log while the process exits
  return *the_state;
}

class ErrorLines : public ::testing::EmptyTestEventListener {
  void OnTestStart(const ::testing::TestInfo&) override {
    {
      std::lock_guard lock(state().mutex);
      state().logged.clear();
      state().expected.clear();
    }
    set_log_observer([](LogLevel level, std::string_view text) {
      if (level < LogLevel::kError) return;
      std::lock_guard lock(state().mutex);
      state().logged.emplace_back(text);
    });
  }
  void OnTestEnd(const ::testing::TestInfo&) override {
    set_log_observer({});
    std::lock_guard lock(state().mutex);
    for (const std::string& line : state().logged) {
      bool fine = false;
      for (State::Expected& each : state().expected)
        if (line.find(each.text) != std::string::npos) fine = each.came = true;
      if (!fine) ADD_FAILURE() << "logged at ERROR: " << line;
    }
    for (const State::Expected& each : state().expected)
      if (!each.came) ADD_FAILURE() << "nothing was logged at ERROR with: " << each.text;
  }
};

}  // namespace

void expect_error_log(std::string text) {
  std::lock_guard lock(state().mutex);
  state().expected.push_back({std::move(text)});
}

}  // namespace farcall::test

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  // Listeners hear of the end of a test in reverse order: ours before the printer.
  ::testing::UnitTest::GetInstance()->listeners().Append(new farcall::test::ErrorLines);
  return RUN_ALL_TESTS();
}
