// Large results and files of tasks, which lie at their endpoints.
#pragma once

#include "common.h"

namespace farcall::cli {

// farcall task list --stored
Result<int> list_stored(const Invocation& invocation);
Command release_command();  // farcall task release

}  // namespace farcall::cli
