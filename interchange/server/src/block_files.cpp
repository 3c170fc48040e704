#include "block_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/log.h"
#include "base/subprocess.h"

namespace farcall::interchange {

using nlohmann::json;

namespace {
constexpr auto kKeep = std::chrono::hours(24);

std::int64_t whole_ms(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}
}  // namespace

BlockFiles::BlockFiles(const ServerOptions& options, std::vector<std::string> addresses,
                       const std::vector<BlockId>& alive)
    : options_(options), addresses_(std::move(addresses)), root_(options.directory / "blocks") {
  std::error_code error;
  std::vector<std::filesystem::path> old;
  for (const auto& entry : std::filesystem::directory_iterator(root_, error)) {
    auto block = BlockId::parse(entry.path().filename().string());
    if (!block) continue;
    const auto age = std::filesystem::file_time_type::clock::now() - entry.last_write_time(error);
    if (age > kKeep && std::find(alive.begin(), alive.end(), *block) == alive.end()) {
      old.push_back(entry.path());
      continue;
    }
    auto text = read_secret_file(entry.path() / "credentials");
    json credentials = text ? json::parse(*text, nullptr, false) : json();
    if (!credentials.is_object()) continue;
    by_key_[credentials.value("public_key", "")] = *block;
    // Pilots that outlived the last interchange read here where the new one is.
    if (credentials.value("addresses", std::vector<std::string>()) == addresses_) continue;
    credentials["addresses"] = addresses_;
    if (auto done = write_file(entry.path() / "credentials", credentials.dump(2) + "\n", 0600);
        !done)
      log_warn("{}", done.error().message);
  }
  for (const auto& path : old) std::filesystem::remove_all(path, error);
}

Result<std::string> BlockFiles::make(const BlockId& block) {
  const auto path = directory(block);
  if (auto made = make_directory(root_, 0700); !made) return fail(made.error());
  if (auto made = make_directory(path, 0700); !made) return fail(made.error());
  const KeyPair keys = make_key_pair();
  const Settings& settings = options_.config.settings;
  const json credentials = {{"addresses", addresses_},
                            {"server_key", options_.key.keys.public_key},
                            {"public_key", keys.public_key},
                            {"secret_key", keys.secret_key},
                            {"block_id", block.string()},
                            {"endpoint", options_.name},
                            {"python", options_.config.python},
                            {"slots", settings.slots_per_node},
                            {"heartbeat_ms", whole_ms(settings.heartbeat)},
                            {"lost_timeout_ms", whole_ms(settings.lost_timeout)},
                            {"orphan_timeout_ms", whole_ms(options_.config.orphan_timeout)},
                            {"sandbox_root", options_.config.working_dir},
                            {"runner_directory", ""},
                            {"log_level", options_.config.log_level}};
  const auto file = path / "credentials";
  if (auto done = write_file(file, credentials.dump(2) + "\n", 0600); !done)
    return fail(done.error());
  by_key_[keys.public_key] = block;
  // exec: a signal that the batch system sends to the step is for the pilot and not for a shell.
  return "exec " + shell_join({(program_directory() / "farcall-pilot").string(), "--credentials",
                               file.string()});
}

BlockId BlockFiles::block_of(const std::string& public_key) const {
  auto found = by_key_.find(public_key);
  return found == by_key_.end() ? BlockId{} : found->second;
}

}  // namespace farcall::interchange
