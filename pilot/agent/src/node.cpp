#include "pilot/agent/node.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

namespace farcall::pilot {

namespace fs = std::filesystem;

namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::optional<std::int64_t> number(const std::string& text) {
  char* end = nullptr;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0') return std::nullopt;
  return value;
}

// The smallest quota on the way from our control group to the root.
std::optional<std::uint32_t> quota_cores() {
  std::ifstream file("/proc/self/cgroup");
  std::optional<std::uint32_t> least;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("0::")) continue;
    fs::path group = fs::path("/sys/fs/cgroup") / fs::path(line.substr(3)).relative_path();
    for (;; group = group.parent_path()) {
      std::ifstream limit(group / "cpu.max");
      std::string text;
      if (std::getline(limit, text))
        if (auto cores = cores_of_quota(text)) least = std::min(least.value_or(*cores), *cores);
      if (group == "/sys/fs/cgroup" || group == group.root_path()) break;
    }
  }
  return least;
}

}  // namespace

std::optional<std::uint32_t> cores_of_quota(const std::string& cpu_max) {
  std::istringstream in(cpu_max);
  std::string quota;
  double period = 0;
  if (!(in >> quota >> period) || quota == "max" || period <= 0) return std::nullopt;
  auto value = number(quota);
  if (!value || *value <= 0) return std::nullopt;
  const double cores = static_cast<double>(*value) / period;
  return std::max(1u, static_cast<std::uint32_t>(cores + 0.999));
}

std::uint32_t usable_cores() {
  std::uint32_t cores = 0;
  // More than 1024 processors need a larger mask: the call says EINVAL until it fits.
  for (std::size_t size = CPU_SETSIZE; size <= (1u << 20) && cores == 0; size *= 2) {
    cpu_set_t* set = CPU_ALLOC(size);
    if (sched_getaffinity(0, CPU_ALLOC_SIZE(size), set) == 0)
      cores = static_cast<std::uint32_t>(CPU_COUNT_S(CPU_ALLOC_SIZE(size), set));
    CPU_FREE(set);
  }
  if (cores == 0) cores = static_cast<std::uint32_t>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  if (auto quota = quota_cores()) cores = std::min(cores, *quota);
  return std::max(1u, cores);
}

std::uint64_t memory_mib() {
  return static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) *
             static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) >>
         20;
}

std::uint32_t node_rank_from_environment() {
  for (const char* name :
       {"FARCALL_NODE_RANK", "SLURM_NODEID", "PBS_NODENUM", "OMPI_COMM_WORLD_RANK", "PMI_RANK"})
    if (auto rank = number(environment(name)); rank && *rank >= 0)
      return static_cast<std::uint32_t>(*rank);
  return 0;
}

std::string job_start_from_environment() {
  const std::string start = environment("FARCALL_JOB_START");
  if (!start.empty()) return start;
  return environment("SLURM_JOB_ID") + environment("PBS_JOBID") + "-" +
         environment("SLURM_RESTART_COUNT");
}

std::optional<MonoTime> allocation_end_from_environment(const Now& now) {
  for (const char* name : {"FARCALL_JOB_ENDS_AT", "SLURM_JOB_END_TIME"})
    if (auto at = number(environment(name)); at && *at > 0)
      return now.mono + (WallTime::from_milliseconds(*at * 1000) - now.wall);
  return std::nullopt;
}

}  // namespace farcall::pilot
