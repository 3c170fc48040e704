#include "pilot/runners/runner.h"

#include <sys/wait.h>

#include <charconv>
#include <cstring>

#include "base/files.h"

namespace farcall::pilot {

bool spans_nodes(const Assignment& work) {
  return work.place != nullptr && work.place->shares.size() > 1;
}

Result<std::string> sandbox_of(const RunnerSettings& settings, const Assignment& work) {
  auto root = settings.sandbox_root;
  if (root.empty()) {
    root = (spans_nodes(work) ? settings.shared : settings.scratch) / "sandboxes";
    if (spans_nodes(work) && settings.shared.empty())
      return fail(ErrorCode::kConfig,
                  "no sandbox for a task over {} nodes: set working_dir of the endpoint to a "
                  "directory that all its nodes see",
                  work.place->shares.size());
  }
  return (root /
          fmt::format("{}.{}.{}", work.task().string(), work.ref.attempt, settings.incarnation))
      .string();
}

Result<std::string> make_sandbox(const RunnerSettings& settings, const Assignment& work) {
  auto path = sandbox_of(settings, work);
  if (!path) return path;
  auto made = make_directory(*path, 0700);
  if (!made)
    return fail(ErrorCode::kIo, "no sandbox for the task on {}: {}", settings.node,
                made.error().message);
  return path;
}

void remove_shared_sandbox(const RunnerSettings& settings, const Assignment& work) {
  if (!settings.sandbox_root.empty() || !spans_nodes(work) || !work.header->sandbox) return;
  std::error_code ignored;
  if (const auto path = sandbox_of(settings, work)) std::filesystem::remove_all(*path, ignored);
}

std::map<std::string, std::string> task_environment(const Assignment& work,
                                                    const std::string& sandbox) {
  std::map<std::string, std::string> out = work.header->environment;
  out["FARCALL_TASK_ID"] = out["GC_TASK_UUID"] = work.task().string();
  out["FARCALL_TASK_ATTEMPT"] = std::to_string(work.ref.attempt);
  if (!sandbox.empty()) out["FARCALL_SANDBOX"] = out["GC_TASK_SANDBOX_DIR"] = sandbox;
  return out;
}

TaskWishes wishes_of(const SubmissionHeader& header) {
  TaskWishes wishes;
  for (const auto& [name, value] : header.environment) {
    if (!name.starts_with("FARCALL_TASK_")) continue;
    if (name == "FARCALL_TASK_DIRECTORY") wishes.directory = value;
    if (name == "FARCALL_TASK_STREAM") wishes.stream_output = value == "1";
    if (name == "FARCALL_TASK_MAX_PROCESSES")
      std::from_chars(value.data(), value.data() + value.size(), wishes.max_processes);
  }
  return wishes;
}

std::string directory_of(const Assignment& work, const std::string& sandbox) {
  // An absolute directory wins over the sandbox.
  return (std::filesystem::path(sandbox) / wishes_of(*work.header).directory).string();
}

std::string status_text(int status) {
  if (WIFSIGNALED(status)) return "was killed by " + signal_text(WTERMSIG(status));
  return "exited with code " + std::to_string(WEXITSTATUS(status));
}

Finished failed_attempt(const wire::AttemptRef& ref, FailureText text, int status) {
  Finished finished;
  finished.ref = ref;
  finished.outcome.state = TaskState::kFailed;
  finished.outcome.failure = text.failure;
  if (WIFSIGNALED(status)) text.signal = finished.outcome.signal = WTERMSIG(status);
  if (WIFEXITED(status)) finished.outcome.exit_code = WEXITSTATUS(status);
  text.attempt = ref.attempt;
  finished.data = failure_data(text);
  return finished;
}

std::string signal_text(int signal) {
  const char* name = sigdescr_np(signal);
  return fmt::format("signal {} ({})", signal, name == nullptr ? "unknown" : name);
}

}  // namespace farcall::pilot
