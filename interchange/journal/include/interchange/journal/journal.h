// What an interchange must not forget: its blocks and intents, what it has placed where, and
// results that the relay has not acknowledged. One SQLite file, held exclusively, used by one
// thread at a time.
#pragma once

#include <filesystem>
#include <memory>
#include <variant>
#include <vector>

#include "interchange/core/core.h"
#include "interchange/core/effects.h"

namespace farcall::interchange {

using JournalWrite =
    std::variant<effect::SaveBlock, effect::SaveEpoch, effect::SaveDrained, effect::SaveDurations,
                 effect::SavePlacements, effect::Spool, effect::DropSpooled>;

class Journal {
 public:
  // Made when it is not there. kBusy when another process has it; kVersion when a newer farcall
  // wrote it.
  static Result<std::unique_ptr<Journal>> open(const std::filesystem::path& path);
  ~Journal();

  // Of this file: the relay tells by it whether an interchange is the one it knows.
  const InstanceId& instance() const;
  Result<Recovered> load();
  // One transaction. It survives the loss of power if any of the writes has to (all but placements,
  // durations and what is dropped), else the end of this process only.
  Result<void> apply(const std::vector<JournalWrite>& writes);
  static bool needs_sync(const JournalWrite& write);

 private:
  struct Impl;
  explicit Journal(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace farcall::interchange
