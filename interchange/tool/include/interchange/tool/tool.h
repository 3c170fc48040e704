// What can be asked about an endpoint without serving it: is its configuration right, what would
// its batch jobs look like, what does this host have to offer. Every call may run scheduler
// commands.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/error.h"

namespace farcall::interchange {

// The keys of a provider's module, for the parser.
Result<std::vector<ConfigKey>> provider_schema(const std::string& type);

// The warnings of a configuration that is right, also in what only the provider itself can judge.
Result<std::vector<std::string>> check_config(const std::filesystem::path& file);

// The batch script of the endpoint in `directory`, as a block would be submitted now.
Result<std::string> block_script(const std::filesystem::path& directory);
// What the scheduler says to it; nothing runs.
Result<std::string> try_block(const std::filesystem::path& directory);

// [{"provider": "slurm", "what": "slurm-wlm 22.05.8", "choices": {"partition": [{"value": …}]}}]:
// the schedulers that answer here.
nlohmann::json discover(const std::string& only_provider = "");

// docs/configuration.md
std::string config_reference_page();

}  // namespace farcall::interchange
