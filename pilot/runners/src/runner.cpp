#include "pilot/runners/runner.h"

#include <cstring>

#include "base/files.h"

namespace farcall::pilot {

Result<std::string> make_sandbox(const RunnerSettings& settings, const Assignment& work) {
  const auto root =
      settings.sandbox_root.empty() ? settings.scratch / "sandboxes" : settings.sandbox_root;
  const auto path =
      root / fmt::format("{}.{}.{}", work.task().string(), work.ref.attempt, settings.incarnation);
  auto made = make_directory(path, 0700);
  if (!made)
    return fail(ErrorCode::kIo, "no sandbox for the task on {}: {}", settings.node,
                made.error().message);
  return path.string();
}

std::map<std::string, std::string> task_environment(const Assignment& work,
                                                    const std::string& sandbox) {
  std::map<std::string, std::string> out = work.header->environment;
  out["FARCALL_TASK_ID"] = out["GC_TASK_UUID"] = work.task().string();
  out["FARCALL_TASK_ATTEMPT"] = std::to_string(work.ref.attempt);
  if (!sandbox.empty()) out["FARCALL_SANDBOX"] = out["GC_TASK_SANDBOX_DIR"] = sandbox;
  return out;
}

std::string signal_text(int signal) {
  const char* name = sigdescr_np(signal);
  return fmt::format("signal {} ({})", signal, name == nullptr ? "unknown" : name);
}

}  // namespace farcall::pilot
