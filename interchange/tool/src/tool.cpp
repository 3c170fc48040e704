#include "interchange/tool/tool.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>

#include "base/files.h"
#include "base/subprocess.h"
#include "interchange/config/config.h"
#include "providers_host/provider_host.h"

namespace farcall::interchange {

namespace fs = std::filesystem;
using nlohmann::json;
using providers::BlockRequest;
using providers::Provider;
using providers::ProviderModule;

namespace {

constexpr double kDiscoveryTimeLimitS = 5;  // of one command: somebody waits at a prompt

struct Loaded {
  EndpointConfig config;
  std::unique_ptr<Provider> provider;
};

Result<Loaded> load(const fs::path& file, const fs::path& state) {
  auto config = load_endpoint_config(file, provider_schema);
  if (!config) return fail(config.error());
  auto module = ProviderModule::load(providers::module_name(config->provider_type));
  if (!module) return fail(module.error());
  auto provider = module->create(config->provider, state);
  if (!provider) return fail(provider.error());
  return Loaded{std::move(*config), std::move(*provider)};
}

// Letters and digits of the endpoint's name: batch systems take little else.
std::string plain(std::string name) {
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '-';
  return name;
}

BlockRequest request_of(const EndpointConfig& config, const fs::path& directory,
                        const std::string& block) {
  BlockRequest request;
  request.job_name = "fc-" + plain(directory.filename()) + "-" + block;
  request.nodes = config.settings.scaling.nodes_per_block;
  request.directory = (directory / "blocks" / block).string();
  request.command = "exec " + shell_join({(program_directory() / "farcall-pilot").string(),
                                          "--credentials", request.directory + "/credentials"});
  request.walltime_s = config.settings.scaling.walltime_s;
  return request;
}

json defaults_of(const std::vector<ConfigKey>& keys) {
  json values;
  std::vector<ConfigProblem> problems, warnings;  // required keys are missing, and may be
  check_config_part(YamlNode{}, keys, "", values, problems, warnings);
  return values;
}

}  // namespace

Result<std::vector<ConfigKey>> provider_schema(const std::string& type) {
  auto module = ProviderModule::load(providers::module_name(type));
  if (!module) return fail(module.error());
  return module->schema();
}

Result<std::vector<std::string>> check_config(const fs::path& file) {
  auto loaded = load(file, fs::temp_directory_path());
  if (!loaded) return fail(loaded.error());
  return std::move(loaded->config.warnings);
}

Result<std::string> block_script(const fs::path& directory) {
  auto loaded = load(directory / "config.yaml", directory);
  if (!loaded) return fail(loaded.error());
  return loaded->provider->script(request_of(loaded->config, directory, "example"));
}

Result<std::string> try_block(const fs::path& directory) {
  auto loaded = load(directory / "config.yaml", directory);
  if (!loaded) return fail(loaded.error());
  const auto request = request_of(loaded->config, directory, "try-" + std::to_string(::getpid()));
  auto said = loaded->provider->try_submit(request);
  std::error_code ignored;
  fs::remove_all(request.directory, ignored);
  return said;
}

json discover(const std::string& only_provider) {
  json found = json::array();
  for (const auto& available : providers::list_providers()) {
    if (!available.problem.empty()) continue;
    if (!only_provider.empty() && available.name != providers::module_name(only_provider)) continue;
    auto module = ProviderModule::load_file(available.file);
    auto keys = module ? module->schema() : Result<std::vector<ConfigKey>>(fail(module.error()));
    if (!keys) continue;
    json config = defaults_of(*keys);
    config["cmd_timeout"] = kDiscoveryTimeLimitS;
    auto provider = module->create(config, fs::temp_directory_path());
    if (!provider) continue;
    const auto discovery = (*provider)->discover();
    if (!discovery.present) continue;
    json entry = providers::discovery_to_json(discovery);
    entry["provider"] = available.name;
    found.push_back(std::move(entry));
  }
  return found;
}

std::string config_reference_page() {
  return endpoint_config_reference({"LocalProvider", "SlurmProvider", "PBSProProvider"},
                                   provider_schema);
}

}  // namespace farcall::interchange
