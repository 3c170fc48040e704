// Blocks on this host, without a scheduler: for workstations, single servers and tests.
//
// Each job has a keeper, a small program of its own that outlives whoever submitted it: it starts
// the command once per "node", enforces the walltime, ends everything that descends from the job
// when the job is over, and writes down how it ended. What is known of a job stands in its folder
// below the provider's directory; the job's id is its name.
#pragma once

#include <filesystem>

#include "providers/provider.h"

namespace farcall::providers::local {

// One line that the keeper writes about itself before it starts anything. A pid alone could be
// somebody else's by now: start time and boot tell.
struct KeeperRecord {
  int pid = 0;
  unsigned long long start_ticks = 0;  // field 22 of /proc/PID/stat
  std::string boot_id;
  double started_s = 0;  // CLOCK_BOOTTIME
  double walltime_s = 0;
};
Result<KeeperRecord> parse_keeper(std::string_view text);

struct EndRecord {
  EndedBy ended_by = EndedBy::kUnknown;
  int exit_code = 0;
  int signal = 0;            // 0: none
  bool keeper_lost = false;  // written by whoever found the keeper gone
};
Result<EndRecord> parse_end(std::string_view text);

class LocalProvider final : public Provider {
 public:
  static constexpr const char* kName = "local";
  static constexpr const char* kVersion = "1";
  static std::vector<ConfigKey> schema();
  static Result<std::unique_ptr<Provider>> create(const nlohmann::json& config);

  Result<SubmitReply> submit(const BlockRequest& request) override;
  Result<std::vector<JobStatus>> status(const std::vector<std::string>& job_ids) override;
  Result<std::vector<std::string>> find_by_name(const std::string& job_name) override;
  // TERM to every process of the job, KILL to what is left after `kill_wait`.
  Result<void> cancel(const std::vector<std::string>& job_ids) override;
  Result<std::string> script(const BlockRequest& request) override;

 private:
  LocalProvider() = default;
  std::filesystem::path folder_of(const std::string& job_id) const;
  Result<JobStatus> status_of(const std::string& job_id);
  void forget_old_jobs() const;

  std::filesystem::path jobs_;    // one folder for each job
  std::filesystem::path keeper_;  // the program
  std::string worker_init_;
  double cmd_timeout_s_ = 30;
  double kill_wait_s_ = 3;
};

}  // namespace farcall::providers::local
