// What the jobs write down themselves: PBS keeps no history unless told to, and then a job that has
// ended is simply unknown. Each batch script keeps one small file, named after its job id.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "providers/provider.h"

namespace farcall::providers::pbs {

struct JobRecord {
  std::string name;
  long long ends_at = 0;           // when the walltime is over, seconds since 1970
  std::optional<long long> ended;  // likewise; nothing while it runs or when it was killed
  std::optional<int> exit_code, signal;
  bool cancelled = false;  // by us

  bool operator==(const JobRecord&) const = default;
};

// Lines NAME=VALUE; nothing when it is no record.
std::optional<JobRecord> parse_record(std::string_view text);
// What a job that PBS does not know (any more) became, as far as its record tells.
JobStatus status_from_record(const std::string& job_id, const JobRecord& record);

class Records {
 public:
  explicit Records(std::filesystem::path folder) : folder_(std::move(folder)) {}
  const std::filesystem::path& folder() const { return folder_; }

  Result<void> make() const;  // the folder; removes records that are two weeks old
  std::optional<JobRecord> find(const std::string& job_id) const;
  std::vector<std::string> ids_of_name(const std::string& job_name) const;
  // Marks of the provider's own, for jobs that end before they start. Best effort.
  void note_submit(const std::string& job_id, const std::string& job_name) const;
  void note_cancel(const std::string& job_id) const;

 private:
  std::filesystem::path folder_;
};

}  // namespace farcall::providers::pbs
