#include <nlohmann/json.hpp>

#include "providers/command_text.h"
#include "providers/keys.h"
#include "providers_pbs/pbs_text.h"

namespace farcall::providers::pbs {

using nlohmann::json;

namespace {

constexpr const char* kOwnLauncher = "";

Result<void> check(const Settings& settings) {
  for (const auto& [name, value] :
       {std::pair{"queue", &settings.queue}, std::pair{"account", &settings.account},
        std::pair{"select_options", &settings.select_options},
        std::pair{"place", &settings.place}}) {
    if (value->find('\n') != std::string::npos)
      return fail(ErrorCode::kConfig, "provider pbspro: {} has a line break; it must be one line",
                  name);
  }
  for (const auto line : split(settings.changes.scheduler_options, '\n')) {
    const auto name = directive_of_line(trimmed(line));
    if (name == "N" || name == "J")
      return fail(ErrorCode::kConfig,
                  "provider pbspro: scheduler_options sets -{}: farcall names its jobs itself, one "
                  "at a time, to find them again",
                  *name);
  }
  return {};
}

}  // namespace

std::vector<ConfigKey> schema() {
  std::vector<ConfigKey> keys = common_keys();
  key_named(keys, "walltime").default_value = 1200;
  ConfigKey& limit = key_named(keys, "cmd_timeout");
  limit.default_value = 120;
  limit.help += " A login host that has run out of privileged ports makes each command wait 61 s.";
  const auto add = [&](ConfigKey more) { keys.push_back(std::move(more)); };
  add(make_key("queue", KeyType::kString, nullptr, "Queue; none: the server's default."));
  add(make_key("account", KeyType::kString, nullptr, "Account (project) that is charged."));
  add(at_least(make_key("cpus_per_node", KeyType::kInteger, 1, "Cores asked for on each node."),
               1));
  add(make_key("select_options", KeyType::kString, "",
               "More resources of each node, as in select: ngpus=4:mem=200gb."));
  add(make_key(
      "place", KeyType::kString, "scatter",
      "How nodes are chosen; scatter: each on a host of its own; scatter:excl: shared with "
      "nobody."));
  for (auto& more : directive_keys("More lines for the top of the batch script, such as #PBS -l "
                                   "filesystems=home; one that is said already is replaced."))
    add(std::move(more));
  add(launcher_key(kOwnLauncher));
  return keys;
}

Result<Settings> settings_from_json(const json& config) {
  Settings settings;
  try {
    settings.queue = text_value(config, "queue");
    settings.account = text_value(config, "account");
    settings.select_options = text_value(config, "select_options");
    settings.place = value_if_set<std::string>(config, "place").value_or(settings.place);
    settings.cpus_per_node = value_if_set<int>(config, "cpus_per_node").value_or(1);
    settings.changes = directive_changes(config);
    settings.worker_init = text_value(config, "worker_init");
    settings.cmd_timeout_s =
        value_if_set<double>(config, "cmd_timeout").value_or(settings.cmd_timeout_s);
    settings.records = text_value(config, "directory") + "/pbs-jobs";
    auto launcher = launcher_from_json(config, kOwnLauncher);
    if (!launcher)
      return fail(launcher.error().code, "provider pbspro: {}", launcher.error().message);
    settings.launcher = std::move(*launcher);
  } catch (const json::exception& error) {
    return fail(ErrorCode::kConfig, "provider pbspro: configuration: {}", error.what());
  }
  if (auto checked = check(settings); !checked) return fail(checked.error());
  return settings;
}

}  // namespace farcall::providers::pbs
