#include "endpoint_files.h"

#include <algorithm>

#include "base/config.h"
#include "base/files.h"
#include "base/subprocess.h"

namespace farcall::cli {

namespace fs = std::filesystem;

fs::path endpoints_folder(const Invocation& invocation) { return invocation.home / "endpoints"; }
fs::path folder_of(const Invocation& invocation) {
  return endpoints_folder(invocation) / invocation.words[0];
}

std::vector<std::string> local_endpoints(const Invocation& invocation) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(endpoints_folder(invocation), ignored))
    if (fs::exists(entry.path() / "config.yaml")) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

Result<void> must_be_configured(const Invocation& invocation) {
  const std::string& name = invocation.words[0];
  if (fs::exists(folder_of(invocation) / "config.yaml")) return {};
  const auto names = local_endpoints(invocation);
  const auto near = suggest(name, names);
  return fail(ErrorCode::kNotFound,
              "no endpoint \"{}\" is configured in {}{}; {}`farcall endpoint configure {} "
              "--provider local|slurm|pbs` makes it",
              name, endpoints_folder(invocation).string(),
              near ? fmt::format(", did you mean \"{}\"?", *near) : "",
              names.empty() ? "" : fmt::format("there are: {}; ", fmt::join(names, ", ")), name);
}

Result<std::string> ask_interchange(const std::vector<std::string>& arguments) {
  std::vector<std::string> argv = {(program_directory() / kProgram).string()};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  auto output = run_command({.argv = argv,
                             .standard_input = "",
                             .working_directory = "",
                             .extra_environment = {},
                             .time_limit = std::chrono::seconds(180),
                             .output_limit = 1 << 20});
  if (!output) return fail(output.error());
  if (output->exit_code == 0) return output->out;
  std::string said = output->err.empty() ? output->out : output->err;
  said.erase(said.find_last_not_of(" \n") + 1);
  return fail(ErrorCode::kConfig, "{}", said);
}

Result<void> check_config_file(const fs::path& file) {
  if (!fs::exists(program_directory() / kProgram)) return {};
  auto said = ask_interchange({"--check-config", file.string()});
  if (!said) return fail(said.error());
  return {};
}

}  // namespace farcall::cli
