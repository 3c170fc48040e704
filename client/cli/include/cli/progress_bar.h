// One line that says how far a sweep is. Pure: the caller gives width and time and prints it.
#pragma once

#include <cstdint>
#include <string>

namespace farcall::cli {

struct ProgressView {
  std::uint64_t total = 0;
  std::uint64_t done = 0;    // finished, failed ones included
  std::uint64_t failed = 0;  // and cancelled
  std::uint64_t running = 0;
  std::uint64_t done_before = 0;  // finished before this program started counting
  double elapsed_s = 0;           // since it did
  double partial = 0;             // of the running tasks, as far as they say; tasks' worth
  std::string note;               // the last that one of them said
};

// "[#####-----] 32/64  50%  12.3/s  ETA 0:03  4 running  1 failed  task 7: step 3", at most `width`
// columns; what matters least is left out first.
std::string render_progress(const ProgressView& view, int width);

}  // namespace farcall::cli
