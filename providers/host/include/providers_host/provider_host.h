// Finding and loading provider modules, and calling them through the same Provider interface.
// Loading is for the start of a program; the providers it makes are called by one helper thread at
// a time, and block.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "providers/provider.h"

namespace farcall::providers {

// $FARCALL_PROVIDER_PATH (folders separated by ':'), then <program dir>/../lib/farcall/providers.
std::vector<std::filesystem::path> provider_path();

// "SlurmProvider" -> "slurm", "LocalProvider" -> "local", "PBSProProvider" -> "pbspro"; a module's
// own name stays as it is.
std::string module_name(std::string_view provider_type);

// A loaded module. It stays loaded until the program ends: its code may be in use anywhere.
class ProviderModule {
 public:
  // Refuses with kNotFound (lists what there is), kVersion (another interface version) or kConfig
  // (cannot be loaded, is no provider); the message names the file and the reason.
  static Result<ProviderModule> load(
      const std::string& name, const std::vector<std::filesystem::path>& path = provider_path());
  static Result<ProviderModule> load_file(const std::filesystem::path& file);

  const std::string& name() const { return name_; }
  const std::string& version() const { return version_; }
  const std::filesystem::path& file() const { return file_; }

  // The keys of `engine.provider.*` except `type`.
  Result<std::vector<ConfigKey>> schema() const;
  // `config`: what check_config_part() made of them; `directory`: a folder for the provider's own
  // files, on a file system that outlives this program. The provider holds nothing of `this`.
  Result<std::unique_ptr<Provider>> create(nlohmann::json config,
                                           const std::filesystem::path& directory) const;

 private:
  std::string name_, version_;
  std::filesystem::path file_;
  const farcall_provider_table* table_ = nullptr;
};

struct AvailableProvider {
  std::string name;
  std::filesystem::path file;
  std::string version;
  std::string problem;  // why it cannot be used, "" if it can
};
// Every .so on the path, the first of each name, by name.
std::vector<AvailableProvider> list_providers(
    const std::vector<std::filesystem::path>& path = provider_path());

}  // namespace farcall::providers
