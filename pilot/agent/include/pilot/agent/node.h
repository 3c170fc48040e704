// What this node has, and what its batch job says about itself.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace farcall::pilot {

// Cores this process may use: its affinity mask (Slurm and PBS bind with it), and no more than the
// quota of its control group allows. At least 1.
std::uint32_t usable_cores();
// What the processor quota of "max 100000" or "200000 100000" (cpu.max) comes to, rounded up.
std::optional<std::uint32_t> cores_of_quota(const std::string& cpu_max);
// Processors that this process may use, neighbours side by side, and how many of them lie in each
// memory domain. Nothing when they are fewer than `cores`: then nobody can be bound to one of its
// own.
struct Topology {
  std::vector<std::uint32_t> processors, domains;
  std::vector<std::string> gpus;  // that hwloc can see
};
Topology topology(std::uint32_t cores);
// GPUs by the device files of their drivers, below `root`: "0", "1", …
std::vector<std::string> detect_gpus(const std::filesystem::path& root = "/");
std::uint64_t memory_mib();
// FARCALL_NODE_RANK, SLURM_NODEID, PBS_NODENUM, OMPI_COMM_WORLD_RANK or PMI_RANK; else 0.
std::uint32_t node_rank_from_environment();
// FARCALL_JOB_START; else what identifies the job and its restart.
std::string job_start_from_environment();
// FARCALL_JOB_ENDS_AT or SLURM_JOB_END_TIME (seconds since 1970), as time of this process.
std::optional<MonoTime> allocation_end_from_environment(const Now& now);

}  // namespace farcall::pilot
