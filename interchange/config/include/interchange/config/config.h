// The endpoint's config.yaml, in Globus Compute's shape. docs/configuration.md is made from its
// table.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/config.h"
#include "interchange/core/settings.h"

namespace farcall::interchange {

struct EndpointConfig {
  Settings settings;          // without what comes from elsewhere: endpoint id, instance, host …
  std::string provider_type;  // "SlurmProvider"
  nlohmann::json provider;    // its keys, defaults filled in
  std::string display_name;
  std::string python;
  std::string log_level;
  std::string working_dir;           // of sandboxes; empty: in the pilot's scratch directory
  std::string staging_directory;     // of large results; empty: results/ in the endpoint's own
  int staging_compression = 0;       // gzip's level for them
  Duration result_ttl{0};            // of those
  std::vector<std::string> preload;  // Python modules
  std::uint32_t worker_recycle_after = 0;
  std::uint32_t mpi_pool_ranks_per_node = 0;
  std::string cpu_affinity = "none";
  std::uint32_t max_processes = 2000;     // of one task
  std::vector<std::string> accelerators;  // GPUs of each node …
  bool detect_accelerators = true;        // … or those that are found there
  std::vector<std::string> addresses;     // hosts, addresses or interface names; empty: all
  int port_first = 0, port_last = 0;      // 0: any
  Duration orphan_timeout{0};
  std::vector<std::string> warnings;  // "file:line:column: text"

  std::filesystem::path results_directory(const std::filesystem::path& endpoint) const {
    return staging_directory.empty()
               ? endpoint / "results"
               : std::filesystem::path(staging_directory) / endpoint.filename();
  }
};

// The keys that a provider of that type has; kNotFound when there is none.
using ProviderSchema = std::function<Result<std::vector<ConfigKey>>(const std::string& type)>;

// kConfig with all problems at once.
Result<EndpointConfig> parse_endpoint_config(const std::string& text, const std::string& file_name,
                                             const ProviderSchema& schema);
Result<EndpointConfig> load_endpoint_config(const std::filesystem::path& file,
                                            const ProviderSchema& schema);

// Markdown, with the keys of these providers.
std::string endpoint_config_reference(const std::vector<std::string>& provider_types,
                                      const ProviderSchema& schema);

}  // namespace farcall::interchange
