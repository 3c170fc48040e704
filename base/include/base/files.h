// Small files of state and configuration: written whole, synced, renamed into place.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/error.h"

namespace farcall {

// kNotFound when it does not exist, else kIo.
Result<std::string> read_file(const std::filesystem::path& path);
// Temporary file beside it, fsync, rename, fsync of the folder. `mode` as for chmod, set before the
// first byte is written, so that a secret is never readable in between.
Result<void> write_file(const std::filesystem::path& path, std::string_view text, int mode = 0644);
// Like `mkdir -p`; the last folder gets `mode`.
Result<void> make_directory(const std::filesystem::path& path, int mode = 0755);
// A file that holds a secret: refused with kDenied unless it is ours and 0600 or stricter.
Result<std::string> read_secret_file(const std::filesystem::path& path);

// $FARCALL_HOME, else ~/.farcall (from $HOME, else the password database).
std::filesystem::path farcall_home();
// The folder of the running program (build/bin or <prefix>/bin): modules and runners are found
// relative to it.
std::filesystem::path program_directory();
std::string host_name();

// Holds flock(2) on a file for its life; the kernel lets go when the process dies.
// The holder's "host pid" stands in the file for error messages.
class FileLock {
 public:
  // kBusy names the holder when somebody else has it.
  static Result<FileLock> acquire(const std::filesystem::path& path);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

}  // namespace farcall
