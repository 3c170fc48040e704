#include "base/files.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

namespace farcall {

namespace {

std::string reason() { return std::strerror(errno); }

// Closes what it holds.
struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

Result<std::string> read_all(int fd, const std::filesystem::path& path) {
  std::string text;
  char buffer[65536];
  while (true) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n == 0) return text;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(ErrorCode::kIo, "cannot read {}: {}", path.string(), reason());
    text.append(buffer, static_cast<std::size_t>(n));
  }
}

Result<void> write_all(int fd, std::string_view text, const std::filesystem::path& path) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(ErrorCode::kIo, "cannot write {}: {}", path.string(), reason());
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

Result<std::string> read_file(const std::filesystem::path& path) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0)
    return fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "cannot open {}: {}",
                path.string(), reason());
  return read_all(file.fd, path);
}

Result<void> write_file(const std::filesystem::path& path, std::string_view text, int mode) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::string temporary = path.string() + ".XXXXXX";
  Descriptor file{::mkostemp(temporary.data(), O_CLOEXEC)};  // made 0600
  if (file.fd < 0)
    return fail(ErrorCode::kIo, "cannot create a file in {}: {}", folder.string(), reason());
  auto give_up = [&](Error error) {
    ::unlink(temporary.c_str());
    return fail(std::move(error));
  };
  if (::fchmod(file.fd, static_cast<mode_t>(mode)) != 0)
    return give_up(
        {ErrorCode::kIo, fmt::format("cannot set the mode of {}: {}", temporary, reason())});
  if (auto written = write_all(file.fd, text, path); !written) return give_up(written.error());
  if (::fsync(file.fd) != 0 || ::rename(temporary.c_str(), path.c_str()) != 0)
    return give_up({ErrorCode::kIo, fmt::format("cannot write {}: {}", path.string(), reason())});
  Descriptor directory{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (directory.fd >= 0) ::fsync(directory.fd);
  return {};
}

Result<void> make_directory(const std::filesystem::path& path, int mode) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return {};
  if (path.has_parent_path() && !std::filesystem::exists(path.parent_path(), error))
    if (auto made = make_directory(path.parent_path()); !made) return made;
  if (::mkdir(path.c_str(), static_cast<mode_t>(mode)) != 0 && errno != EEXIST)
    return fail(ErrorCode::kIo, "cannot make the directory {}: {}", path.string(), reason());
  if (!std::filesystem::is_directory(path, error))
    return fail(ErrorCode::kIo, "{} is no directory", path.string());
  return {};
}

Result<std::string> read_secret_file(const std::filesystem::path& path) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0)
    return fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "cannot open {}: {}",
                path.string(), reason());
  struct stat info {};
  if (::fstat(file.fd, &info) != 0)
    return fail(ErrorCode::kIo, "cannot stat {}: {}", path.string(), reason());
  if (info.st_uid != ::geteuid())
    return fail(ErrorCode::kDenied, "{} holds a secret key but belongs to uid {}, not to uid {}",
                path.string(), info.st_uid, ::geteuid());
  if ((info.st_mode & 077) != 0)
    return fail(ErrorCode::kDenied,
                "{} holds a secret key but has mode {:04o}; expected 0600: run `chmod 600 {}`",
                path.string(), info.st_mode & 07777, path.string());
  return read_all(file.fd, path);
}

std::filesystem::path farcall_home() {
  if (const char* home = std::getenv("FARCALL_HOME"); home != nullptr && *home != '\0')
    return std::filesystem::absolute(home);
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0')
    return std::filesystem::path(home) / ".farcall";
  const passwd* entry = ::getpwuid(::geteuid());
  return std::filesystem::path(entry != nullptr ? entry->pw_dir : "/") / ".farcall";
}

std::filesystem::path program_directory() {
  std::error_code error;
  auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::filesystem::path(".") : program.parent_path();
}

std::string host_name() {
  char name[256] = "";
  if (::gethostname(name, sizeof name - 1) != 0) return "localhost";
  return name;
}

Result<FileLock> FileLock::acquire(const std::filesystem::path& path) {
  Descriptor file{::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
  if (file.fd < 0)
    return fail(ErrorCode::kIo, "cannot open the lock file {}: {}", path.string(), reason());
  if (::flock(file.fd, LOCK_EX | LOCK_NB) != 0) {
    auto holder = read_all(file.fd, path);
    return fail(ErrorCode::kBusy, "{} is locked by another process ({})", path.string(),
                holder && !holder->empty() ? *holder : "unknown");
  }
  const std::string holder = fmt::format("{} {}", host_name(), ::getpid());
  if (::ftruncate(file.fd, 0) != 0 ||
      ::pwrite(file.fd, holder.data(), holder.size(), 0) != static_cast<ssize_t>(holder.size()))
    return fail(ErrorCode::kIo, "cannot write the lock file {}: {}", path.string(), reason());
  FileLock lock(file.fd);
  file.fd = -1;
  return lock;
}

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}
FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace farcall
