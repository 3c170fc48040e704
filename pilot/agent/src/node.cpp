#include "pilot/agent/node.h"

#include <hwloc.h>
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

Topology topology(std::uint32_t cores) {
  Topology out;
  hwloc_topology_t machine;
  if (hwloc_topology_init(&machine) != 0) return out;
  hwloc_topology_set_io_types_filter(machine, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
  if (hwloc_topology_load(machine) == 0) {
    // Only what this process may use: batch systems bind their jobs.
    hwloc_bitmap_t mine = hwloc_bitmap_alloc();
    hwloc_get_cpubind(machine, mine, HWLOC_CPUBIND_PROCESS);
    std::vector<std::uint32_t> processors, domains;
    hwloc_obj_t node = nullptr;
    while ((node = hwloc_get_next_obj_by_type(machine, HWLOC_OBJ_NUMANODE, node)) != nullptr) {
      std::uint32_t count = 0;
      hwloc_obj_t unit = nullptr;
      while ((unit = hwloc_get_next_obj_inside_cpuset_by_type(machine, node->cpuset, HWLOC_OBJ_PU,
                                                              unit)) != nullptr) {
        if (!hwloc_bitmap_isset(mine, unit->os_index) ||
            std::find(processors.begin(), processors.end(), unit->os_index) != processors.end())
          continue;
        processors.push_back(unit->os_index);
        ++count;
      }
      if (count > 0) domains.push_back(count);
    }
    hwloc_bitmap_free(mine);
    // With more workers than processors there is nothing to bind to; with a quota of fewer there
    // is.
    if (processors.size() >= cores) {
      out.processors = std::move(processors);
      out.domains = std::move(domains);
    }
    std::uint32_t cuda = 0, amd = 0, intel = 0;
    hwloc_obj_t device = nullptr;
    while ((device = hwloc_get_next_osdev(machine, device)) != nullptr) {
      const std::string name = device->name == nullptr ? "" : device->name;
      if (name.starts_with("nvml") || name.starts_with("cuda")) cuda += name.starts_with("cuda");
      if (name.starts_with("rsmi")) ++amd;
      if (name.starts_with("ze") && name.find('.') == std::string::npos) ++intel;
    }
    for (std::uint32_t i = 0; i < std::max({cuda, amd, intel}); ++i)
      out.gpus.push_back(std::to_string(i));
  }
  hwloc_topology_destroy(machine);
  return out;
}

// Device files are there where the vendors' libraries, which hwloc asks, are not.
std::vector<std::string> detect_gpus(const fs::path& root) {
  std::vector<std::string> gpus;
  std::error_code ignored;
  std::uint32_t nvidia = 0, amd = 0;
  for (const auto& entry : fs::directory_iterator(root / "dev", ignored)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("nvidia") && number(name.substr(6))) ++nvidia;
  }
  for (const auto& entry :
       fs::directory_iterator(root / "sys/class/kfd/kfd/topology/nodes", ignored)) {
    std::ifstream file(entry.path() / "gpu_id");
    std::uint64_t id = 0;
    if (file >> id && id != 0) ++amd;
  }
  for (std::uint32_t i = 0; i < std::max(nvidia, amd); ++i) gpus.push_back(std::to_string(i));
  return gpus;
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
