#include "pilot/runners/limits.h"

#include <utility>
#include <vector>

#include "pilot/runners/process.h"

namespace farcall::pilot {

namespace {
// A program that fills memory does so at some GB/s: often enough to keep what it takes beyond its
// limit small against a node, seldom enough to cost nothing.
constexpr Duration kLookEvery = std::chrono::milliseconds(50);
// Nobody forks without end while the node has not got so many threads more.
constexpr std::uint64_t kThreadsMore = 200;
}  // namespace

Limits::Limits(Poller& poller, RunnerSettings settings)
    : poller_(poller), settings_(std::move(settings)) {}

Limits::~Limits() {
  if (timer_ != 0) poller_.cancel(timer_);
}

void Limits::began(const Assignment& work, Runner& runner) {
  watched_[work.ref] = {work, &runner, wishes_of(*work.header).max_processes};
  if (timer_ != 0) return;
  calm_threads_ = threads_of_node();
  timer_ = poller_.after(kLookEvery, [this] { look(); });
}

void Limits::look() {
  timer_ = 0;
  const std::uint64_t threads = threads_of_node();
  const bool everyone = threads > calm_threads_ + kThreadsMore;
  if (everyone || threads < calm_threads_) calm_threads_ = threads;
  // Ending one calls back and changes the map.
  std::vector<Watched> all;
  for (const auto& [ref, watched] : watched_) {
    if (everyone || watched.work.header->resources.memory_mib > 0 || watched.max_processes > 0)
      all.push_back(watched);
  }
  for (const Watched& watched : all) look_at(watched, everyone);
  if (!watched_.empty()) timer_ = poller_.after(kLookEvery, [this] { look(); });
}

void Limits::look_at(const Watched& watched, bool everyone) {
  const wire::AttemptRef& ref = watched.work.ref;
  const Resources& asked = watched.work.header->resources;
  const std::vector<pid_t> roots = watched.runner->processes_of(ref);
  if (roots.empty()) return;
  TreeUse use = use_of(roots, false);
  const std::uint32_t most =
      watched.max_processes > 0 ? watched.max_processes : settings_.max_processes;
  if ((everyone || watched.max_processes > 0) && use.processes > most) {
    FailureText why{
        "ProcessLimitExceeded",
        fmt::format("the task had {} processes on {}, more than its limit of {}, and was "
                    "killed with all of them; give it a higher limit (--max-processes, "
                    "max_processes) if it needs them",
                    use.processes, settings_.node, most),
        FailureClass::kUserError, settings_.node};
    why.limit = fmt::format("{} processes", most);
    why.used = fmt::format("{} processes", use.processes);
    return watched.runner->end(ref, why);
  }
  const std::uint64_t limit = asked.memory_mib << 20;
  if (limit == 0 || use.memory_bytes <= limit) return;
  // Forked workers share much with their template: that is nobody's in particular.
  use = use_of(roots, true);
  if (use.memory_bytes <= limit) return;
  const std::uint64_t used_mib = (use.memory_bytes + (1 << 20) - 1) >> 20;  // more than the limit
  FailureText why{
      "MemoryExceeded",
      fmt::format("the task used {} MiB of memory on {}, more than its limit of {} MiB, "
                  "and was killed; ask for more (--memory, memory_mib)",
                  used_mib, settings_.node, asked.memory_mib),
      FailureClass::kMemoryExceeded, settings_.node};
  why.limit = fmt::format("memory {} MiB", asked.memory_mib);
  why.used = fmt::format("{} MiB", used_mib);
  watched.runner->end(ref, why);
}

}  // namespace farcall::pilot
