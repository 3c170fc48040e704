// How an MPI program is launched on exactly the nodes and cores of its task: the words of mpirun,
// the environment by which each rank finds its share, and what mpirun's own words mean. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "wire/places.h"

namespace farcall::pilot {

// Of what a launcher says, its end is kept for the error.
inline constexpr std::size_t kSaidBytesMax = 4096;

// FARCALL_MPI_NODES: "n1|4|0-3|gpu0,gpu1;n2|2|0,1|": host, ranks, processors, GPUs of each node.
std::string nodes_text(const wire::TaskPlace& place);

struct RankShare {
  std::string node;
  std::uint32_t rank_on_node = 0;
  std::vector<std::uint32_t> processors;  // empty: not bound
  std::vector<std::string> gpus;
};
// What the rank of that number gets. Ranks fill the nodes in order; those of a node take equal
// parts of what it gives. kInvalidArgument when the text has no such rank.
Result<RankShare> rank_share(const std::string& nodes, std::uint32_t rank);

// "0-3,8": for people, taskset and FARCALL_CORES.
std::string ranges_text(const std::vector<std::uint32_t>& numbers);

struct LaunchOptions {
  std::string tool;       // path of farcall-mpi
  std::string socket;     // where a remote start is asked for
  std::string directory;  // of this attempt alone, on every node: shared memory and sockets of MPI
};
// What a task of any kind is told of its place.
std::map<std::string, std::string> place_environment(const wire::TaskPlace& place,
                                                     const SubmissionHeader& header);
// That, and what the launcher needs.
std::map<std::string, std::string> launch_environment(const wire::TaskPlace& place,
                                                      const SubmissionHeader& header,
                                                      const LaunchOptions& options);
// The value of FARCALL_MPI_PREFIX as words.
std::vector<std::string> launch_words(const wire::TaskPlace& place, const SubmissionHeader& header,
                                      const std::string& tool);
// CUDA_VISIBLE_DEVICES and its kin; nothing when there are none.
std::map<std::string, std::string> gpu_environment(const std::vector<std::string>& gpus);

// What mpirun wrote to its standard error.
struct LauncherVerdict {
  int rank = -1;            // of the job, the first that failed; -1: not said
  int signal = 0;           // that killed it
  bool node_lost = false;   // a node of the task is gone, which is no fault of the program
  bool not_shared = false;  // a node of the task has not got its directory: kNotShared
};
// What the pilot of a node says that does not see the directory of a task with files.
inline constexpr std::string_view kNotShared =
    "set working_dir of the endpoint to a directory that all its nodes see";
// `exit_code`: its own. On a busy node it may say no more than that a process ended badly.
LauncherVerdict read_launcher(std::string_view standard_error, int exit_code);

}  // namespace farcall::pilot
