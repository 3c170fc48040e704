// Programs that go on after the command that started them, found again by their pid files.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace farcall::cli {

struct Daemon {
  pid_t pid = 0;
  std::string host;  // where it runs; empty: here
};

// The living process of `program` ("farcall-relay") that a pid file ("HOST PID" or "PID") names; a
// stale file, or a pid that belongs to something else by now, gives nothing. A process on another
// host is taken to live.
std::optional<Daemon> find_daemon(const std::filesystem::path& pid_file,
                                  const std::string& program);

struct DaemonStart {
  std::vector<std::string> argv;  // argv[0]: a program in our own folder
  std::filesystem::path output;   // gets its stdout and stderr
  Duration time_limit = std::chrono::seconds(60);
};
// Starts it in a session of its own with `--ready-fd N`, waits for the line it writes there and
// returns that. kIo: it ended before; the text is what it wrote to stderr, the code its exit
// code's when that says one. kTimeout: it lives, but is not ready yet.
Result<std::string> start_daemon(const DaemonStart& start);
// Replaces this process by it, for --foreground. Returns only when that fails.
Error become_daemon(const std::vector<std::string>& argv);
// SIGTERM, then waits until it is gone. kTimeout when it is not.
Result<void> stop_daemon(pid_t pid, Duration time_limit);

}  // namespace farcall::cli
