#include "blobs/store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/files.h"

namespace farcall::blobs {

namespace {

constexpr std::size_t kReadBytes = 1 << 20;

// What the system said about a file, as an error.
template <class T = void>
Result<T> refused(const std::string& what, const std::filesystem::path& file) {
  const int number = errno;
  return fail(number == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{} {}: {}", what,
              file.string(), std::strerror(number));
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  operator int() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// The whole file into `hash`; how many bytes those were.
Result<std::uint64_t> hash_file(int fd, const std::filesystem::path& file, ContentHasher& hash) {
  std::string buffer(kReadBytes, '\0');
  std::uint64_t size = 0;
  for (;;) {
    const ssize_t got = ::pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(size));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return refused<std::uint64_t>("cannot read", file);
    if (got == 0) return size;
    hash.add({buffer.data(), static_cast<std::size_t>(got)});
    size += static_cast<std::uint64_t>(got);
  }
}

Result<void> check(const std::filesystem::path& file, const wire::BlobRef& blob, std::uint64_t size,
                   ContentHasher& hash) {
  if (size != blob.size)
    return fail(ErrorCode::kCorrupt, "{} has {} bytes, blob {} has {}", file.string(), size,
                blob.hash, blob.size);
  const std::string found = hash.finish();
  if (found != blob.hash)
    return fail(ErrorCode::kCorrupt, "{} is damaged: its content has the hash {}, expected {}",
                file.string(), found, blob.hash);
  return {};
}

Result<void> sync_folder(const std::filesystem::path& folder) {
  const Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd < 0 || ::fsync(fd) != 0) return refused("cannot sync", folder);
  return {};
}

}  // namespace

Result<void> verify_file(const std::filesystem::path& file, const wire::BlobRef& blob) {
  const Descriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd < 0) return refused("cannot open", file);
  ContentHasher hash;
  auto size = hash_file(fd, file, hash);
  if (!size) return fail(size.error());
  return check(file, blob, *size, hash);
}

Store::~Store() {
  for (auto& [name, part] : parts_)
    if (part.fd >= 0) ::close(part.fd);
}

Result<std::vector<Store::Entry>> Store::open() {
  if (auto made = make_directory(root_, 0700); !made) return fail(made.error());
  std::vector<std::pair<std::filesystem::file_time_type, Entry>> found;
  std::error_code error;
  for (auto each = std::filesystem::recursive_directory_iterator(root_, error);
       !error && each != std::filesystem::recursive_directory_iterator(); each.increment(error)) {
    if (!each->is_regular_file(error) || !wire::is_blob_hash(each->path().filename().string()))
      continue;
    found.push_back({each->last_write_time(error),
                     {each->path().lexically_relative(root_).string(), each->file_size(error)}});
  }
  if (error) return fail(ErrorCode::kIo, "cannot list {}: {}", root_.string(), error.message());
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Entry> entries;
  for (auto& [time, entry] : found) entries.push_back(std::move(entry));
  return entries;
}

void Store::close_part(const std::string& name) {
  auto found = parts_.find(name);
  if (found == parts_.end()) return;
  if (found->second.fd >= 0) ::close(found->second.fd);
  parts_.erase(found);
}

Result<std::uint64_t> Store::begin(const std::string& name, const wire::BlobRef& blob) {
  close_part(name);
  const auto file = part_file(name);
  if (auto made = make_directory(file.parent_path(), 0700); !made) return fail(made.error());
  Descriptor fd(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (fd < 0) return refused<std::uint64_t>("cannot make", file);
  Part part;
  auto size = hash_file(fd, file, part.hash);
  if (!size) return fail(size.error());
  if (*size > blob.size) {
    if (::ftruncate(fd, 0) != 0) return refused<std::uint64_t>("cannot shorten", file);
    part.hash = ContentHasher();
    *size = 0;
  }
  part.size = *size;
  part.fd = fd.release();
  parts_.emplace(name, std::move(part));
  return *size;
}

Result<void> Store::append(const std::string& name, std::uint64_t offset, std::string_view bytes) {
  const auto file = part_file(name);
  auto found = parts_.find(name);
  if (found == parts_.end() || found->second.size != offset)
    return fail(ErrorCode::kInternal, "{}: bytes from offset {} on do not continue it",
                file.string(), offset);
  Part& part = found->second;
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = ::pwrite(part.fd, bytes.data() + done, bytes.size() - done,
                                 static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      auto error = refused("cannot write", file);
      // What has not been hashed must not be taken for a part of it.
      if (::ftruncate(part.fd, static_cast<off_t>(offset)) != 0) ::unlink(file.c_str());
      close_part(name);
      return error;
    }
    done += static_cast<std::size_t>(put);
  }
  part.hash.add(bytes);
  part.size += bytes.size();
  // On its way to the disk by and by, so that the sync at the end is short. A hint: its failure is
  // that of the sync.
  (void)::sync_file_range(part.fd, static_cast<off_t>(offset), static_cast<off_t>(bytes.size()),
                          SYNC_FILE_RANGE_WRITE);
  return {};
}

Result<void> Store::finish(const std::string& name, const wire::BlobRef& blob) {
  const auto file = part_file(name);
  auto found = parts_.find(name);
  if (found == parts_.end())
    return fail(ErrorCode::kInternal, "{}: nothing of it has been written", file.string());
  auto good = check(file, blob, found->second.size, found->second.hash);
  if (good && ::fsync(found->second.fd) != 0) good = refused("cannot sync", file);
  close_part(name);
  if (!good) {
    if (good.error().code == ErrorCode::kCorrupt) ::unlink(file.c_str());
    return good;
  }
  if (::rename(file.c_str(), this->file(name).c_str()) != 0) return refused("cannot rename", file);
  return sync_folder(file.parent_path());
}

Result<Bytes> Store::read(const std::string& name, std::uint64_t offset, std::size_t size) const {
  const auto path = file(name);
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd < 0) return refused<Bytes>("cannot open", path);
  std::string bytes(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got =
        ::pread(fd, bytes.data() + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return refused<Bytes>("cannot read", path);
    if (got == 0)
      return fail(ErrorCode::kCorrupt, "{} ends at {} bytes, {} from offset {} on were asked for",
                  path.string(), offset + done, size, offset);
    done += static_cast<std::size_t>(got);
  }
  return Bytes(std::move(bytes));
}

bool Store::is_there(const std::string& name, std::uint64_t size) const {
  struct stat status {};
  return ::stat(file(name).c_str(), &status) == 0 &&
         static_cast<std::uint64_t>(status.st_size) == size;
}

void Store::remove(const std::string& name) {
  close_part(name);
  ::unlink(file(name).c_str());
  ::unlink(part_file(name).c_str());
}

}  // namespace farcall::blobs
