// The directory of each block: credentials of its pilots, script and output of its job.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "interchange/server/server.h"
#include "wire/message.h"

namespace farcall::interchange {

class BlockFiles {
 public:
  // Reads the credentials of the blocks that are there already, as far as expire() leaves them.
  BlockFiles(const ServerOptions& options, std::vector<std::string> addresses,
             const std::vector<BlockRecord>& blocks, WallTime now);

  // Ends the keys of blocks that ended a day ago or more, and removes their directories if no
  // results were left there. A block that is in none of the records is as old as its directory.
  void expire(const std::vector<BlockRecord>& blocks, WallTime now);

  // Makes directory, keys and credentials (0600). The shell command that starts a pilot.
  Result<std::string> make(const BlockId& block);
  // What pilots of a block have left there because nobody took it. A file that cannot be used is
  // told of in the log and stays.
  struct Left {
    BlockId block;
    PilotId pilot;
    std::string file;
    wire::Message results;
  };
  std::vector<Left> left(const BlockId& block) const;
  void drop_left(const BlockId& block, const std::string& file) const;
  // Every block that has a directory.
  std::vector<BlockId> all() const;
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
