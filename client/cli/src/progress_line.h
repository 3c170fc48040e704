// The progress bar on stderr.
#pragma once

#include <map>

#include "cli/progress_bar.h"
#include "command.h"
#include "farcall/client.h"

namespace farcall::cli {

class ProgressLine {
 public:
  // Shown when stderr is a terminal or --progress is given.
  ProgressLine(const Invocation& invocation, std::uint64_t total, std::uint64_t done_before);
  ~ProgressLine();
  bool shown() const { return shown_; }
  // At most ten times a second, and once at the end.
  void update(std::uint64_t done, std::uint64_t failed, std::uint64_t running);
  // Draws what has come since, if it is time to: to be called now and then.
  void refresh();
  // What running tasks say of themselves.
  void take(const TaskNotes& notes);
  // This task is over: its share is counted as done from now on.
  void finished(std::uint32_t index) { shares_.erase(index); }

 private:
  void draw();
  bool terminal_ = false;
  bool shown_ = false;
  bool drawn_ = false;
  double started_s_ = 0, last_s_ = 0;
  ProgressView view_;
  std::string last_line_;
  std::map<std::uint32_t, double> shares_;  // of running tasks: done / total
};

}  // namespace farcall::cli
