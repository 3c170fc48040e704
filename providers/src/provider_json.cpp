#include <nlohmann/json.hpp>

#include "names.h"
#include "providers/provider.h"

namespace farcall::providers {

using nlohmann::json;

namespace {

// nlohmann's exceptions end here: a module may send anything.
template <class T, class Read>
Result<T> reading(const char* what, Read read) {
  try {
    return read();
  } catch (const json::exception& error) {
    return fail(ErrorCode::kCorrupt, "{} of the provider interface: {}", what, error.what());
  }
}

template <class T>
void put_optional(json& out, const char* name, const std::optional<T>& value) {
  if (value) out[name] = *value;
}

template <class T>
void get_optional(const json& in, const char* name, std::optional<T>& value) {
  if (const auto found = in.find(name); found != in.end() && !found->is_null()) {
    value = found->template get<T>();
  }
}

json key_to_json(const ConfigKey& key) {
  json out = {{"name", key.name},
              {"type", name_of(kKeyTypeNames, key.type)},
              {"default", key.default_value},
              {"help", key.help}};
  if (!key.unit.empty()) out["unit"] = key.unit;
  put_optional(out, "minimum", key.minimum);
  put_optional(out, "maximum", key.maximum);
  if (!key.choices.empty()) out["choices"] = key.choices;
  if (key.required) out["required"] = true;
  if (key.secret) out["secret"] = true;
  if (key.ignored) out["ignored"] = true;
  if (!key.keys.empty()) out["keys"] = keys_to_json(key.keys);
  return out;
}

Result<ConfigKey> key_from_json(const json& in) {
  ConfigKey key;
  key.name = in.at("name").get<std::string>();
  const auto type = value_of(kKeyTypeNames, in.at("type").get<std::string>());
  if (!type) {
    return fail(ErrorCode::kCorrupt, "configuration key {}: unknown type {}", key.name,
                in.at("type").dump());
  }
  key.type = *type;
  key.default_value = in.value("default", json());
  key.help = in.value("help", "");
  key.unit = in.value("unit", "");
  get_optional(in, "minimum", key.minimum);
  get_optional(in, "maximum", key.maximum);
  key.choices = in.value("choices", std::vector<std::string>());
  key.required = in.value("required", false);
  key.secret = in.value("secret", false);
  key.ignored = in.value("ignored", false);
  if (const auto inner = in.find("keys"); inner != in.end()) {
    auto keys = keys_from_json(*inner);
    if (!keys) return fail(keys.error());
    key.keys = std::move(*keys);
  }
  return key;
}

}  // namespace

json request_to_json(const BlockRequest& request) {
  return {{"job_name", request.job_name},     {"nodes", request.nodes},
          {"command", request.command},       {"directory", request.directory},
          {"walltime_s", request.walltime_s}, {"exclude_nodes", request.exclude_nodes}};
}

Result<BlockRequest> request_from_json(const json& in) {
  return reading<BlockRequest>("block request", [&]() -> Result<BlockRequest> {
    BlockRequest request;
    in.at("job_name").get_to(request.job_name);
    in.at("nodes").get_to(request.nodes);
    in.at("command").get_to(request.command);
    in.at("directory").get_to(request.directory);
    in.at("walltime_s").get_to(request.walltime_s);
    request.exclude_nodes = in.value("exclude_nodes", request.exclude_nodes);
    return request;
  });
}

json status_to_json(const JobStatus& status) {
  json out = {{"job_id", status.job_id},
              {"state", job_state_name(status.state)},
              {"listed", status.listed},
              {"job_name", status.job_name},
              {"word", status.word},
              {"reason", status.reason},
              {"ended_by", ended_by_name(status.ended_by)},
              {"nodes", status.nodes}};
  put_optional(out, "exit_code", status.exit_code);
  put_optional(out, "signal", status.signal);
  put_optional(out, "remaining_s", status.remaining_s);
  put_optional(out, "restarts", status.restarts);
  return out;
}

Result<JobStatus> status_from_json(const json& in) {
  return reading<JobStatus>("job status", [&]() -> Result<JobStatus> {
    JobStatus status;
    in.at("job_id").get_to(status.job_id);
    // Words of a newer module keep the job's state unknown rather than make the answer unusable.
    status.state =
        value_of(kJobStateNames, in.at("state").get<std::string>()).value_or(JobState::kUnknown);
    status.listed = in.value("listed", true);
    status.job_name = in.value("job_name", "");
    status.word = in.value("word", "");
    status.reason = in.value("reason", "");
    status.ended_by =
        value_of(kEndedByNames, in.value("ended_by", "unknown")).value_or(EndedBy::kUnknown);
    status.nodes = in.value("nodes", std::vector<std::string>());
    get_optional(in, "exit_code", status.exit_code);
    get_optional(in, "signal", status.signal);
    get_optional(in, "remaining_s", status.remaining_s);
    get_optional(in, "restarts", status.restarts);
    return status;
  });
}

json discovery_to_json(const Discovery& discovery) {
  json choices = json::object();
  for (const auto& [key, list] : discovery.choices) {
    choices[key] = json::array();
    for (const auto& each : list)
      choices[key].push_back(
          {{"value", each.value}, {"note", each.note}, {"preferred", each.preferred}});
  }
  return {{"present", discovery.present}, {"what", discovery.what}, {"choices", choices}};
}

Result<Discovery> discovery_from_json(const json& in) {
  return reading<Discovery>("discovery", [&]() -> Result<Discovery> {
    Discovery discovery;
    in.at("present").get_to(discovery.present);
    discovery.what = in.value("what", "");
    const json choices = in.value("choices", json::object());  // outlives the loop over it
    for (const auto& [key, list] : choices.items())
      for (const auto& each : list)
        discovery.choices[key].push_back({each.at("value").get<std::string>(),
                                          each.value("note", ""), each.value("preferred", false)});
    return discovery;
  });
}

json keys_to_json(const std::vector<ConfigKey>& keys) {
  json out = json::array();
  for (const auto& key : keys) out.push_back(key_to_json(key));
  return out;
}

Result<std::vector<ConfigKey>> keys_from_json(const json& in) {
  return reading<std::vector<ConfigKey>>("schema", [&]() -> Result<std::vector<ConfigKey>> {
    std::vector<ConfigKey> keys;
    for (const auto& item : in.get_ref<const json::array_t&>()) {
      auto key = key_from_json(item);
      if (!key) return fail(key.error());
      keys.push_back(std::move(*key));
    }
    return keys;
  });
}

json error_to_json(const Error& error) {
  return {{"code", error_name(error.code)}, {"message", error.message}};
}

Error error_from_json(const json& in) {
  Error error{ErrorCode::kInternal, "the provider module gave no reason: " + in.dump()};
  if (!in.is_object() || !in.contains("code") || !in["code"].is_string()) return error;
  const auto name = in["code"].get<std::string>();
#define FARCALL_MATCH_CODE(enumerator, number, text, exit_code, meaning) \
  if (name == text) error.code = ErrorCode::enumerator;
  FARCALL_ERROR_TABLE(FARCALL_MATCH_CODE)
#undef FARCALL_MATCH_CODE
  if (in.contains("message") && in["message"].is_string()) {
    error.message = in["message"].get<std::string>();
  }
  return error;
}

}  // namespace farcall::providers
