// What runs attempts. Everything happens on the thread that calls Poller::dispatch().
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "pilot/core/core.h"
#include "pilot/core/failure.h"
#include "pilot/runners/affinity.h"

namespace farcall::pilot {

struct RunnerSettings {
  std::string node;                         // for messages
  std::string python = "/usr/bin/python3";  // looked up on PATH when it has no '/'
  std::filesystem::path runner_directory;   // where python_runner.py is
  std::filesystem::path scratch;            // ours alone, exists
  std::filesystem::path sandbox_root;       // empty: scratch/sandboxes, or shared/sandboxes
  std::filesystem::path shared;  // the other nodes of the block see it; empty: there is none
  std::string results;           // directory for large ones; empty: there is none
  int results_gzip = 0;          // level, 0: not compressed
  std::int64_t incarnation = 0;
  std::uint32_t slots = 1;
  std::uint32_t recycle_after = 0;           // tasks after which a worker is replaced; 0: never
  std::uint32_t pool_ranks = 0;              // of an MPI pool on each of its nodes, at least
  std::uint32_t max_processes = 2000;        // of one task that does not ask for another number
  std::vector<std::string> preload;          // Python modules that the template imports
  std::shared_ptr<const Affinity> affinity;  // nullptr: nothing is bound
};

// What a submission's environment asks of us, see docs/payloads.md.
struct TaskWishes {
  std::string directory;            // FARCALL_TASK_DIRECTORY; empty: where the pilot runs
  std::uint32_t max_processes = 0;  // FARCALL_TASK_MAX_PROCESSES; 0: what the endpoint allows
  bool stream_output = false;       // FARCALL_TASK_STREAM is 1
};
TaskWishes wishes_of(const SubmissionHeader& header);

// What Core's on_… functions want to hear. Never called from inside start() or kill() for the same
// attempt's end without having returned first: see Runner.
struct RunnerEvents {
  std::function<void(const wire::AttemptRef&)> began;
  std::function<void(Finished)> finished;
  std::function<void(const wire::AttemptRef&)> returned;
  std::function<void(const wire::AttemptRef&)> killed;
  std::function<void(const wire::AttemptRef&, Note)> note;  // may be empty
};

class Runner {
 public:
  virtual ~Runner() = default;
  virtual void start(const Start& start) = 0;
  // Of something started and not over: it, and all that it started, gets SIGKILL. An attempt that
  // is over already is ignored.
  virtual void kill(const wire::AttemptRef& ref) = 0;
  // Likewise, but it finishes with this failure instead of being killed.
  virtual void end(const wire::AttemptRef& ref, const FailureText& why) = 0;
  // The roots of all that it has started for an attempt that runs; empty: nothing, or not yet.
  virtual std::vector<pid_t> processes_of(const wire::AttemptRef& ref) const = 0;
  // After a turn's starts: what was collected is written.
  virtual void flush() {}
};

// Working directory of an attempt that asked for a sandbox. Its name carries attempt and
// incarnation, so that two lives of a task never write into each other's files. That of a task over
// several nodes is where all of them see it; kConfig: there is no such place.
Result<std::string> sandbox_of(const RunnerSettings& settings, const Assignment& work);
Result<std::string> make_sandbox(const RunnerSettings& settings, const Assignment& work);
// Over the nodes of a block, so that nobody else would remove it. What is elsewhere stays.
void remove_shared_sandbox(const RunnerSettings& settings, const Assignment& work);
bool spans_nodes(const Assignment& work);
// Environment beyond the pilot's own: the submission's, then what names the task.
std::map<std::string, std::string> task_environment(const Assignment& work,
                                                    const std::string& sandbox);
// Where an attempt runs: its sandbox, the submission's directory, or that within the sandbox.
// Empty: where the pilot does.
std::string directory_of(const Assignment& work, const std::string& sandbox);
// "signal 9 (Killed)".
std::string signal_text(int signal);
// "was killed by signal 9 (Killed)", "exited with code 3": of a status as wait(2) gives it.
std::string status_text(int status);
// What a runner says of an attempt that failed and left no data; `status` as wait(2) gives it.
Finished failed_attempt(const wire::AttemptRef& ref, FailureText text, int status = 0);

}  // namespace farcall::pilot
