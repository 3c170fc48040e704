// --input and --output: files that go with a task and come back from it.
#pragma once

#include <filesystem>

#include "common.h"
#include "farcall/files.h"

namespace farcall::cli {

std::vector<Option> file_options();
// Brings what --input names to the relay. kNotFound, kInvalidArgument.
Result<std::vector<TaskFile>> send_inputs(const Invocation& invocation, Client& client);
// The argument set with them, and a directory of its own for a task that has files.
Bytes with_files(const Invocation& invocation, const std::vector<TaskFile>& inputs, Bytes arguments,
                 SubmissionHeader& header);
// Brings files that a task has left into `folder`; their paths.
Result<std::vector<std::string>> bring_outputs(Client& client, const TaskId& task,
                                               const std::vector<TaskFile>& files,
                                               const std::filesystem::path& folder);

}  // namespace farcall::cli
