// The progress bar on stderr.
#pragma once

#include "cli/progress_bar.h"
#include "command.h"

namespace farcall::cli {

class ProgressLine {
 public:
  // Shown when stderr is a terminal or --progress is given.
  ProgressLine(const Invocation& invocation, std::uint64_t total, std::uint64_t done_before);
  ~ProgressLine();
  // At most ten times a second, and once at the end.
  void update(std::uint64_t done, std::uint64_t failed, std::uint64_t running);

 private:
  void draw();
  bool terminal_ = false;
  bool shown_ = false;
  bool drawn_ = false;
  double started_s_ = 0, last_s_ = 0;
  ProgressView view_;
  std::string last_line_;
};

}  // namespace farcall::cli
