// What a shell task gives back: the value behind the mark 'S' of docs/payloads.md, packed by
// wire/codec.h as an array in this order.
#pragma once

#include <cstdint>
#include <string>

namespace farcall::wire {

inline constexpr char kShellResultMark = 'S';

struct ShellResult {
  std::string cmd;  // as it was run, template filled in
  std::string out;  // last lines of standard output; any bytes
  std::string err;  // last lines of standard error; any bytes
  std::int32_t returncode =
      0;  // as Python's subprocess has it: -9 when killed by signal 9; 124 walltime
  std::string exception_name;   // "", "subprocess.CalledProcessError", "subprocess.TimeoutExpired"
  bool truncated = false;       // there was more output than came back
  std::uint64_t out_bytes = 0;  // of the whole standard output, what did not come back included
  std::uint64_t err_bytes = 0;
  bool operator==(const ShellResult&) const = default;
};

}  // namespace farcall::wire
