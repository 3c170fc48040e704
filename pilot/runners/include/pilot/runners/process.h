// Starting processes and finding them again, with all that they started.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"

namespace farcall::pilot {

struct Spawn {
  std::vector<std::string> argv;                   // argv[0]: a path, unless there is a `program`
  std::string program;                             // the file to run, where argv[0] is another name
  std::map<std::string, std::string> environment;  // all of it: see process_environment()
  std::string directory;                           // empty: ours
  int in = -1, out = -1, err = -1;                 // -1: /dev/null
  int inherited = -1;                              // one more, under the same number
  std::vector<std::uint32_t> processors;           // that it is bound to; none: as we are
};

std::map<std::string, std::string> process_environment();
// Leader of its own process group, no signal blocked, killed when this thread dies. vfork: it costs
// the same however large the pilot is. kIo with what the system said; errno_out has its number.
Result<pid_t> spawn(const Spawn& what, int* errno_out = nullptr);

// The file that `program` means on `path` (as in PATH), empty when there is none that is
// executable.
std::string find_program(const std::string& program, const std::string& path,
                         const std::string& directory = "");

// Adopts whatever a descendant leaves behind, so that it can be found.
void become_subreaper();
std::vector<pid_t> children_of(pid_t pid);
std::vector<pid_t> descendants_of(pid_t pid);
// SIGKILL to it, to every descendant and to the process groups that these are in, but for our own.
// All are stopped first, until no new one shows up: what forks without end is caught as well.
void kill_tree(pid_t pid);
// The same for several trees at once; `roots` is asked again in each round.
void kill_trees(const std::function<std::vector<pid_t>()>& roots);
// What trees of processes use now. Memory that several of them share counts once (as its
// proportional share) when `exact`; otherwise for each, which is cheaper and never too little.
struct TreeUse {
  std::uint32_t processes = 0;
  std::uint64_t memory_bytes = 0;
};
TreeUse use_of(const std::vector<pid_t>& roots, bool exact);
// Children of this process, adopted ones among them, that were started by this task.
std::vector<pid_t> adopted_of(const std::string& task, const std::function<bool(pid_t)>& ours);
// Threads of the whole node, cheap to ask for: when it has not risen, nobody forks without end.
std::uint64_t threads_of_node();
// When a process was started, in clock ticks since the node was; 0: it is gone.
std::uint64_t start_of_process(pid_t pid);
// Kills adopted children (not in `ours`) that were started by a task for which `is_over` holds, and
// those that do not say by which (they have cleared their environment) if they are older than every
// task that still runs: `oldest_start` as start_of_process() has it. How many trees.
int kill_left_behind(const std::function<bool(pid_t)>& ours,
                     const std::function<bool(const std::string& task)>& is_over,
                     std::uint64_t oldest_start = 0);
// At the end of the pilot: every descendant, until there is none.
void kill_all_descendants();

}  // namespace farcall::pilot
