// A campaign in one HDF5 file, for h5py, h5dump, pandas and ParaView (docs/campaign-files.md has
// the layout): a table of the tasks, their arguments and results as arrays with one row per task
// where shapes agree and one group per task where they do not, the functions and submissions they
// came of.
//
// The file is written under another name and renamed when it is whole, so that a crash leaves what
// was there before. Rows are only ever added.
//
// Threads: HDF5 as Debian builds it is not thread-safe. At most one thread of a process may be in
// any function of this folder at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/error.h"
#include "staging/value.h"

namespace farcall::staging {

struct CampaignRow {
  std::string task_id;      // 36 characters
  std::uint32_t index = 0;  // in its submission
  std::string state;        // "succeeded", "failed", "cancelled"
  std::string failure;      // class, "none"
  std::string error;        // one line, empty when it succeeded
  std::string host;
  std::uint16_t attempt = 1;
  std::int32_t exit_code = 0;
  std::int32_t signal = 0;
  std::int64_t submitted_ms = 0, started_ms = 0, ended_ms = 0;  // wall clock; 0: not known
  std::optional<Arguments> arguments;  // nullopt: not known, or for Python only
  std::optional<Value> result;         // nullopt: it did not succeed
  std::string_view payload;            // the result as it came, kept when it is for Python only
};

// A name and what is known under it, as attributes.
struct CampaignGroup {
  std::string id;
  std::map<std::string, std::string> texts;
  std::map<std::string, std::int64_t> numbers;
  std::string source;     // a dataset "source" beside the attributes, when not empty
  std::string_view body;  // a dataset "body" of bytes, when not empty
};

class Campaign {
 public:
  // What is at `path` is kept and added to; nothing there begins a new one, called `name`.
  // kExists: something is there that is no campaign file. kIo.
  static Result<Campaign> open(const std::filesystem::path& path, const std::string& name);
  // Begins a new one, which takes the place of whatever is at `path`. kIo.
  static Result<Campaign> replace(const std::filesystem::path& path, const std::string& name);
  Campaign(Campaign&& other) noexcept;
  Campaign& operator=(Campaign&& other) noexcept;
  ~Campaign();  // without finish(): nothing has changed at `path`

  // Of a file that is only looked at. kExists, kIo as for open().
  static Result<std::set<std::string>> task_ids_in(const std::filesystem::path& path);
  // The rows that were there when it was opened.
  const std::set<std::string>& task_ids() const;
  bool has(const std::string& task_id) const { return task_ids().contains(task_id); }

  // Rows are given twice, so that memory holds none of them: all of them to plan(), which finds out
  // types and shapes, then the same in the same order to add().
  void plan(const CampaignRow& row);
  Result<void> add(const CampaignRow& row);
  // Replaces what is there of the same id.
  Result<void> add_function(const CampaignGroup& function);
  Result<void> add_submission(const CampaignGroup& submission);
  // Writes, syncs and renames. REQUIRES: as many add() as plan().
  Result<void> finish();

  struct Impl;

 private:
  explicit Campaign(std::unique_ptr<Impl> impl);
  static Result<Campaign> begin(const std::filesystem::path& path, const std::string& name,
                                bool keep);
  std::unique_ptr<Impl> impl_;
};

}  // namespace farcall::staging
