#include "providers/keys.h"

namespace farcall::providers {

ConfigKey make_key(const char* name, KeyType type, nlohmann::json default_value, const char* help) {
  ConfigKey key;
  key.name = name;
  key.type = type;
  key.default_value = std::move(default_value);
  key.help = help;
  return key;
}

ConfigKey ignored_key(const char* name, KeyType type, const char* help) {
  ConfigKey key = make_key(name, type, nullptr, help);
  key.ignored = true;
  return key;
}

ConfigKey at_least(ConfigKey key, double minimum, const char* unit) {
  key.minimum = minimum;
  key.unit = unit;
  return key;
}

std::string text_value(const nlohmann::json& config, const char* name) {
  return value_if_set<std::string>(config, name).value_or("");
}

}  // namespace farcall::providers
