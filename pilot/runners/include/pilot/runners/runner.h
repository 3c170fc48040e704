// What runs attempts. Everything happens on the thread that calls Poller::dispatch().
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "pilot/core/core.h"

namespace farcall::pilot {

struct RunnerSettings {
  std::string node;                         // for messages
  std::string python = "/usr/bin/python3";  // looked up on PATH when it has no '/'
  std::filesystem::path runner_directory;   // where python_runner.py is
  std::filesystem::path scratch;            // ours alone, exists
  std::filesystem::path sandbox_root;       // empty: scratch/sandboxes
  std::string results;                      // directory for large ones; empty: there is none
  std::int64_t incarnation = 0;
  std::uint32_t slots = 1;
};

// What Core's on_… functions want to hear. Never called from inside start() or kill() for the same
// attempt's end without having returned first: see Runner.
struct RunnerEvents {
  std::function<void(const wire::AttemptRef&)> began;
  std::function<void(Finished)> finished;
  std::function<void(const wire::AttemptRef&)> returned;
  std::function<void(const wire::AttemptRef&)> killed;
};

class Runner {
 public:
  virtual ~Runner() = default;
  virtual void start(const Start& start) = 0;
  // Of something started and not over: it, and all that it started, gets SIGKILL. An attempt that
  // is over already is ignored.
  virtual void kill(const wire::AttemptRef& ref) = 0;
  // After a turn's starts: what was collected is written.
  virtual void flush() {}
};

// Working directory of an attempt that asked for a sandbox; made here. Its name carries attempt and
// incarnation, so that two lives of a task never write into each other's files.
Result<std::string> make_sandbox(const RunnerSettings& settings, const Assignment& work);
// Environment beyond the pilot's own: the submission's, then what names the task.
std::map<std::string, std::string> task_environment(const Assignment& work,
                                                    const std::string& sandbox);
// "signal 9 (Killed)".
std::string signal_text(int signal);

}  // namespace farcall::pilot
