// A farcall of its own for a measurement: relay, interchange and pilot in a fresh home, started as
// a user starts them, and what /proc and the kernel's sockets say of each process.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"

namespace farcall::bench {

// Sums over all processes of one name, since each was started.
struct Usage {
  double user_s = 0, system_s = 0;
  std::uint64_t peak_kib = 0;  // resident, of all together
  double cpu_s() const { return user_s + system_s; }
};
using Usages =
    std::map<std::string, Usage>;  // "client", "relay", "interchange", "pilot", "workers"

// Bytes that the kernel has sent on the connections of one hop, both ways.
using Hops = std::map<std::string, std::uint64_t>;  // "client-relay" …

struct SiteOptions {
  unsigned workers = 2;  // of the one pilot, or slots of each simulated one
  // More than 0: the block's job starts no pilot; so many connections of farcall-bench-pilots take
  // the place of pilots on as many nodes.
  unsigned simulated_pilots = 0;
};

class Site {
 public:
  // `programs`: the folder of farcall and its servers. kIo says which command failed and why.
  static Result<Site> start(const std::filesystem::path& programs, const SiteOptions& options);
  Site(Site&& other) noexcept;
  ~Site();  // stops everything, removes the home

  const std::filesystem::path& home() const { return home_; }
  // Seconds from the start command of the relay, and of the endpoint, to its return.
  double relay_start_s() const { return relay_start_s_; }
  double endpoint_start_s() const { return endpoint_start_s_; }
  Usages usage() const;
  Hops hops() const;

 private:
  Site(std::filesystem::path programs, std::filesystem::path home);
  Result<double> farcall(const std::vector<std::string>& arguments) const;
  Result<void> simulate(const SiteOptions& options);

  std::filesystem::path programs_, home_;
  std::FILE* simulation_ = nullptr;
  double relay_start_s_ = 0, endpoint_start_s_ = 0;
};

}  // namespace farcall::bench
