// Running a command to its end with a time-out. Blocking: for helper threads and command lines,
// never for an event loop.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace farcall {

struct Command {
  std::vector<std::string> argv;  // argv[0] is looked up on PATH
  std::string standard_input;
  std::string working_directory;  // empty: ours
  std::map<std::string, std::string> extra_environment;
  Duration time_limit = std::chrono::seconds(30);
  std::size_t output_limit = 16 << 20;  // bytes kept of each stream; more is read and dropped
};

struct CommandOutput {
  int exit_code = 0;       // 128 + signal when it was killed
  bool timed_out = false;  // killed (whole process group) at the limit
  std::string out;
  std::string err;
  Duration took{0};
};

// kNotFound: argv[0] is not on PATH. kIo: the system would not start it. A non-zero exit or a
// time-out is not an error here. The child is in its own process group and gets SIGKILL when this
// process dies (PR_SET_PDEATHSIG); its limit of file descriptors is the one from before
// raise_descriptor_limit(). Uses posix_spawn or fork+exec; safe with threads.
Result<CommandOutput> run_command(const Command& command);

// 'it''s' -> a single shell word.
std::string shell_quote(std::string_view word);
std::string shell_join(const std::vector<std::string>& words);

}  // namespace farcall
