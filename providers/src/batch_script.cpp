#include "providers/batch_script.h"

#include <algorithm>

#include "providers/command_text.h"
#include "providers/keys.h"

namespace farcall::providers {

std::vector<ConfigKey> directive_keys(const char* scheduler_options_help) {
  return {make_key("scheduler_options", KeyType::kString, "", scheduler_options_help),
          make_key("drop_options", KeyType::kStringList, nlohmann::json::array(),
                   "Directives of the batch script that are left out, by name, such as "
                   "exclusive; `farcall endpoint script NAME` shows them.")};
}

DirectiveChanges directive_changes(const nlohmann::json& config) {
  DirectiveChanges changes;
  changes.scheduler_options = text_value(config, "scheduler_options");
  changes.drop =
      value_if_set<std::vector<std::string>>(config, "drop_options").value_or(changes.drop);
  return changes;
}

std::vector<Directive> kept_directives(std::vector<Directive> own, const DirectiveChanges& changes,
                                       const DirectiveName& name_of_line) {
  std::vector<std::string> gone = changes.drop;
  for (const auto line : split(changes.scheduler_options, '\n'))
    if (auto name = name_of_line(trimmed(line))) gone.push_back(*name);
  std::erase_if(own, [&](const Directive& directive) {
    return std::find(gone.begin(), gone.end(), directive.name) != gone.end();
  });
  return own;
}

ConfigKey launcher_key(const std::string& own) {
  ConfigKey launcher = make_key("launcher", KeyType::kMap, nullptr,
                                "How the batch job starts its pilots, one on each node.");
  ConfigKey type =
      make_key("type", KeyType::kString, own.empty() ? nlohmann::json() : nlohmann::json(own),
               "MpiExecLauncher and MpiRunLauncher start the pilots with MPI (the death of a node "
               "ends them all), WrappedLauncher with a command of yours; all others mean the "
               "scheduler's own way.");
  if (!own.empty()) type.choices.push_back(own);
  for (const char* name : {"SimpleLauncher", "SingleNodeLauncher", "MpiExecLauncher",
                           "MpiRunLauncher", "WrappedLauncher"})
    type.choices.emplace_back(name);
  launcher.keys = {
      type,
      make_key("overrides", KeyType::kString, "", "More options of srun or mpiexec."),
      make_key(
          "bind_cmd", KeyType::kString, "--bind-to",
          "MpiExecLauncher: the option that, given none, keeps mpiexec from binding to cores."),
      make_key("bash_location", KeyType::kString, "/bin/bash",
               "MpiRunLauncher: the shell on the nodes."),
      make_key("prepend", KeyType::kString, "",
               "WrappedLauncher: what stands in front of the pilot's command."),
      ignored_key("debug", KeyType::kBool, "the job's output is always kept"),
      ignored_key("fail_on_any", KeyType::kBool,
                  "a pilot that fails does not end the others of its block")};
  return launcher;
}

Result<Launcher> launcher_from_json(const nlohmann::json& config, const std::string& own) {
  Launcher launcher;
  const auto found = config.find("launcher");
  if (found == config.end() || !found->is_object()) return launcher;
  launcher.type = text_value(*found, "type");
  if (launcher.type == own) launcher.type.clear();
  launcher.overrides = text_value(*found, "overrides");
  launcher.bind_cmd = value_if_set<std::string>(*found, "bind_cmd").value_or(launcher.bind_cmd);
  launcher.bash_location =
      value_if_set<std::string>(*found, "bash_location").value_or(launcher.bash_location);
  launcher.prepend = text_value(*found, "prepend");
  for (const auto& [name, value] :
       {std::pair{"overrides", &launcher.overrides}, std::pair{"bind_cmd", &launcher.bind_cmd},
        std::pair{"bash_location", &launcher.bash_location},
        std::pair{"prepend", &launcher.prepend}}) {
    if (value->find('\n') != std::string::npos)
      return fail(ErrorCode::kConfig, "launcher.{} has a line break; it must be one line", name);
  }
  if (launcher.type == "WrappedLauncher" && launcher.prepend.empty())
    return fail(ErrorCode::kConfig,
                "launcher.prepend is missing: the command that WrappedLauncher puts in front");
  return launcher;
}

std::string launcher_command(const Launcher& launcher, int nodes, const std::string& program) {
  const auto with = [](const std::string& words) { return words.empty() ? "" : words + " "; };
  if (launcher.type == "WrappedLauncher") return launcher.prepend + " /bin/bash " + program;
  // One on each node: what Open MPI takes for a node's slots otherwise is its cores.
  constexpr std::string_view kOneEach =
      "env OMPI_MCA_rmaps_base_mapping_policy=ppr:1:node "
      "PRTE_MCA_rmaps_default_mapping_policy=ppr:1:node";
  if (launcher.type == "MpiRunLauncher")
    return fmt::format("{} mpirun -np {} --hostfile \"$farcall_hosts\" {}{} {}", kOneEach, nodes,
                       with(launcher.overrides), launcher.bash_location, program);
  return fmt::format("{} mpiexec {}-n {} --hostfile \"$farcall_hosts\" {}/bin/bash {}", kOneEach,
                     launcher.bind_cmd.empty() ? "" : launcher.bind_cmd + " none ", nodes,
                     with(launcher.overrides), program);
}

}  // namespace farcall::providers
