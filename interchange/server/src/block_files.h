// The directory of each block: credentials of its pilots, script and output of its job.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "interchange/server/server.h"

namespace farcall::interchange {

class BlockFiles {
 public:
  // Reads the credentials of the blocks that are there already; those of blocks that are older than
  // a day and not in `alive` are removed with their directory.
  BlockFiles(const ServerOptions& options, std::vector<std::string> addresses,
             const std::vector<BlockId>& alive);

  // Makes directory, keys and credentials (0600). The shell command that starts a pilot.
  Result<std::string> make(const BlockId& block);
  std::filesystem::path directory(const BlockId& block) const { return root_ / block.string(); }
  // The block whose key this is; nil when there is none.
  BlockId block_of(const std::string& public_key) const;

 private:
  ServerOptions options_;
  std::vector<std::string> addresses_;
  std::filesystem::path root_;
  std::map<std::string, BlockId> by_key_;
};

}  // namespace farcall::interchange
