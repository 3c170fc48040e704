// What processes print on their own, past every bound that their language sets: kept in part.
#pragma once

#include <filesystem>
#include <string>

#include "pilot/runners/poller.h"

namespace farcall::pilot {

// A pipe that is read into a file, which begins anew when it has kFileBytesMax, so that it always
// holds the newest. Who prints faster than this reads has to wait. One thread, that of `poller`.
class OutputLog {
 public:
  static constexpr std::size_t kFileBytesMax = 2 << 20;
  static constexpr std::size_t kTailBytesMax = 4096;

  // Adds to what `file` holds. A file that cannot be written costs its content, nothing else.
  OutputLog(Poller& poller, const std::filesystem::path& file);
  ~OutputLog();
  OutputLog(const OutputLog&) = delete;

  // For a child's descriptors 1 and 2; -1: there is no pipe.
  int writer() const { return writer_; }
  // The child has it. From then on the log ends when the last process that holds it does.
  void close_writer();

  // What was printed since forget(), at most its end, without blanks there. Reads what lies ready.
  std::string tail();
  void forget();

 private:
  bool read_some();
  void keep(const char* data, std::size_t size);
  void end();

  Poller& poller_;
  int reader_ = -1, writer_ = -1, file_ = -1;
  std::size_t in_file_ = 0;
  std::string tail_;
};

}  // namespace farcall::pilot
