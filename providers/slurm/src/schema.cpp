#include <nlohmann/json.hpp>

#include "providers/keys.h"
#include "providers_slurm/slurm_text.h"

namespace farcall::providers::slurm {

using nlohmann::json;

namespace {

constexpr const char* kOwnLauncher = "SrunLauncher";

Result<void> check(const Settings& settings) {
  for (const auto& [name, value] :
       {std::pair{"partition", &settings.partition}, std::pair{"account", &settings.account},
        std::pair{"qos", &settings.qos}, std::pair{"constraint", &settings.constraint},
        std::pair{"clusters", &settings.clusters}, std::pair{"gres", &settings.gres}}) {
    if (value->find('\n') != std::string::npos) {
      return fail(ErrorCode::kConfig, "provider slurm: {} has a line break; it must be one line",
                  name);
    }
  }
  for (const auto line : split(settings.changes.scheduler_options, '\n')) {
    const auto name = option_of_line(trimmed(line));
    if (name == "job-name" || name == "array")
      return fail(ErrorCode::kConfig,
                  "provider slurm: scheduler_options sets {}: farcall names its jobs itself, one "
                  "at a time, to find them again",
                  *name);
  }
  return {};
}

}  // namespace

std::vector<ConfigKey> schema() {
  std::vector<ConfigKey> keys = common_keys();
  const auto add = [&](ConfigKey more) { keys.push_back(std::move(more)); };
  add(make_key("partition", KeyType::kString, nullptr, "Partition; none: the cluster's default."));
  add(make_key("account", KeyType::kString, nullptr, "Account that is charged."));
  add(make_key("qos", KeyType::kString, nullptr, "Quality of service."));
  add(make_key("constraint", KeyType::kString, nullptr, "Features that nodes must have."));
  add(make_key("clusters", KeyType::kString, nullptr,
               "Cluster to submit to, where there are several."));
  add(at_least(
      make_key("cores_per_node", KeyType::kInteger, nullptr, "Cores asked for on each node."), 1));
  add(at_least(
      make_key("mem_per_node", KeyType::kNumber, nullptr, "Memory asked for on each node."), 0,
      "GiB"));
  add(at_least(
      make_key("gpus_per_node", KeyType::kInteger, nullptr, "GPUs asked for on each node."), 1));
  add(make_key("gres", KeyType::kString, nullptr, "Generic resources, as sbatch --gres."));
  add(make_key("exclusive", KeyType::kBool, true, "Whole nodes, shared with nobody."));
  ConfigKey warn = at_least(
      make_key("warn_before", KeyType::kDuration, nullptr,
               "So long before its end Slurm warns a block (--signal=B:USR1@…): from then on it "
               "starts nothing, what runs may end. Without it, each task's walltime or what is "
               "known of its function decides."),
      1, "s");
  add(std::move(warn));
  for (auto& more : directive_keys("More lines for the top of the batch script, such as #SBATCH "
                                   "--reservation=school; one that is said already is replaced."))
    add(std::move(more));
  add(launcher_key(kOwnLauncher));
  add(ignored_key("regex_job_id", KeyType::kString, "sbatch --parsable needs none."));
  add(ignored_key("status_batch_size", KeyType::kInteger, "one squeue asks for all blocks."));
  add(ignored_key("move_files", KeyType::kBool, "the script is read where it is written"));
  return keys;
}

Result<Settings> settings_from_json(const json& config) {
  Settings settings;
  try {
    settings.partition = text_value(config, "partition");
    settings.account = text_value(config, "account");
    settings.qos = text_value(config, "qos");
    settings.constraint = text_value(config, "constraint");
    settings.clusters = text_value(config, "clusters");
    settings.gres = text_value(config, "gres");
    settings.cores_per_node = value_if_set<int>(config, "cores_per_node");
    settings.gpus_per_node = value_if_set<int>(config, "gpus_per_node");
    settings.mem_per_node_gib = value_if_set<double>(config, "mem_per_node");
    settings.warn_before_s = value_if_set<double>(config, "warn_before");
    settings.changes = directive_changes(config);
    settings.worker_init = text_value(config, "worker_init");
    settings.exclusive = value_if_set<bool>(config, "exclusive").value_or(true);
    settings.cmd_timeout_s =
        value_if_set<double>(config, "cmd_timeout").value_or(settings.cmd_timeout_s);
    auto launcher = launcher_from_json(config, kOwnLauncher);
    if (!launcher)
      return fail(launcher.error().code, "provider slurm: {}", launcher.error().message);
    settings.launcher = std::move(*launcher);
  } catch (const json::exception& error) {
    return fail(ErrorCode::kConfig, "provider slurm: configuration: {}", error.what());
  }
  if (auto checked = check(settings); !checked) return fail(checked.error());
  return settings;
}

}  // namespace farcall::providers::slurm
