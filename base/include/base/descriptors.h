// The limit of file descriptors of a process that listens: each connection takes one.
#pragma once

#include <string_view>

namespace farcall {

// Raises the soft limit to the hard one; once, from main(), before commands run. Warns when
// that is low for many `peers` ("clients", "pilots"). Commands that run_command() starts keep the
// limit from before: a program that calls select() breaks above 1024 descriptors, and batch systems
// carry the submitter's limits to nodes that may not allow as much.
void raise_descriptor_limit(std::string_view peers);

// Back to the limit from before, in provider modules too. For a child between fork and exec.
void restore_descriptor_limit();

}  // namespace farcall
