// Runs of no-op tasks against a site, and what they cost.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "farcall/client.h"
#include "site.h"

namespace farcall::bench {

enum class Kind { kPython, kShell, kNative };

struct Run {
  Kind kind = Kind::kPython;
  std::uint32_t tasks = 10'000;
  std::uint32_t payload_bytes = 0;  // of each argument, and of each result
};

// Submits all of it, waits for all results. Throughput, CPU by process, bytes by hop.
Result<nlohmann::json> throughput(const Site& site, Client& client, const Run& run);
// One at a time, each submitted when the one before is here.
Result<nlohmann::json> latency(const Site& site, Client& client, Kind kind, std::uint32_t tasks);
// Submits and waits until all of it is durable, not for results: seconds, and this process's peak
// of memory, which should have done nothing else before. What has not run is cancelled.
Result<nlohmann::json> acknowledgement(Client& client, const Run& run);
// The interchange's core alone; a few tasks are delivered again and again until there were 200,000.
nlohmann::json core_alone(std::uint32_t pilots, std::uint32_t slots, std::uint32_t tasks);

void print_table(const nlohmann::json& result);

}  // namespace farcall::bench
