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
#include "providers/batch_script.h"
#include "providers/command_text.h"
#include "providers/provider.h"

namespace farcall::providers::slurm {

struct Settings {
  std::string partition, account, qos, constraint, clusters, gres;  // "": not said to Slurm
  std::optional<int> cores_per_node, gpus_per_node;
  std::optional<double> mem_per_node_gib;
  std::optional<double> warn_before_s;  // of the end, with SIGUSR1
  DirectiveChanges changes;
  std::string worker_init;
  Launcher launcher;
  bool exclusive = true;
  double cmd_timeout_s = 30;
};

std::vector<ConfigKey> schema();
// kConfig for what the table of keys cannot say, such as a line break in an option.
Result<Settings> settings_from_json(const nlohmann::json& config);

// The long name of what a line sets, "" included: "#SBATCH -p debug" -> "partition".
std::optional<std::string> option_of_line(std::string_view line);

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

// "7;north" -> "north"; "" without.
std::string cluster_of(const std::string& job_id);
// Of ids of one cluster.
std::vector<std::string> cancel_command(const Settings& settings,
                                        const std::vector<std::string>& job_ids);
Result<void> read_cancel(const CommandOutput& output);

std::vector<std::string> try_command(const Settings& settings, const BlockRequest& request,
                                     const std::string& script_file);
Result<std::string> read_try(const CommandOutput& output);

// What partitions and accounts there are.
std::vector<std::string> partitions_command();
std::vector<std::string> accounts_command(const std::string& user);
std::vector<Choice> read_partitions(std::string_view output);
std::vector<Choice> read_accounts(std::string_view output);

// "n[1-3,07],login2" -> n1 n2 n3 n07 login2; empty when it cannot be read (or is cut off).
std::vector<std::string> expand_nodes(std::string_view list);
// "1-02:03:04", "4:59" -> seconds; nothing for UNLIMITED, INVALID, NOT_SET.
std::optional<double> parse_time_left(std::string_view text);

}  // namespace farcall::providers::slurm
