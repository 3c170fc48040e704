// Blobs of a task over several nodes that the leading pilot had to fetch: they lie in its scratch
// directory, which the other nodes do not see. Pure.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "pilot/core/attempt.h"

namespace farcall::pilot {

// Their hashes; none of a task on one node.
std::vector<std::string> only_here(const Assignment& work, const std::filesystem::path& scratch);
// The arguments of the task, in which files among those are to be copied into its directory, which
// all nodes see, and not linked. What cannot be read is returned as it is.
Bytes copying_what_is_only_here(const Assignment& work, const std::filesystem::path& scratch);

}  // namespace farcall::pilot
