#include "providers/provider.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "names.h"

namespace farcall::providers {

std::string_view job_state_name(JobState state) { return name_of(kJobStateNames, state); }
std::string_view ended_by_name(EndedBy ended_by) { return name_of(kEndedByNames, ended_by); }

JobStatus not_listed(const std::string& job_id) {
  JobStatus status;
  status.job_id = job_id;
  status.listed = false;
  status.reason = "not listed";
  return status;
}

Result<std::string> Provider::try_submit(const BlockRequest& request) {
  return fail(ErrorCode::kNotFound,
              "job {}: this provider cannot try a submission without making it", request.job_name);
}

Result<void> check_request(const BlockRequest& request) {
  const auto& name = request.job_name;
  const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  });
  if (name.empty() || name.size() > 128 || !plain || name[0] == '-' || name[0] == '.') {
    return fail(ErrorCode::kInvalidArgument,
                "job name \"{}\": needs 1 to 128 letters, digits, - _ . and starts with a letter "
                "or digit",
                name);
  }
  if (request.nodes < 1) {
    return fail(ErrorCode::kInvalidArgument, "job {}: {} nodes asked for, at least 1 is needed",
                name, request.nodes);
  }
  if (request.command.empty()) {
    return fail(ErrorCode::kInvalidArgument, "job {}: no command", name);
  }
  if (request.directory.empty() || request.directory[0] != '/' ||
      request.directory.find('\n') != std::string::npos) {
    return fail(ErrorCode::kInvalidArgument, "job {}: directory \"{}\" is no absolute path", name,
                request.directory);
  }
  if (!(request.walltime_s > 0)) {
    return fail(ErrorCode::kInvalidArgument, "job {}: walltime of {} s, more than 0 is needed",
                name, request.walltime_s);
  }
  return {};
}

std::vector<ConfigKey> common_keys() {
  std::vector<ConfigKey> keys;
  const auto number = [&](const char* name, KeyType type, nlohmann::json value, double minimum,
                          const char* help) {
    ConfigKey key;
    key.name = name;
    key.type = type;
    key.default_value = std::move(value);
    key.minimum = minimum;
    key.help = help;
    if (type == KeyType::kDuration) key.unit = "s";
    keys.push_back(std::move(key));
  };
  number("nodes_per_block", KeyType::kInteger, 1, 1, "Nodes of one batch job.");
  number("init_blocks", KeyType::kInteger, 1, 0, "Blocks submitted at the start.");
  number("min_blocks", KeyType::kInteger, 0, 0, "Blocks kept even when there is no work.");
  number("max_blocks", KeyType::kInteger, 1, 0, "Blocks at the same time, waiting ones included.");
  number("parallelism", KeyType::kNumber, 1.0, 0,
         "Slots asked for per waiting task: 1 gives each task a slot, 0.5 every second one.");
  keys.back().maximum = 1;
  number("walltime", KeyType::kDuration, 600, 1, "Time limit of a block.");
  number("cmd_timeout", KeyType::kDuration, 30, 1,
         "Time limit of one scheduler command; when submitting takes longer, its outcome is "
         "unknown.");
  ConfigKey init;
  init.name = "worker_init";
  init.default_value = "";
  init.help = "Shell lines run in the batch job before anything else, such as module load.";
  keys.push_back(std::move(init));
  return keys;
}

ConfigKey& key_named(std::vector<ConfigKey>& keys, std::string_view name) {
  const auto found = std::find_if(keys.begin(), keys.end(),
                                  [&](const ConfigKey& key) { return key.name == name; });
  FARCALL_CHECK(found != keys.end(), "no configuration key " + std::string(name));
  return *found;
}

}  // namespace farcall::providers
