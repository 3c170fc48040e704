#include "staging/hdf5/result_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "base/files.h"
#include "base/log.h"

namespace farcall::staging {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kHashDigits = 64;
constexpr std::string_view kSuffix = ".h5";
constexpr std::string_view kPlainSuffix = ".file";
constexpr std::string_view kPartSuffix = ".part";
constexpr std::string_view kTemporary = ".tmp-";  // write_file()'s
// A writer that lives has written to its file since; clocks of hosts may differ.
constexpr auto kPartAge = std::chrono::hours(6);
// The relay keeps an outcome that nobody collects for 30 days.
constexpr auto kRememberedFor = std::chrono::hours(60 * 24);

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

std::int64_t modified_ms(const struct stat& status) {
  return status.st_mtim.tv_sec * 1000 + status.st_mtim.tv_nsec / 1'000'000;
}

std::string date(std::int64_t ms) {
  const std::time_t seconds = ms / 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

// 30 days, 3 hours, 90 s
std::string span(std::int64_t ms) {
  const std::int64_t seconds = ms / 1000;
  constexpr std::int64_t kHour = 3600, kDay = 24 * kHour;
  if (seconds >= 2 * kDay) return fmt::format("{} days", seconds / kDay);
  if (seconds >= 2 * kHour) return fmt::format("{} hours", seconds / kHour);
  return fmt::format("{} s", seconds);
}

// What is damaged is lost: only its task can bring it back.
Error lost(Error error) {
  if (error.code == ErrorCode::kCorrupt)
    error = {ErrorCode::kResultLost, error.message + ": run the task again"};
  return error;
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
  if (found == names_.end()) return fail(why_gone(hash));
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

Error ResultFolder::why_gone(const std::string& hash) const {
  std::optional<Removal> found;
  if (const auto all = removals_.read())
    for (const Removal& removal : *all)
      if (auto named = parse_name(removal.file); named && named->hash == hash) found = removal;
  if (!found)
    return {ErrorCode::kResultLost,
            fmt::format("there is no result {} in {}: its file was removed by somebody else, or "
                        "more than {} days ago; run the task again",
                        hash, root_.string(), kRememberedFor / std::chrono::hours(24))};
  const std::string place = (root_ / found->file).string(), when = date(found->removed_ms);
  if (found->why == RemovedBy::kUser)
    return {ErrorCode::kNotFound,
            fmt::format("{} was released by its owner on {}: run the task again if it is needed "
                        "after all",
                        place, when)};
  return {ErrorCode::kResultLost,
          fmt::format("{} was removed on {}, {} after it was written (`staging.result_ttl` of the "
                      "endpoint): run the task again",
                      place, when, span(found->removed_ms - found->written_ms))};
}

Result<std::string> ResultFolder::read(const std::string& hash, std::uint64_t payload_size,
                                       std::uint64_t offset, std::size_t size) {
  auto file = find(hash, payload_size);
  if (!file) return fail(lost(file.error()));
  std::string bytes(size, '\0');
  if (auto read = (*file)->read(offset, bytes.data(), size); !read) return fail(lost(read.error()));
  return bytes;
}

Result<std::string> ResultFolder::gather(const std::string& hash, std::uint64_t payload_size,
                                         const Pieces& pieces, std::uint64_t bytes_max) {
  auto file = find(hash, payload_size);
  if (!file) return fail(lost(file.error()));
  const auto total = pieces.bytes(payload_size, bytes_max);
  if (!total) return fail(total.error());
  std::string out(*total, '\0');
  std::vector<std::uint64_t> at(pieces.counts.size(), 0);
  for (std::size_t done = 0; done < out.size(); done += pieces.run) {
    std::uint64_t offset = pieces.offset;
    for (std::size_t i = 0; i < at.size(); ++i) offset += at[i] * pieces.strides[i];
    if (auto read = (*file)->read(offset, out.data() + done, pieces.run); !read)
      return fail(lost(read.error()));
    for (std::size_t i = at.size(); i-- > 0 && ++at[i] == pieces.counts[i];) at[i] = 0;
  }
  return out;
}

Result<void> ResultFolder::remove(const std::string& task, const std::string& hash) {
  std::vector<Removal> files;
  for (const std::string_view suffix : {kSuffix, kPlainSuffix}) {
    const fs::path file = root_ / fmt::format("{}.{}{}", task, hash, suffix);
    if (!parse_name(file.filename().string()) || file.parent_path() != root_)
      return fail(ErrorCode::kInvalidArgument, "\"{}\" and \"{}\" name no result", task, hash);
    struct stat status {};
    if (::stat(file.c_str(), &status) == 0)
      files.push_back({file.filename().string(), RemovedBy::kUser,
                       static_cast<std::uint64_t>(status.st_size), modified_ms(status), 0});
  }
  return take_away(files, true);
}

Result<ResultFolder::Taken> ResultFolder::remove_of(const Meant& meant, std::size_t files_max,
                                                    bool remember) {
  auto all = names();
  if (!all) return fail(all.error());
  Taken taken;
  std::vector<Removal> files;
  for (const std::string& name : *all) {
    auto named = parse_name(name);
    struct stat status {};
    if (!named || !meant(named->task) || ::stat((root_ / name).c_str(), &status) != 0) continue;
    taken.more = files.size() == files_max;
    if (taken.more) break;
    files.push_back({name, RemovedBy::kUser, static_cast<std::uint64_t>(status.st_size),
                     modified_ms(status), 0});
    ++taken.files;
    taken.bytes += files.back().file_bytes;
    taken.hashes.push_back(std::move(named->hash));
  }
  if (auto gone = take_away(files, remember); !gone) return fail(gone.error());
  return taken;
}

Result<void> ResultFolder::take_away(const std::vector<Removal>& files, bool remember) {
  std::vector<Removal> now = files;
  for (Removal& file : now) file.removed_ms = read_clock().wall.milliseconds_since_epoch();
  if (remember)
    // On a full disk it has to go all the same.
    if (auto noted = removals_.append(now); !noted) log_warn("{}", noted.error().message);
  for (const Removal& file : files)
    if (::unlink((root_ / file.file).c_str()) != 0 && errno != ENOENT)
      return refused("cannot remove", root_ / file.file);
  return {};
}

Result<std::vector<std::string>> ResultFolder::names() const {
  std::vector<std::string> all;
  std::error_code error;
  for (auto each = fs::directory_iterator(root_, error); !error && each != fs::directory_iterator();
       each.increment(error)) {
    std::string name = each->path().filename().string();
    if (parse_name(name)) all.push_back(std::move(name));
  }
  if (error) return fail(ErrorCode::kIo, "cannot list {}: {}", root_.string(), error.message());
  return all;
}

Result<std::vector<ResultFolder::Kept>> ResultFolder::list() const {
  auto all = names();
  if (!all) return fail(all.error());
  std::vector<Kept> files;
  for (std::string& name : *all) {
    auto named = parse_name(name);
    struct stat status {};
    if (::stat((root_ / name).c_str(), &status) != 0) continue;
    files.push_back({std::move(named->task), std::move(named->hash), std::move(name),
                     static_cast<std::uint64_t>(status.st_size), modified_ms(status)});
  }
  return files;
}

Result<void> ResultFolder::list_again() {
  listing_.clear();
  auto there = names();
  if (!there) return fail(there.error());
  auto removed = removals_.read();
  if (!removed) return fail(removed.error());
  for (Removal& removal : *removed)
    if (parse_name(removal.file)) listing_[removal.file] = std::move(removal);
  for (std::string& name : *there) listing_[std::move(name)] = std::nullopt;
  return {};
}

Result<ResultFolder::Page> ResultFolder::page(const std::string& after, std::size_t files_max) {
  if (after.empty() || listing_.empty())
    if (auto listed = list_again(); !listed) return fail(listed.error());
  Page page;
  auto each = listing_.upper_bound(after);
  for (; each != listing_.end() && page.files.size() < files_max; ++each) {
    const auto& [name, removed] = *each;
    auto named = parse_name(name);
    Listed listed{{named->task, named->hash, name, 0, 0}, removed};
    struct stat status {};
    if (removed) {
      listed.kept.file_bytes = removed->file_bytes;
      listed.kept.written_ms = removed->written_ms;
    } else if (::stat((root_ / name).c_str(), &status) == 0) {
      listed.kept.file_bytes = static_cast<std::uint64_t>(status.st_size);
      listed.kept.written_ms = modified_ms(status);
    } else {
      continue;  // it went meanwhile
    }
    page.files.push_back(std::move(listed));
    page.last = name;
  }
  page.more = each != listing_.end() && !page.last.empty();
  if (!page.more) listing_.clear();
  return page;
}

void ResultFolder::expire(Duration age) {
  std::error_code error;
  const auto now = fs::file_time_type::clock::now();
  std::vector<Removal> old;
  for (auto each = fs::directory_iterator(root_, error); !error && each != fs::directory_iterator();
       each.increment(error)) {
    const std::string name = each->path().filename().string();
    std::error_code gone;
    const auto changed = each->last_write_time(gone);
    struct stat status {};
    if (gone || ::stat(each->path().c_str(), &status) != 0) continue;
    if (changed < now - age && parse_name(name))
      old.push_back({name, RemovedBy::kAge, static_cast<std::uint64_t>(status.st_size),
                     modified_ms(status), 0});
    const bool unfinished = name.ends_with(kPartSuffix) || name.find(kTemporary) != name.npos;
    if (!name.starts_with('.') || !unfinished || changed >= now - kPartAge) continue;
    fs::remove(each->path(), gone);
    log_info("removed {}, which a writer left that died", each->path().string());
  }
  if (auto gone = take_away(old, true); !gone) log_warn("{}", gone.error().message);
  const auto remembered = read_clock().wall + -Duration(kRememberedFor);
  if (auto done = removals_.forget_before(remembered.milliseconds_since_epoch()); !done)
    log_warn("{}", done.error().message);
}

}  // namespace farcall::staging
