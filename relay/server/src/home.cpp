#include "relay/server/home.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "base/files.h"

namespace farcall::relay {

using nlohmann::json;

const std::vector<ConfigKey>& config_keys() {
  static const std::vector<ConfigKey> keys = [] {
    auto key = [](std::string name, KeyType type, json value, std::string unit, double minimum,
                  std::string help) {
      ConfigKey k;
      k.name = std::move(name);
      k.type = type;
      k.default_value = std::move(value);
      k.unit = std::move(unit);
      if (minimum > 0) k.minimum = minimum;
      k.help = std::move(help);
      return k;
    };
    return std::vector<ConfigKey>{
        key("listen", KeyType::kString, "tcp://127.0.0.1:7400", "", 0,
            "Address to listen on; port 0 takes any free one."),
        key("public_address", KeyType::kString, "", "", 0,
            "Address that invitations tell to others; empty: the one it listens on."),
        key("result_ttl", KeyType::kDuration, 7.0 * 86400, "s", 60,
            "How long a submission is kept after all its results were collected."),
        key("uncollected_ttl", KeyType::kDuration, 30.0 * 86400, "s", 3600,
            "How long a finished submission is kept that was not collected."),
        key("unsealed_limit", KeyType::kDuration, 3600.0, "s", 10,
            "A submission that stays incomplete for so long is cancelled."),
        key("inline_bytes_max", KeyType::kInteger, 8 << 20, "bytes", 1024,
            "Largest argument set, result and function."),
        key("chunk_cache_mib", KeyType::kInteger, 256, "MiB", 1,
            "Arguments kept in memory so that they need not be read again."),
        key("row_cache_mib", KeyType::kInteger, 64, "MiB", 1,
            "Results kept in memory so that they need not be read again."),
    };
  }();
  return keys;
}

namespace {

Result<json> read_json(const std::filesystem::path& path) {
  auto text = read_secret_file(path);
  if (!text) return fail(text.error());
  json value = json::parse(*text, nullptr, false);
  if (!value.is_object())
    return fail(ErrorCode::kCorrupt, "{} is no JSON object: restore it, or move it away",
                path.string());
  return value;
}

Result<KeyPair> keys_of(const json& value, const std::filesystem::path& path) {
  KeyPair keys{value.value("public_key", ""), value.value("secret_key", "")};
  if (auto derived = public_key_of(keys.secret_key); !derived || *derived != keys.public_key)
    return fail(ErrorCode::kCorrupt, "{}: public_key and secret_key do not belong together",
                path.string());
  return keys;
}

Result<KeyPair> server_keys(const std::filesystem::path& path) {
  auto value = read_json(path);
  if (value) return keys_of(*value, path);
  if (value.error().code != ErrorCode::kNotFound) return fail(value.error());
  const KeyPair keys = make_key_pair();
  const json made{{"public_key", keys.public_key}, {"secret_key", keys.secret_key}};
  if (auto done = write_file(path, made.dump(2) + "\n", 0600); !done) return fail(done.error());
  return keys;
}

std::string user_name() {
  for (const char* variable : {"USER", "LOGNAME"})
    if (const char* name = std::getenv(variable); name != nullptr && *name != '\0') return name;
  const passwd* entry = ::getpwuid(::getuid());
  return entry == nullptr ? fmt::format("uid{}", ::getuid()) : entry->pw_name;
}

Duration seconds(const json& value) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(value.get<double>()));
}

}  // namespace

Result<ServerOptions> read_home(const std::filesystem::path& home, const std::string& listen) {
  const std::filesystem::path directory = home / "relay";
  for (const auto& folder : {home, directory})
    if (auto made = make_directory(folder, 0700); !made) return fail(made.error());
  const std::filesystem::path path = directory / "config.yaml";
  auto text = read_file(path);
  if (!text && text.error().code != ErrorCode::kNotFound) return fail(text.error());
  YamlNode root;
  root.kind = YamlNode::Kind::kMapping;
  if (text) {
    auto parsed = parse_yaml(*text, path.string());
    if (!parsed) return fail(parsed.error());
    if (parsed->kind != YamlNode::Kind::kNull) root = std::move(*parsed);
  }
  auto config = check_config(root, config_keys(), path.string());
  if (!config) return fail(config.error());
  auto keys = server_keys(directory / "key");
  if (!keys) return fail(keys.error());
  const json& v = config->values;
  ServerOptions options;
  options.listen = listen.empty() ? v.at("listen").get<std::string>() : listen;
  options.blobs = directory / "blobs";
  options.public_address = v.at("public_address").get<std::string>();
  options.keys = *keys;
  options.core.result_ttl = seconds(v.at("result_ttl"));
  options.core.uncollected_ttl = seconds(v.at("uncollected_ttl"));
  options.core.unsealed_limit = seconds(v.at("unsealed_limit"));
  options.core.inline_bytes_max = v.at("inline_bytes_max").get<std::uint64_t>();
  options.core.chunk_cache_bytes = v.at("chunk_cache_mib").get<std::uint64_t>() << 20;
  options.core.row_cache_bytes = v.at("row_cache_mib").get<std::uint64_t>() << 20;
  return options;
}

Result<Identity> read_identity(const std::filesystem::path& home) {
  const std::filesystem::path path = home / "identity";
  auto value = read_json(path);
  if (!value && value.error().code != ErrorCode::kNotFound) return fail(value.error());
  if (!value) {
    const Identity made{user_name(), make_key_pair()};
    const json text{{"relay", ""},
                    {"server_key", ""},
                    {"public_key", made.keys.public_key},
                    {"secret_key", made.keys.secret_key},
                    {"user", made.user}};
    if (auto done = write_file(path, text.dump(2) + "\n", 0600); !done) return fail(done.error());
    return made;
  }
  auto keys = keys_of(*value, path);
  if (!keys) return fail(keys.error());
  std::string user = value->value("user", "");
  return Identity{user.empty() ? user_name() : user, *keys};
}

Result<void> publish_address(const std::filesystem::path& home, const Identity& identity,
                             const std::string& address, const std::string& server_key) {
  const json text{{"address", address}, {"server_key", server_key}};
  auto done = write_file(home / "relay" / "address", text.dump(2) + "\n", 0600);
  if (!done) return done;
  auto value = read_json(home / "identity");
  if (!value) return fail(value.error());
  const std::string known = value->value("server_key", "");
  if (!known.empty() && known != server_key) return {};
  if (known == server_key && value->value("relay", "") == address) return {};
  (*value)["relay"] = address;
  (*value)["server_key"] = server_key;
  (*value)["user"] = identity.user;
  return write_file(home / "identity", value->dump(2) + "\n", 0600);
}

}  // namespace farcall::relay
