// What is said to Slurm and how its answers are read: pure functions, tested on captures of a real
// Slurm. Nothing here runs a command.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/subprocess.h"
#include "providers/provider.h"

namespace farcall::providers::slurm {

struct Settings {
  std::string partition, account, qos, constraint, clusters, gres;  // "": not said to Slurm
  std::optional<int> cores_per_node, gpus_per_node;
  std::optional<double> mem_per_node_gib;
  std::string scheduler_options;  // "#SBATCH ..." lines
  std::string worker_init;
  std::string launcher = "SrunLauncher";
  std::string launcher_overrides;  // more options of srun
  bool exclusive = true;
  double cmd_timeout_s = 30;
};

std::vector<ConfigKey> schema();
// kConfig for what the table of keys cannot say: a line break in an option, a launcher that starts
// one pilot only together with several nodes.
Result<Settings> settings_from_json(const nlohmann::json& config);

std::string render_script(const Settings& settings, const BlockRequest& request);

std::vector<std::string> submit_command(const Settings& settings, const BlockRequest& request,
                                        const std::string& script_file);
Result<SubmitReply> read_submit(const CommandOutput& output);

std::vector<std::string> status_command(const Settings& settings,
                                        const std::vector<std::string>& job_ids);
Result<std::vector<JobStatus>> read_status(const CommandOutput& output,
                                           const std::vector<std::string>& job_ids);

std::vector<std::string> find_command(const Settings& settings, const std::string& job_name);
Result<std::vector<std::string>> read_find(const CommandOutput& output,
                                           const std::string& job_name);

std::vector<std::string> cancel_command(const Settings& settings,
                                        const std::vector<std::string>& job_ids);
Result<void> read_cancel(const CommandOutput& output);

// "n[1-3,07],login2" -> n1 n2 n3 n07 login2; empty when it cannot be read (or is cut off).
std::vector<std::string> expand_nodes(std::string_view list);
// "1-02:03:04", "4:59" -> seconds; nothing for UNLIMITED, INVALID, NOT_SET.
std::optional<double> parse_time_left(std::string_view text);

}  // namespace farcall::providers::slurm
