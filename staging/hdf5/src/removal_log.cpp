#include "staging/hdf5/removal_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <sstream>

#include "base/files.h"

namespace farcall::staging {

namespace {

std::string line_of(const Removal& removal) {
  return fmt::format("{} {} {} {} {}\n", removal.removed_ms, name_of(removal.why),
                     removal.file_bytes, removal.written_ms, removal.file);
}

std::optional<Removal> parse(const std::string& line) {
  Removal removal;
  std::string why, more;
  std::istringstream words(line);
  words >> removal.removed_ms >> why >> removal.file_bytes >> removal.written_ms >> removal.file;
  if (!words || words >> more) return std::nullopt;
  for (const RemovedBy each : {RemovedBy::kUser, RemovedBy::kAge}) {
    removal.why = each;
    if (why == name_of(each)) return removal;
  }
  return std::nullopt;
}

Result<void> refused(const std::filesystem::path& path) {
  return fail(ErrorCode::kIo, "cannot append to {}: {}", path.string(), std::strerror(errno));
}

}  // namespace

std::string_view name_of(RemovedBy why) { return why == RemovedBy::kUser ? "released" : "expired"; }

Result<void> RemovalLog::append(const std::vector<Removal>& removals) const {
  if (removals.empty()) return {};
  std::string text = "\n";  // ends what a crash has cut short
  for (const Removal& removal : removals) text += line_of(removal);
  const int fd = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return refused(path_);
  std::string_view left = text;
  bool fine = true;
  while (fine && !left.empty()) {
    const ssize_t put = ::write(fd, left.data(), left.size());
    fine = put >= 0 || errno == EINTR;
    if (put > 0) left.remove_prefix(static_cast<std::size_t>(put));
  }
  fine = fine && ::fsync(fd) == 0;
  const int why = errno;
  ::close(fd);
  errno = why;
  if (!fine) return refused(path_);
  return {};
}

Result<std::vector<Removal>> RemovalLog::read() const {
  std::vector<Removal> all;
  const auto text = read_file(path_);
  if (!text && text.error().code == ErrorCode::kNotFound) return all;
  if (!text) return fail(text.error());
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);)
    if (auto removal = parse(line)) all.push_back(std::move(*removal));
  return all;
}

Result<void> RemovalLog::forget_before(std::int64_t removed_ms) const {
  const auto all = read();
  if (!all) return fail(all.error());
  std::string kept;
  bool any = false;
  for (const Removal& removal : *all) {
    if (removal.removed_ms < removed_ms)
      any = true;
    else
      kept += line_of(removal);
  }
  return any ? write_file(path_, kept, 0600) : Result<void>();
}

}  // namespace farcall::staging
