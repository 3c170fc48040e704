#include "pilot/agent/credentials.h"

#include <nlohmann/json.hpp>

#include "base/files.h"

namespace farcall::pilot {

Result<Credentials> read_credentials(const std::filesystem::path& path) {
  auto text = read_secret_file(path);
  if (!text) return fail(text.error());
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  if (!json.is_object())
    return fail(ErrorCode::kConfig, "{} is no JSON object: the block's credentials are damaged",
                path.string());
  Credentials out;
  out.directory = std::filesystem::absolute(path).parent_path();
  const auto milliseconds = [&](const char* key, Duration fallback) -> Duration {
    return std::chrono::milliseconds(
        json.value(key, std::chrono::duration_cast<std::chrono::milliseconds>(fallback).count()));
  };
  try {
    out.addresses = json.at("addresses").get<std::vector<std::string>>();
    out.server_key = json.at("server_key").get<std::string>();
    out.keys = {json.at("public_key").get<std::string>(), json.at("secret_key").get<std::string>()};
    auto block = BlockId::parse(json.at("block_id").get<std::string>());
    if (!block) return fail(ErrorCode::kConfig, "{}: {}", path.string(), block.error().message);
    out.block = *block;
    out.endpoint = json.value("endpoint", "");
    out.python = json.value("python", out.python);
    if (out.python.empty()) out.python = "python3";
    out.slots = json.value("slots", 0u);
    out.heartbeat = milliseconds("heartbeat_ms", out.heartbeat);
    out.lost_timeout = milliseconds("lost_timeout_ms", out.lost_timeout);
    out.orphan_timeout = milliseconds("orphan_timeout_ms", out.orphan_timeout);
    out.accelerators = json.value("accelerators", std::vector<std::string>());
    out.detect_accelerators = json.value("detect_accelerators", true);
    out.sandbox_root = json.value("sandbox_root", "");
    out.results = json.value("results", "");
    out.results_gzip = json.value("results_gzip", 0);
    out.runner_directory = json.value("runner_directory", "");
    out.log_level = json.value("log_level", out.log_level);
    out.max_processes = json.value("max_processes", out.max_processes);
    out.recycle_after = json.value("recycle_after", out.recycle_after);
    out.cpu_affinity = json.value("cpu_affinity", out.cpu_affinity);
    out.pool_ranks = json.value("pool_ranks", out.pool_ranks);
    out.preload = json.value("preload", out.preload);
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::kConfig, "{} cannot be used: {}", path.string(), error.what());
  }
  if (out.addresses.empty())
    return fail(ErrorCode::kConfig, "{} names no address of the interchange", path.string());
  return out;
}

}  // namespace farcall::pilot
