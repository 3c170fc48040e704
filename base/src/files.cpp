#include "base/files.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

namespace farcall {

namespace fs = std::filesystem;

namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  // Closing can report a write that failed late (a quota on a network file system).
  int close() { return ::close(std::exchange(fd_, -1)); }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

tl::unexpected<Error> io_error(const char* what, const fs::path& path, int error = errno) {
  const auto code = error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo;
  return fail(code, "cannot {} {}: {}", what, path.string(), std::strerror(error));
}

Result<std::string> read_all(int fd, const fs::path& path) {
  std::string text;
  struct stat info {};
  if (::fstat(fd, &info) == 0 && info.st_size > 0)
    text.reserve(static_cast<std::size_t>(info.st_size));
  char buffer[65536];
  for (;;) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n > 0) text.append(buffer, static_cast<std::size_t>(n));
    if (n == 0) return text;
    if (n < 0 && errno != EINTR) return io_error("read", path);
  }
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n >= 0) text.remove_prefix(static_cast<std::size_t>(n));
    if (n < 0 && errno != EINTR) return false;
  }
  return true;
}

int open_retrying(const fs::path& path, int flags, mode_t mode = 0) {
  int fd;
  do fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  while (fd < 0 && errno == EINTR);
  return fd;
}

// A writer's own failure is about a folder that is missing or full, never "no such thing".
tl::unexpected<Error> write_error(const fs::path& path, int error = errno) {
  return fail(ErrorCode::kIo, "cannot write {}: {}", path.string(), std::strerror(error));
}

// The rename itself is on disk only once its folder is.
Result<void> sync_folder(const fs::path& folder) {
  Descriptor fd(open_retrying(folder, O_RDONLY | O_DIRECTORY));
  // Some network file systems refuse to sync a folder (EINVAL); they commit renames by themselves.
  if (fd.get() < 0 || (::fsync(fd.get()) != 0 && errno != EINVAL)) return write_error(folder);
  return {};
}

}  // namespace

Result<std::string> read_file(const fs::path& path) {
  Descriptor fd(open_retrying(path, O_RDONLY));
  if (fd.get() < 0) return io_error("open", path);
  return read_all(fd.get(), path);
}

Result<void> write_file(const fs::path& path, std::string_view text, int mode) {
  const std::string pattern = path.string() + ".tmp-XXXXXX";
  std::vector<char> temporary(pattern.c_str(), pattern.c_str() + pattern.size() + 1);
  Descriptor fd(::mkostemp(temporary.data(), O_CLOEXEC));  // 0600
  if (fd.get() < 0) return write_error(path);
  if (::fchmod(fd.get(), static_cast<mode_t>(mode)) != 0 || !write_all(fd.get(), text) ||
      ::fsync(fd.get()) != 0 || fd.close() != 0 || ::rename(temporary.data(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.data());
    return write_error(path, error);
  }
  return sync_folder(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

Result<void> make_directory(const fs::path& path, int mode) {
  // "a/b/" has an empty last component, which is not a folder of its own.
  const fs::path folder = path.has_filename() ? path : path.parent_path();
  if (folder.empty()) return {};
  if (folder.has_parent_path() && folder.parent_path() != folder) {
    std::error_code error;
    fs::create_directories(folder.parent_path(), error);
    if (error)
      return fail(ErrorCode::kIo, "cannot make the folder {}: {}", folder.parent_path().string(),
                  error.message());
  }
  if (::mkdir(folder.c_str(), static_cast<mode_t>(mode)) == 0) {
    if (::chmod(folder.c_str(), static_cast<mode_t>(mode)) == 0) return {};  // past the umask
    return fail(ErrorCode::kIo, "cannot set the mode of {}: {}", folder.string(),
                std::strerror(errno));
  }
  const int error = errno;
  struct stat info {};
  if (error != EEXIST || ::stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode))
    return fail(ErrorCode::kIo, "cannot make the folder {}: {}", folder.string(),
                std::strerror(error == EEXIST ? ENOTDIR : error));
  // A folder that was there keeps its mode, except that a private one is made private.
  if ((mode & 077) == 0 && (info.st_mode & 077) != 0 &&
      ::chmod(folder.c_str(), static_cast<mode_t>(mode)) != 0)
    return fail(ErrorCode::kIo, "{} is open to others and its mode cannot be changed: {}",
                folder.string(), std::strerror(errno));
  return {};
}

Result<std::string> read_secret_file(const fs::path& path) {
  Descriptor fd(open_retrying(path, O_RDONLY));
  if (fd.get() < 0) return io_error("open", path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return io_error("read", path);
  if (info.st_uid != ::geteuid())
    return fail(ErrorCode::kDenied, "{} holds a secret key but belongs to uid {}, not to uid {}",
                path.string(), info.st_uid, ::geteuid());
  if ((info.st_mode & 077) != 0)
    return fail(ErrorCode::kDenied,
                "{} holds a secret key but has mode {:04o}; expected 0600: run `chmod 600 {}`",
                path.string(), info.st_mode & 07777, path.string());
  return read_all(fd.get(), path);
}

fs::path farcall_home() {
  if (const char* home = std::getenv("FARCALL_HOME"); home && *home) return fs::absolute(home);
  if (const char* home = std::getenv("HOME"); home && *home) return fs::path(home) / ".farcall";
  struct passwd entry {};
  struct passwd* found = nullptr;
  std::vector<char> buffer(65536);
  if (::getpwuid_r(::geteuid(), &entry, buffer.data(), buffer.size(), &found) == 0 && found)
    return fs::path(found->pw_dir) / ".farcall";
  return fs::absolute(".farcall");
}

fs::path program_directory() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::current_path() : program.parent_path();
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "localhost";
}

Result<FileLock> FileLock::acquire(const fs::path& path) {
  Descriptor fd(open_retrying(path, O_RDWR | O_CREAT, 0600));
  if (fd.get() < 0)
    return fail(ErrorCode::kIo, "cannot open the lock file {}: {}", path.string(),
                std::strerror(errno));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK)
      return fail(ErrorCode::kIo, "cannot lock {}: {}", path.string(), std::strerror(errno));
    auto holder = read_all(fd.get(), path);
    while (holder && !holder->empty() && holder->back() == '\n') holder->pop_back();
    return fail(ErrorCode::kBusy, "{} is held by another process ({})", path.string(),
                holder && !holder->empty() ? *holder : "it has not said which");
  }
  const std::string text = fmt::format("{} {}\n", host_name(), ::getpid());
  if (::ftruncate(fd.get(), 0) != 0 || !write_all(fd.get(), text)) return write_error(path);
  return FileLock(fd.release());
}

namespace {
// Emptied, so that nobody on another host takes us for alive: a lock does not always reach there.
void let_go(int fd) {
  if (fd < 0) return;
  (void)!::ftruncate(fd, 0);
  ::close(fd);
}
}  // namespace

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  if (this != &other) {
    let_go(std::exchange(fd_, -1));
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

FileLock::~FileLock() { let_go(fd_); }

}  // namespace farcall
