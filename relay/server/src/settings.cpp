// What a relay finds or makes in its home.
#include <pwd.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "base/files.h"
#include "base/log.h"
#include "relay/server/server.h"

namespace farcall::relay {

namespace {

using nlohmann::json;

std::vector<ConfigKey> config_keys() {
  const double day = 86400;
  return {
      {.name = "listen",
       .default_value = "tcp://127.0.0.1:7400",
       .help = "Address to listen on; port 0: any free one."},
      {.name = "result_ttl",
       .type = KeyType::kDuration,
       .default_value = 7 * day,
       .unit = "s",
       .minimum = 0,
       .help = "How long results are kept after they were collected."},
      {.name = "uncollected_ttl",
       .type = KeyType::kDuration,
       .default_value = 30 * day,
       .unit = "s",
       .minimum = 0,
       .help = "How long results are kept that nobody has collected."},
      {.name = "inline_bytes_max",
       .type = KeyType::kInteger,
       .default_value = 8 << 20,
       .unit = "bytes",
       .minimum = 1024,
       .maximum = 512 << 20,
       .help = "The largest argument set and result."},
  };
}

std::string login_name() {
  if (const passwd* entry = ::getpwuid(::geteuid())) return entry->pw_name;
  const char* user = std::getenv("USER");
  return user != nullptr ? user : "owner";
}

Result<json> read_json(const std::filesystem::path& path) {
  auto text = read_secret_file(path);
  if (!text) return fail(text.error());
  json value = json::parse(*text, nullptr, false);
  if (!value.is_object()) return fail(ErrorCode::kCorrupt, "{} is no JSON object: move it away to make new keys", path.string());
  return value;
}

// The pair in the file, or a new one.
Result<KeyPair> keys_in(const std::filesystem::path& path) {
  auto known = read_json(path);
  if (known) {
    KeyPair keys{known->value("public_key", ""), known->value("secret_key", "")};
    if (!is_key(keys.public_key) || !is_key(keys.secret_key))
      return fail(ErrorCode::kCorrupt, "{} does not hold a pair of keys", path.string());
    return keys;
  }
  if (known.error().code != ErrorCode::kNotFound) return fail(known.error());
  const KeyPair keys = make_key_pair();
  const json text = {{"public_key", keys.public_key}, {"secret_key", keys.secret_key}};
  if (auto done = write_file(path, text.dump(2) + "\n", 0600); !done) return fail(done.error());
  return keys;
}

Result<void> read_config(const std::filesystem::path& path, ServerOptions& options) {
  auto text = read_file(path);
  if (!text && text.error().code != ErrorCode::kNotFound) return fail(text.error());
  auto root = parse_yaml(text ? *text : "", path.string());
  if (!root) return fail(root.error());
  auto document = check_config(*root, config_keys(), path.string());
  if (!document) return fail(document.error());
  const json& v = document->values;
  options.listen = v.at("listen").get<std::string>();
  const auto seconds = [](double s) { return Duration(static_cast<Duration::rep>(s * 1e9)); };
  options.settings.result_ttl = seconds(v.at("result_ttl").get<double>());
  options.settings.uncollected_ttl = seconds(v.at("uncollected_ttl").get<double>());
  options.settings.inline_bytes_max = v.at("inline_bytes_max").get<std::uint64_t>();
  return {};
}

}  // namespace

Result<RelayHome> open_relay_home(const std::filesystem::path& home, const std::string& listen) {
  RelayHome result;
  result.directory = home / "relay";
  if (auto made = make_directory(home, 0700); !made) return fail(made.error());
  if (auto made = make_directory(result.directory, 0700); !made) return fail(made.error());
  if (auto read = read_config(result.directory / "config.yaml", result.options); !read) return fail(read.error());
  if (!listen.empty()) result.options.listen = listen;
  auto keys = keys_in(result.directory / "key");
  if (!keys) return fail(keys.error());
  result.options.keys = *keys;
  result.options.settings.owner = login_name();
  auto identity = read_json(home / "identity");
  if (!identity && identity.error().code != ErrorCode::kNotFound) return fail(identity.error());
  if (identity) {
    result.owner_key = identity->value("public_key", "");
    if (!is_key(result.owner_key))
      return fail(ErrorCode::kCorrupt, "{} has no public key", (home / "identity").string());
    return result;
  }
  const KeyPair owner = make_key_pair();
  result.owner_key = owner.public_key;
  const json text = {{"user", result.options.settings.owner},
                     {"relay", ""},
                     {"server_key", keys->public_key},
                     {"public_key", owner.public_key},
                     {"secret_key", owner.secret_key}};
  if (auto done = write_file(home / "identity", text.dump(2) + "\n", 0600); !done) return fail(done.error());
  return result;
}

Result<void> publish_address(const RelayHome& home, const std::filesystem::path& farcall_home,
                             const std::string& address) {
  const json text = {{"address", address}, {"server_key", home.options.keys.public_key}, {"pid", ::getpid()}};
  if (auto done = write_file(home.directory / "address", text.dump() + "\n"); !done) return done;
  const auto path = farcall_home / "identity";
  auto identity = read_json(path);
  if (!identity) return fail(identity.error());
  // An identity that logged in to another relay keeps that one.
  if (identity->value("server_key", "") != home.options.keys.public_key) return {};
  if (identity->value("relay", "") == address) return {};
  (*identity)["relay"] = address;
  return write_file(path, identity->dump(2) + "\n", 0600);
}

}  // namespace farcall::relay
