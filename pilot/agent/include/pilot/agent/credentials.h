// What the interchange leaves in a file (0600) for the pilots of one block.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/keys.h"

namespace farcall::pilot {

struct Credentials {
  std::vector<std::string> addresses;  // tcp://host:port, tried in turn
  std::string server_key;
  KeyPair keys;
  BlockId block;
  std::string endpoint;
  std::string python = "/usr/bin/python3";
  std::uint32_t slots = 0;  // 0: as many as there are cores
  Duration heartbeat = std::chrono::seconds(10);
  Duration lost_timeout = std::chrono::seconds(120);
  Duration orphan_timeout = std::chrono::seconds(300);
  std::vector<std::string> accelerators;  // names of the node's GPUs …
  bool detect_accelerators = true;        // … or whatever it has
  std::string sandbox_root;               // empty: in the scratch directory
  std::string results;                    // directory of large results; empty: none is taken
  int results_gzip = 0;                   // level, 0: not compressed
  std::string runner_directory;           // empty: <program>/../lib/farcall/runners
  std::string log_level = "info";
  // Where the file lies: the block's directory on shared storage, and where results are left that
  // could not be delivered. Empty: nowhere.
  std::filesystem::path directory;
  std::uint32_t max_processes = 0;  // of one task; 0: the runners' own default
  std::uint32_t recycle_after = 0;  // tasks of one worker; 0: never
  std::string cpu_affinity = "none";
  std::uint32_t pool_ranks = 0;      // of an MPI pool on each node, at least
  std::vector<std::string> preload;  // Python modules
};

// kDenied when others can read the file, kConfig naming what is missing or wrong in it.
Result<Credentials> read_credentials(const std::filesystem::path& path);

}  // namespace farcall::pilot
