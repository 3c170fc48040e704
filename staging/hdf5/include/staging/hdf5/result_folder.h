// The large results of an endpoint: a folder of result files, <task>.<hash of the payload>.h5, and
// of files that tasks left, as they are, <task>.<hash>.file; each whole when it has its name.
// Blocking; threads as campaign.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "staging/hdf5/removal_log.h"
#include "staging/hdf5/result_file.h"

namespace farcall::staging {

// Pieces of a payload that lie apart, as the rows of a part of an array do: for each combination of
// counters (the last one running fastest) `run` bytes at `offset` plus the counters times strides.
struct Pieces {
  std::uint64_t offset = 0;
  std::vector<std::uint64_t> counts;
  std::vector<std::uint64_t> strides;  // as many; bytes
  std::uint64_t run = 0;

  // kInvalidArgument unless they make `bytes_max` bytes at most and lie within `size` bytes.
  Result<std::uint64_t> bytes(std::uint64_t size, std::uint64_t bytes_max) const;
};

std::string result_file_name(std::string_view task, std::string_view hash);

// Writes what the source gives into the folder: synced, under its name when this returns, and
// nothing there when it fails. The hash of the payload.
Result<std::string> keep_result(const std::filesystem::path& folder,
                                const ResultFileOptions& options, const PayloadSource& source);

// The two halves of keep_result() for an array that several processes write: begin_result_file()
// and seal_result_file() in the folder. begin_result() gives the file that they are to open; after
// a failure of theirs nobody seals it, and a later clean() takes it away.
Result<std::filesystem::path> begin_result(const std::filesystem::path& folder,
                                           const ResultFileOptions& options,
                                           const PayloadSource& source);
Result<std::string> seal_result(const std::filesystem::path& file, std::string_view task);

// A file that a task left.
class PlainFile {
 public:
  static Result<PlainFile> open(const std::filesystem::path& path);  // kNotFound, kIo
  PlainFile(PlainFile&& other) noexcept;
  PlainFile& operator=(PlainFile&& other) noexcept;
  ~PlainFile();
  std::uint64_t size() const { return size_; }
  // REQUIRES: they lie within it. kCorrupt: it has become shorter. kIo.
  Result<void> read(std::uint64_t offset, char* into, std::size_t size);

 private:
  PlainFile() = default;
  int fd_ = -1;
  std::uint64_t size_ = 0;
  std::string name_;
};

class ResultFolder {
 public:
  explicit ResultFolder(std::filesystem::path root) : root_(std::move(root)), removals_(root_) {}

  Result<void> open();  // makes it (0700)
  // The payload's bytes. kNotFound: it was released. kResultLost: it is not there for another
  // reason, is damaged, or has another size. kIo.
  Result<std::string> read(const std::string& hash, std::uint64_t payload_size,
                           std::uint64_t offset, std::size_t size);
  // All pieces, one after the other.
  Result<std::string> gather(const std::string& hash, std::uint64_t payload_size,
                             const Pieces& pieces, std::uint64_t bytes_max);
  // That task's; it need not be there.
  Result<void> remove(const std::string& task, const std::string& hash);
  struct Taken {
    std::uint64_t files = 0, bytes = 0;
    std::vector<std::string> hashes;
    bool more = false;  // ask again
  };
  // Removes those of the tasks that are meant, `files_max` at most. `remember`: whoever asks for
  // them will be told.
  using Meant = std::function<bool(const std::string& task)>;
  Result<Taken> remove_of(const Meant& meant, std::size_t files_max, bool remember);
  struct Kept {
    std::string task, hash, file;  // its name here
    std::uint64_t file_bytes = 0;
    std::int64_t written_ms = 0;  // wall clock
  };
  Result<std::vector<Kept>> list() const;
  struct Listed {
    Kept kept;
    std::optional<Removal> removed;  // it is not there any more
  };
  struct Page {
    std::vector<Listed> files;
    std::string last;   // where the next page goes on
    bool more = false;  // there is one
  };
  // What is there and what has gone, by name, from after `after` on. Pages after the first are
  // those of the list as it was then.
  Result<Page> page(const std::string& after, std::size_t files_max);
  // Removes what was written longer ago, and what writers that died have left behind.
  void expire(Duration age);

 private:
  // The file that was read last stays open while it is the one that lies there.
  struct Open {
    std::string hash;
    std::filesystem::path path;
    std::uint64_t inode = 0, file_bytes = 0;
    std::int64_t changed_ns = 0;
    std::optional<std::variant<ResultFile, PlainFile>> file;
    Result<void> read(std::uint64_t offset, char* into, std::size_t size);
  };
  Result<void> open_it(const std::string& hash);
  Error why_gone(const std::string& hash) const;
  Result<std::vector<std::string>> names() const;
  // Whose files these are is on disk before they go.
  Result<void> take_away(const std::vector<Removal>& files, bool remember);
  Result<void> list_again();
  Result<Open*> find(const std::string& hash, std::uint64_t payload_size);
  static bool is_still(const Open& open);

  const std::filesystem::path root_;
  const RemovalLog removals_;
  std::map<std::string, std::string> names_;               // by hash; may be out of date
  std::map<std::string, std::optional<Removal>> listing_;  // by name; until its last page is read
  Open open_;
};

}  // namespace farcall::staging
