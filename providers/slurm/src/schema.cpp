#include <nlohmann/json.hpp>

#include "providers_slurm/slurm_text.h"

namespace farcall::providers::slurm {

using nlohmann::json;

namespace {

ConfigKey key(const char* name, KeyType type, json value, const char* help) {
  ConfigKey made;
  made.name = name;
  made.type = type;
  made.default_value = std::move(value);
  made.help = help;
  return made;
}

ConfigKey ignored(const char* name, KeyType type, const char* help) {
  ConfigKey made = key(name, type, nullptr, help);
  made.ignored = true;
  return made;
}

ConfigKey at_least(ConfigKey made, double minimum, const char* unit = "") {
  made.minimum = minimum;
  made.unit = unit;
  return made;
}

ConfigKey launcher_key() {
  ConfigKey launcher = key("launcher", KeyType::kMap, nullptr,
                           "How the batch job starts its pilots; SrunLauncher: one on each node.");
  ConfigKey type = key("type", KeyType::kString, "SrunLauncher",
                       "SrunLauncher starts a pilot on every node, SingleNodeLauncher and "
                       "SimpleLauncher one on the first.");
  type.choices = {"SrunLauncher", "SingleNodeLauncher", "SimpleLauncher"};
  launcher.keys = {type, key("overrides", KeyType::kString, "", "More options of srun."),
                   ignored("debug", KeyType::kBool, "Accepted for compatibility."),
                   ignored("fail_on_any", KeyType::kBool, "Accepted for compatibility.")};
  return launcher;
}

std::string text(const json& config, const char* name) {
  const auto found = config.find(name);
  return found == config.end() || found->is_null() ? "" : found->get<std::string>();
}

template <class T>
std::optional<T> number(const json& config, const char* name) {
  const auto found = config.find(name);
  if (found == config.end() || found->is_null()) return std::nullopt;
  return found->get<T>();
}

Result<void> check(const Settings& settings, int nodes_per_block) {
  for (const auto& [name, value] :
       {std::pair{"partition", &settings.partition}, std::pair{"account", &settings.account},
        std::pair{"qos", &settings.qos}, std::pair{"constraint", &settings.constraint},
        std::pair{"clusters", &settings.clusters}, std::pair{"gres", &settings.gres},
        std::pair{"launcher.overrides", &settings.launcher_overrides}}) {
    if (value->find('\n') != std::string::npos) {
      return fail(ErrorCode::kConfig, "provider slurm: {} has a line break; it must be one line",
                  name);
    }
  }
  if (settings.launcher != "SrunLauncher" && nodes_per_block > 1) {
    return fail(ErrorCode::kConfig,
                "provider slurm: launcher {} starts a pilot on the first node only, and "
                "nodes_per_block is {}; use SrunLauncher",
                settings.launcher, nodes_per_block);
  }
  return {};
}

}  // namespace

std::vector<ConfigKey> schema() {
  std::vector<ConfigKey> keys = common_keys();
  const auto add = [&](ConfigKey more) { keys.push_back(std::move(more)); };
  add(key("partition", KeyType::kString, nullptr, "Partition; none: the cluster's default."));
  add(key("account", KeyType::kString, nullptr, "Account that is charged."));
  add(key("qos", KeyType::kString, nullptr, "Quality of service."));
  add(key("constraint", KeyType::kString, nullptr, "Features that nodes must have."));
  add(key("clusters", KeyType::kString, nullptr, "Cluster to submit to, where there are several."));
  add(at_least(key("cores_per_node", KeyType::kInteger, nullptr, "Cores asked for on each node."),
               1));
  add(at_least(key("mem_per_node", KeyType::kNumber, nullptr, "Memory asked for on each node."), 0,
               "GiB"));
  add(at_least(key("gpus_per_node", KeyType::kInteger, nullptr, "GPUs asked for on each node."),
               1));
  add(key("gres", KeyType::kString, nullptr, "Generic resources, as sbatch --gres."));
  add(key("exclusive", KeyType::kBool, true, "Whole nodes, shared with nobody."));
  add(key("scheduler_options", KeyType::kString, "",
          "More lines for the top of the batch script: #SBATCH …"));
  add(launcher_key());
  add(ignored("regex_job_id", KeyType::kString,
              "Accepted for compatibility: sbatch --parsable needs none."));
  add(ignored("status_batch_size", KeyType::kInteger,
              "Accepted for compatibility: one squeue asks for all blocks."));
  add(ignored("move_files", KeyType::kBool, "Accepted for compatibility."));
  return keys;
}

Result<Settings> settings_from_json(const json& config) {
  Settings settings;
  int nodes_per_block = 1;
  try {
    settings.partition = text(config, "partition");
    settings.account = text(config, "account");
    settings.qos = text(config, "qos");
    settings.constraint = text(config, "constraint");
    settings.clusters = text(config, "clusters");
    settings.gres = text(config, "gres");
    settings.cores_per_node = number<int>(config, "cores_per_node");
    settings.gpus_per_node = number<int>(config, "gpus_per_node");
    settings.mem_per_node_gib = number<double>(config, "mem_per_node");
    settings.scheduler_options = text(config, "scheduler_options");
    settings.worker_init = text(config, "worker_init");
    settings.exclusive = number<bool>(config, "exclusive").value_or(true);
    settings.cmd_timeout_s = number<double>(config, "cmd_timeout").value_or(settings.cmd_timeout_s);
    nodes_per_block = number<int>(config, "nodes_per_block").value_or(1);
    if (const auto launcher = config.find("launcher");
        launcher != config.end() && launcher->is_object()) {
      settings.launcher_overrides = text(*launcher, "overrides");
      if (const auto type = text(*launcher, "type"); !type.empty()) settings.launcher = type;
    }
  } catch (const json::exception& error) {
    return fail(ErrorCode::kConfig, "provider slurm: configuration: {}", error.what());
  }
  if (auto checked = check(settings, nodes_per_block); !checked) return fail(checked.error());
  return settings;
}

}  // namespace farcall::providers::slurm
