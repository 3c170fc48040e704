#include "staging/hdf5/result_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/files.h"
#include "base/log.h"

namespace farcall::staging {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kHashDigits = 64;
constexpr std::string_view kSuffix = ".h5";
constexpr std::string_view kPlainSuffix = ".file";
constexpr std::string_view kPartSuffix = ".part";
// A writer that lives has written to its file since; clocks of hosts may differ.
constexpr auto kPartAge = std::chrono::hours(6);

struct Named {
  std::string task, hash;
};

std::optional<Named> parse_name(const std::string& name) {
  const auto dot = name.find('.');
  const auto end = name.rfind('.');
  const std::string_view suffix = std::string_view(name).substr(std::min(end, name.size()));
  if ((suffix != kSuffix && suffix != kPlainSuffix) || dot == 0 || end != dot + 1 + kHashDigits)
    return std::nullopt;
  return Named{name.substr(0, dot), name.substr(dot + 1, kHashDigits)};
}

tl::unexpected<Error> refused(std::string_view what, const fs::path& path) {
  const int why = errno;
  return fail(why == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{} {}: {}", what,
              path.string(), std::strerror(why));
}

Result<void> sync(const fs::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0) return refused("cannot open", path);
  const bool fine = ::fsync(fd) == 0;
  const int why = errno;
  ::close(fd);
  errno = why;
  if (!fine) return refused("cannot sync", path);
  return {};
}

}  // namespace

Result<std::uint64_t> Pieces::bytes(std::uint64_t size, std::uint64_t bytes_max) const {
  // Each factor is checked before it is used: numbers come from outside.
  bool sound =
      run > 0 && run <= bytes_max && strides.size() == counts.size() && counts.size() <= 64;
  std::uint64_t total = run, end = run;
  sound = sound && offset <= size && end <= size - offset;
  for (std::size_t i = 0; sound && i < counts.size(); ++i) {
    sound = counts[i] > 0 && counts[i] <= bytes_max / total &&
            (counts[i] == 1 || strides[i] <= (size - offset - end) / (counts[i] - 1));
    if (!sound) break;
    total *= counts[i];
    end += strides[i] * (counts[i] - 1);
  }
  if (!sound)
    return fail(ErrorCode::kInvalidArgument,
                "those pieces do not lie within {} bytes, or are more than {} bytes together", size,
                bytes_max);
  return total;
}

std::string result_file_name(std::string_view task, std::string_view hash) {
  return fmt::format("{}.{}{}", task, hash, kSuffix);
}

namespace {

// HDF5 says less about a folder that is not there.
Result<fs::path> part_in(const fs::path& folder, const ResultFileOptions& options) {
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    return fail(ErrorCode::kIo, "{}: {}", folder.string(), std::strerror(errno));
  return folder /
         fmt::format(".{}.{}.{}{}", options.task_id, options.host, ::getpid(), kPartSuffix);
}

// Gives it its name, or takes it away.
Result<std::string> settle(const fs::path& part, std::string_view task, Result<std::string> hash) {
  const fs::path folder = part.parent_path();
  Result<void> done;
  if (!hash) done = fail(hash.error());
  if (done) done = sync(part, O_RDONLY);
  if (done) {
    const fs::path file = folder / result_file_name(task, *hash);
    if (::rename(part.c_str(), file.c_str()) != 0) done = refused("cannot make", file);
    if (done) done = sync(folder, O_RDONLY | O_DIRECTORY);
  }
  if (done) return hash;
  ::unlink(part.c_str());
  return fail(done.error());
}

}  // namespace

Result<std::string> keep_result(const fs::path& folder, const ResultFileOptions& options,
                                const PayloadSource& source) {
  auto part = part_in(folder, options);
  if (!part) return fail(part.error());
  return settle(*part, options.task_id, write_result_file(*part, options, source));
}

Result<fs::path> begin_result(const fs::path& folder, const ResultFileOptions& options,
                              const PayloadSource& source) {
  auto part = part_in(folder, options);
  if (!part) return part;
  if (auto begun = begin_result_file(*part, options, source); !begun) {
    ::unlink(part->c_str());
    return fail(begun.error());
  }
  return part;
}

Result<std::string> seal_result(const fs::path& file, std::string_view task) {
  return settle(file, task, seal_result_file(file));
}

Result<PlainFile> PlainFile::open(const fs::path& path) {
  PlainFile file;
  file.name_ = path.string();
  file.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (file.fd_ < 0 || ::fstat(file.fd_, &status) != 0) return refused("cannot open", path);
  file.size_ = static_cast<std::uint64_t>(status.st_size);
  return file;
}
PlainFile::PlainFile(PlainFile&& other) noexcept { *this = std::move(other); }
PlainFile& PlainFile::operator=(PlainFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  std::swap(name_, other.name_);
  return *this;
}
PlainFile::~PlainFile() {
  if (fd_ >= 0) ::close(fd_);
}

Result<void> PlainFile::read(std::uint64_t offset, char* into, std::size_t size) {
  while (size > 0) {
    const ssize_t got = ::pread(fd_, into, size, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return refused("cannot read", name_);
    if (got == 0)
      return fail(ErrorCode::kCorrupt, "{} ends at byte {}, it had {}", name_, offset, size_);
    offset += static_cast<std::uint64_t>(got);
    into += got;
    size -= static_cast<std::size_t>(got);
  }
  return {};
}

Result<void> ResultFolder::open() {
  if (auto made = make_directory(root_, 0700); !made) return made;
  return {};
}

bool ResultFolder::is_still(const Open& open) {
  struct stat status {};
  return ::stat(open.path.c_str(), &status) == 0 && status.st_ino == open.inode &&
         static_cast<std::uint64_t>(status.st_size) == open.file_bytes &&
         status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec == open.changed_ns;
}

Result<void> ResultFolder::Open::read(std::uint64_t offset, char* into, std::size_t size) {
  return std::visit([&](auto& one) { return one.read(offset, into, size); }, *file);
}

Result<ResultFolder::Open*> ResultFolder::find(const std::string& hash,
                                               std::uint64_t payload_size) {
  if (!open_.file || open_.hash != hash || !is_still(open_)) {
    open_ = Open{};
    if (auto opened = open_it(hash); !opened) return fail(opened.error());
  }
  const std::uint64_t size = std::visit([](const auto& one) { return one.size(); }, *open_.file);
  if (size != payload_size)
    return fail(ErrorCode::kCorrupt, "{} holds {} bytes, expected {}", open_.path.string(), size,
                payload_size);
  return &open_;
}

Result<void> ResultFolder::open_it(const std::string& hash) {
  std::error_code error;
  if (auto known = names_.find(hash);
      known == names_.end() || !fs::exists(root_ / known->second, error)) {
    names_.clear();
    auto all = list();
    if (!all) return fail(all.error());
    for (const Kept& one : *all) names_[one.hash] = one.file;
  }
  const auto found = names_.find(hash);
  if (found == names_.end())
    return fail(ErrorCode::kNotFound, "there is no result {} in {}: it was removed, or is too old",
                hash, root_.string());
  open_.path = root_ / found->second;
  struct stat status {};
  if (::stat(open_.path.c_str(), &status) != 0) return refused("cannot look at", open_.path);
  open_.inode = status.st_ino;
  open_.file_bytes = static_cast<std::uint64_t>(status.st_size);
  open_.changed_ns = status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec;
  const auto take = [&](auto opened) -> Result<void> {
    if (!opened) return fail(opened.error());
    open_.file.emplace(std::move(*opened));
    return {};
  };
  auto taken = found->second.ends_with(kSuffix) ? take(ResultFile::open(open_.path))
                                                : take(PlainFile::open(open_.path));
  if (!taken) return taken;
  open_.hash = hash;
  return {};
}

Result<std::string> ResultFolder::read(const std::string& hash, std::uint64_t payload_size,
                                       std::uint64_t offset, std::size_t size) {
  auto file = find(hash, payload_size);
  if (!file) return fail(file.error());
  std::string bytes(size, '\0');
  if (auto read = (*file)->read(offset, bytes.data(), size); !read) return fail(read.error());
  return bytes;
}

Result<std::string> ResultFolder::gather(const std::string& hash, std::uint64_t payload_size,
                                         const Pieces& pieces, std::uint64_t bytes_max) {
  auto file = find(hash, payload_size);
  if (!file) return fail(file.error());
  const auto total = pieces.bytes(payload_size, bytes_max);
  if (!total) return fail(total.error());
  std::string out(*total, '\0');
  std::vector<std::uint64_t> at(pieces.counts.size(), 0);
  for (std::size_t done = 0; done < out.size(); done += pieces.run) {
    std::uint64_t offset = pieces.offset;
    for (std::size_t i = 0; i < at.size(); ++i) offset += at[i] * pieces.strides[i];
    if (auto read = (*file)->read(offset, out.data() + done, pieces.run); !read)
      return fail(read.error());
    for (std::size_t i = at.size(); i-- > 0 && ++at[i] == pieces.counts[i];) at[i] = 0;
  }
  return out;
}

Result<void> ResultFolder::remove(const std::string& task, const std::string& hash) {
  for (const std::string_view suffix : {kSuffix, kPlainSuffix}) {
    const fs::path file = root_ / fmt::format("{}.{}{}", task, hash, suffix);
    if (!parse_name(file.filename().string()) || file.parent_path() != root_)
      return fail(ErrorCode::kInvalidArgument, "\"{}\" and \"{}\" name no result", task, hash);
    if (::unlink(file.c_str()) != 0 && errno != ENOENT) return refused("cannot remove", file);
  }
  return {};
}

Result<std::vector<ResultFolder::Kept>> ResultFolder::list() const {
  std::vector<Kept> all;
  std::error_code error;
  for (auto each = fs::directory_iterator(root_, error); !error && each != fs::directory_iterator();
       each.increment(error)) {
    std::string name = each->path().filename().string();
    auto named = parse_name(name);
    struct stat status {};
    if (!named || ::stat(each->path().c_str(), &status) != 0) continue;
    all.push_back({std::move(named->task), std::move(named->hash), std::move(name),
                   static_cast<std::uint64_t>(status.st_size),
                   status.st_mtim.tv_sec * 1000 + status.st_mtim.tv_nsec / 1'000'000});
  }
  if (error) return fail(ErrorCode::kIo, "cannot list {}: {}", root_.string(), error.message());
  return all;
}

void ResultFolder::expire(Duration age) {
  std::error_code error;
  const auto now = fs::file_time_type::clock::now();
  for (auto each = fs::directory_iterator(root_, error); !error && each != fs::directory_iterator();
       each.increment(error)) {
    const std::string name = each->path().filename().string();
    std::error_code gone;
    const auto changed = each->last_write_time(gone);
    const bool old = !gone && changed < now - age;
    const bool left =
        name.starts_with('.') && name.ends_with(kPartSuffix) && !gone && changed < now - kPartAge;
    if ((old && parse_name(name)) || left) fs::remove(each->path(), gone);
    if (left) log_info("removed {}, which a writer left that died", each->path().string());
  }
}

}  // namespace farcall::staging
