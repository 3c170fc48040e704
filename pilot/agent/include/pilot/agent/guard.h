// The process above a pilot that cleans up after it.
#pragma once

#include <optional>

namespace farcall::pilot {

// Forks. The caller goes on as the child, with nullopt. The parent hands it the signals that end or
// warn a pilot, waits for its end, kills whatever is left of what it had started, in whatever
// session, and returns the exit code to end with: the child's, or 128 + the signal that killed it.
// The child gets SIGTERM when the parent dies. REQUIRES: no thread has been started.
std::optional<int> fork_guarded();

}  // namespace farcall::pilot
