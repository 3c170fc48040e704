// What --ranks and its like mean for commands and functions.
#pragma once

#include "common.h"

namespace farcall::cli {

// The options are given that make an MPI task.
bool wants_ranks(const Invocation& invocation);
std::vector<Option> resource_options();
// Into resources and environment of the header; kInvalidArgument says what contradicts itself.
Result<void> take_resources(const Invocation& invocation, SubmissionHeader& header);
// What runs a command with these options: an MPI program when they ask for ranks.
LocalFunction command_function(const Invocation& invocation);
// FILE.py:NAME; with ranks an MPI function, whose first argument is a communicator.
Result<LocalFunction> read_function(const Invocation& invocation, const std::string& what);
Result<FunctionId> find_or_register(Client& client, const Invocation& invocation,
                                    const std::string& what);

}  // namespace farcall::cli
