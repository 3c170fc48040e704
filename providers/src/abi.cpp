// The module's side of the binary interface: turns JSON requests into calls of a Provider.
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "providers/provider.h"

namespace farcall::providers {

using nlohmann::json;

namespace {

// replace: a scheduler's text need not be UTF-8, and must not cost us the answer.
char* as_c_string(const json& value) {
  const std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  char* copy = static_cast<char*>(std::malloc(text.size() + 1));
  FARCALL_CHECK(copy != nullptr, "out of memory");
  std::memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
}

json failure(const Error& error) { return {{"error", error_to_json(error)}}; }

json answer(Provider& provider, const json& request) {
  const auto op = request.at("op").get<std::string>();
  if (op == "discover") return {{"ok", discovery_to_json(provider.discover())}};
  if (op == "submit" || op == "script" || op == "try_submit") {
    const auto block = request_from_json(request.at("request"));
    if (!block) return failure(block.error());
    if (op == "submit") {
      const auto reply = provider.submit(*block);
      if (!reply) return failure(reply.error());
      return {{"ok", {{"job_id", reply->job_id}}}};
    }
    const bool trying = op == "try_submit";
    const auto text = trying ? provider.try_submit(*block) : provider.script(*block);
    if (!text) return failure(text.error());
    return {{"ok", {{trying ? "text" : "script", *text}}}};
  }
  if (op == "status") {
    const auto jobs = provider.status(request.at("job_ids").get<std::vector<std::string>>());
    if (!jobs) return failure(jobs.error());
    json list = json::array();
    for (const auto& job : *jobs) list.push_back(status_to_json(job));
    return {{"ok", {{"jobs", std::move(list)}}}};
  }
  if (op == "find_by_name") {
    const auto ids = provider.find_by_name(request.at("job_name").get<std::string>());
    if (!ids) return failure(ids.error());
    return {{"ok", {{"job_ids", *ids}}}};
  }
  if (op == "cancel") {
    const auto done = provider.cancel(request.at("job_ids").get<std::vector<std::string>>());
    if (!done) return failure(done.error());
    return {{"ok", json::object()}};
  }
  return failure({ErrorCode::kInvalidArgument, "the provider knows no operation \"" + op + "\""});
}

Error from_exception(const std::exception& error) {
  return {ErrorCode::kInternal, std::string("exception in the provider: ") + error.what()};
}

Provider* unwrap(farcall_provider* provider) { return reinterpret_cast<Provider*>(provider); }

}  // namespace

char* abi_schema(std::vector<ConfigKey> (*schema)()) noexcept {
  return as_c_string(keys_to_json(schema()));
}

farcall_provider* abi_create(CreateFunction create, const char* config_json,
                             char** error_json) noexcept {
  *error_json = nullptr;
  try {
    auto created = create(json::parse(config_json));
    if (created) return reinterpret_cast<farcall_provider*>(created->release());
    *error_json = as_c_string(error_to_json(created.error()));
  } catch (const std::exception& error) {
    *error_json = as_c_string(error_to_json(from_exception(error)));
  }
  return nullptr;
}

void abi_destroy(farcall_provider* provider) noexcept { delete unwrap(provider); }

char* abi_call(farcall_provider* provider, const char* request_json) noexcept {
  try {
    return as_c_string(answer(*unwrap(provider), json::parse(request_json)));
  } catch (const std::exception& error) {
    return as_c_string(failure(from_exception(error)));
  }
}

void abi_free_string(char* text) noexcept { std::free(text); }

}  // namespace farcall::providers
