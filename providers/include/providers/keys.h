// Building a provider's table of configuration keys, and reading the values of a checked
// configuration.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/config.h"

namespace farcall::providers {

ConfigKey make_key(const char* name, KeyType type, nlohmann::json default_value, const char* help);
// Accepted for configurations that come from elsewhere, without a meaning here.
ConfigKey ignored_key(const char* name, KeyType type, const char* help);
ConfigKey at_least(ConfigKey key, double minimum, const char* unit = "");

// "" and nothing when the key is absent or null; nlohmann's exceptions for another type.
std::string text_value(const nlohmann::json& config, const char* name);
template <class T>
std::optional<T> value_if_set(const nlohmann::json& config, const char* name) {
  const auto found = config.find(name);
  if (found == config.end() || found->is_null()) return std::nullopt;
  return found->get<T>();
}

}  // namespace farcall::providers
