// What has gone from a folder of results, when and why: a text file in it that is only appended to,
// so that whoever asks for a result that is not there is told what became of it. Blocking.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace farcall::staging {

enum class RemovedBy { kUser, kAge };  // released or deleted; too old
std::string_view name_of(RemovedBy why);

struct Removal {
  std::string file;  // its name in the folder
  RemovedBy why = RemovedBy::kUser;
  std::uint64_t file_bytes = 0;
  std::int64_t written_ms = 0, removed_ms = 0;  // wall clock
};

class RemovalLog {
 public:
  explicit RemovalLog(const std::filesystem::path& folder) : path_(folder / ".removed") {}

  // On disk when it returns. A last line that a crash has cut short harms no other.
  Result<void> append(const std::vector<Removal>& removals) const;
  // Those that can be read, oldest first; none when there is no such file.
  Result<std::vector<Removal>> read() const;
  // Forgets what was removed before.
  Result<void> forget_before(std::int64_t removed_ms) const;

 private:
  const std::filesystem::path path_;
};

}  // namespace farcall::staging
