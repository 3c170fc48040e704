// Runners with real processes, and somebody who listens to what becomes of the attempts.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "pilot/core/failure.h"
#include "pilot/runners/poller.h"
#include "pilot/runners/process.h"
#include "pilot/runners/python_runner.h"
#include "pilot/runners/shell_runner.h"
#include "wire/codec.h"
#include "wire/shell_result.h"

namespace farcall::pilot::test {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

// Of this process alone: what a task has on its host is called by its id.
inline wire::AttemptRef ref(std::uint32_t index, std::uint16_t attempt = 1) {
  static const SubmissionId submission = [] {
    SubmissionId id{{7}};
    const pid_t self = getpid();
    std::memcpy(id.bytes.data() + 8, &self, sizeof self);
    return id;
  }();
  return {submission, index, attempt};
}

class Bench {
 public:
  Bench() {
    become_subreaper();
    char name[] = "/tmp/farcall-runner-test-XXXXXX";
    settings.scratch = mkdtemp(name);
    settings.node = "n1";
    settings.incarnation = 99;
    settings.slots = 2;
    settings.runner_directory = FARCALL_TEST_RUNNER_DIRECTORY;
  }
  ~Bench() {
    kill_all_descendants();
    fs::remove_all(settings.scratch);
  }

  RunnerEvents events() {
    return {[this](const auto& r) { began.push_back(r); },
            [this](Finished f) { finished[f.ref] = std::move(f); },
            [this](const auto& r) { returned.push_back(r); },
            [this](const auto& r) { killed.push_back(r); },
            [this](const auto& r, Note note) { notes.emplace_back(r, std::move(note)); }};
  }
  // Turns until `done`, at most for the time that a slow machine may need.
  bool until(const std::function<bool()>& done, Duration limit = 30s) {
    const MonoTime deadline = read_clock().mono + limit;
    while (!done()) {
      if (read_clock().mono > deadline) return false;
      poller.dispatch(20ms);
    }
    return true;
  }
  bool until_finished(const wire::AttemptRef& r) {
    return until([&] { return finished.contains(r); });
  }
  nlohmann::json failure(const wire::AttemptRef& r) {
    const auto data = finished.at(r).data.view();
    EXPECT_EQ(data.substr(0, 1), "E");
    const auto size = static_cast<unsigned char>(data[1]) | static_cast<unsigned char>(data[2])
                                                                << 8;
    return nlohmann::json::parse(data.substr(5, static_cast<std::size_t>(size)));
  }
  wire::ShellResult shell(const wire::AttemptRef& r) {
    const Finished& f = finished.at(r);
    EXPECT_EQ(f.data.view().substr(0, 1), "S") << f.data.view();
    auto result = wire::decode<wire::ShellResult>(f.data.slice(1, f.data.size() - 1));
    EXPECT_TRUE(result);
    return result ? *result : wire::ShellResult{};
  }
  std::string shell_out(const wire::AttemptRef& r) { return shell(r).out; }
  // Descendants of this process that are no zombies.
  static std::size_t descendants_alive();
  static std::shared_ptr<const Function> function(FunctionKind kind, const nlohmann::json& body,
                                                  std::uint8_t id = 1) {
    return std::make_shared<Function>(
        Function{{FunctionId{{id}}, kind, "f", "{}"}, Bytes(body.dump())});
  }
  Start start(const wire::AttemptRef& r, std::shared_ptr<const Function> f,
              const nlohmann::json& arguments, SubmissionHeader header = {}, bool line_up = false) {
    header.submission = r.submission;
    return {{r, std::move(f), std::make_shared<SubmissionHeader>(std::move(header)),
             Bytes("J" + arguments.dump())},
            line_up};
  }

  Poller poller;
  RunnerSettings settings;
  std::vector<wire::AttemptRef> began, returned, killed;
  std::map<wire::AttemptRef, Finished> finished;
  std::vector<std::pair<wire::AttemptRef, Note>> notes;
};

inline bool alive(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(file, text);
  const auto end = text.rfind(')');
  return end != std::string::npos && text.compare(end + 1, 2, " Z") != 0;
}

inline std::size_t Bench::descendants_alive() {
  std::size_t count = 0;
  for (pid_t pid : descendants_of(getpid())) count += alive(pid) ? 1 : 0;
  return count;
}

inline pid_t pid_in(const fs::path& path) {
  std::ifstream file(path);
  pid_t pid = 0;
  file >> pid;
  return pid;
}

}  // namespace farcall::pilot::test
