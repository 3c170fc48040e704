#include "pilot/runners/output_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>

namespace farcall::pilot {

namespace {
// A process that prints without end gets its turn, and the others theirs.
constexpr int kReadsForTail = 16;
}  // namespace

OutputLog::OutputLog(Poller& poller, const std::filesystem::path& file) : poller_(poller) {
  file_ = open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file_ >= 0)
    in_file_ = static_cast<std::size_t>(std::max<off_t>(lseek(file_, 0, SEEK_END), 0));
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return;
  reader_ = ends[0];
  writer_ = ends[1];
  fcntl(reader_, F_SETFL, O_NONBLOCK);
  poller_.add(reader_, [this](bool, bool) { read_some(); });
}

OutputLog::~OutputLog() {
  close_writer();
  end();
  if (file_ >= 0) close(file_);
}

void OutputLog::close_writer() {
  if (writer_ >= 0) close(writer_);
  writer_ = -1;
}

void OutputLog::end() {
  if (reader_ < 0) return;
  poller_.remove(reader_);
  close(reader_);
  reader_ = -1;
}

// False: nothing lies ready.
bool OutputLog::read_some() {
  if (reader_ < 0) return false;
  std::array<char, 65536> buffer;
  const ssize_t got = read(reader_, buffer.data(), buffer.size());
  if (got < 0 && errno == EINTR) return true;
  if (got < 0 && errno == EAGAIN) return false;
  if (got <= 0) {
    end();
    return false;
  }
  keep(buffer.data(), static_cast<std::size_t>(got));
  return true;
}

void OutputLog::keep(const char* data, std::size_t size) {
  tail_.append(data, size);
  if (tail_.size() > kTailBytesMax) tail_.erase(0, tail_.size() - kTailBytesMax);
  if (file_ < 0) return;
  if (in_file_ + size > kFileBytesMax && ftruncate(file_, 0) == 0) in_file_ = 0;
  if (const ssize_t put = write(file_, data, size); put > 0)
    in_file_ += static_cast<std::size_t>(put);
}

std::string OutputLog::tail() {
  for (int i = 0; i < kReadsForTail && read_some(); ++i) {
  }
  std::string text = tail_;
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

void OutputLog::forget() {
  tail();
  tail_.clear();
}

}  // namespace farcall::pilot
