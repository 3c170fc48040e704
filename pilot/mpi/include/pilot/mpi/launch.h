// How an MPI program is launched on the node of its task: the words of mpirun, its environment, and
// what its own words mean.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "pilot/core/attempt.h"

namespace farcall::pilot {

// FARCALL_NUM_RANKS of the submission; 1 when it does not say.
std::uint32_t ranks_of(const SubmissionHeader& header);

// Shared memory and sockets of MPI, of an attempt alone; removed with it.
std::filesystem::path mpi_directory(const wire::AttemptRef& ref);

// The value of FARCALL_MPI_PREFIX as words, `tool` (farcall-mpi) last; without it when it is empty.
std::vector<std::string> launch_words(const SubmissionHeader& header, std::uint32_t ranks,
                                      const std::string& tool);
// Beyond what the submission and the task's name give.
std::map<std::string, std::string> launch_environment(const SubmissionHeader& header,
                                                      const std::string& tool,
                                                      const std::filesystem::path& directory);

// What mpirun wrote to its standard error of the first rank that failed.
struct LauncherVerdict {
  int rank = -1;   // of the job; -1: not said
  int signal = 0;  // that killed it
};
LauncherVerdict read_launcher(std::string_view standard_error);

}  // namespace farcall::pilot
