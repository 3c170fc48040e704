#include "block_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/log.h"
#include "base/subprocess.h"
#include "wire/results_file.h"

namespace farcall::interchange {

using nlohmann::json;

namespace {
constexpr auto kKeep = std::chrono::hours(24);
constexpr std::string_view kLeftPrefix = "results-";

std::int64_t whole_ms(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}
// The names of files with results: results-<pilot>-<number>.
std::vector<std::string> left_names(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    const std::size_t dash = name.rfind('-');
    // One that is being written has a longer name.
    const bool whole = name.find_first_not_of("0123456789", dash + 1) == std::string::npos;
    if (name.starts_with(kLeftPrefix) && whole) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}
std::int64_t written_ms(const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return 0;
  return std::int64_t{info.st_mtim.tv_sec} * 1000 + info.st_mtim.tv_nsec / 1'000'000;
}
}  // namespace

BlockFiles::BlockFiles(const ServerOptions& options, std::vector<std::string> addresses,
                       const std::vector<BlockRecord>& blocks, WallTime now)
    : options_(options), addresses_(std::move(addresses)), root_(options.directory / "blocks") {
  expire(blocks, now);
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(root_, error)) {
    auto block = BlockId::parse(entry.path().filename().string());
    if (!block) continue;
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
}

void BlockFiles::expire(const std::vector<BlockRecord>& blocks, WallTime now) {
  for (const BlockId& block : all()) {
    const auto record = std::find_if(blocks.begin(), blocks.end(),
                                     [&](const BlockRecord& each) { return each.id == block; });
    if (record != blocks.end() && !is_final(record->state)) continue;
    const std::int64_t ended_ms =
        record != blocks.end() ? record->since_ms : written_ms(directory(block));
    if (now.milliseconds_since_epoch() - ended_ms < whole_ms(kKeep)) continue;
    std::erase_if(by_key_, [&](const auto& item) { return item.second == block; });
    std::error_code error;
    if (left_names(directory(block)).empty())
      std::filesystem::remove_all(directory(block), error);
    else  // they are taken in when the interchange starts again
      std::filesystem::remove(directory(block) / "credentials", error);
    log_info("block {} ended a day ago: its key ends", block.string());
    if (error) log_warn("{} cannot be removed: {}", directory(block).string(), error.message());
  }
}

Result<std::string> BlockFiles::make(const BlockId& block) {
  const auto path = directory(block);
  if (auto made = make_directory(root_, 0700); !made) return fail(made.error());
  if (auto made = make_directory(path, 0700); !made) return fail(made.error());
  const KeyPair keys = make_key_pair();
  const Settings& settings = options_.config.settings;
  const json credentials = {
      {"addresses", addresses_},
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
      {"accelerators", options_.config.accelerators},
      {"detect_accelerators", options_.config.detect_accelerators},
      {"sandbox_root", options_.config.working_dir},
      {"results", options_.config.results_directory(options_.directory).string()},
      {"results_gzip", options_.config.staging_compression},
      {"runner_directory", ""},
      {"max_processes", options_.config.max_processes},
      {"recycle_after", options_.config.worker_recycle_after},
      {"cpu_affinity", options_.config.cpu_affinity},
      {"pool_ranks", options_.config.mpi_pool_ranks_per_node},
      {"preload", options_.config.preload},
      {"log_level", options_.config.log_level}};
  const auto file = path / "credentials";
  if (auto done = write_file(file, credentials.dump(2) + "\n", 0600); !done)
    return fail(done.error());
  by_key_[keys.public_key] = block;
  // exec: a signal that the batch system sends to the step is for the pilot and not for a shell.
  return "exec " + shell_join({(program_directory() / "farcall-pilot").string(), "--credentials",
                               file.string()});
}

std::vector<BlockId> BlockFiles::all() const {
  std::vector<BlockId> blocks;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(root_, error))
    if (auto block = BlockId::parse(entry.path().filename().string())) blocks.push_back(*block);
  return blocks;
}

std::vector<BlockFiles::Left> BlockFiles::left(const BlockId& block) const {
  std::vector<Left> found;
  for (const std::string& name : left_names(directory(block))) {
    const auto path = directory(block) / name;
    const std::string id = name.substr(kLeftPrefix.size(), name.rfind('-') - kLeftPrefix.size());
    auto pilot = PilotId::parse(id);
    auto text = read_file(path);
    Result<wire::Message> results = fail(ErrorCode::kCorrupt, "its name names no pilot");
    if (pilot)
      results = text ? wire::unpack_results_file(Bytes(std::move(*text)))
                     : Result<wire::Message>(fail(text.error()));
    if (results)
      found.push_back({block, *pilot, name, std::move(*results)});
    else
      log_warn("results that a pilot left in {} cannot be used, their tasks may run again: {}",
               path.string(), results.error().message);
  }
  return found;
}

void BlockFiles::drop_left(const BlockId& block, const std::string& file) const {
  std::error_code error;
  std::filesystem::remove(directory(block) / file, error);
  if (error)
    log_warn("{} cannot be removed: {}", (directory(block) / file).string(), error.message());
}

BlockId BlockFiles::block_of(const std::string& public_key) const {
  auto found = by_key_.find(public_key);
  return found == by_key_.end() ? BlockId{} : found->second;
}

}  // namespace farcall::interchange
