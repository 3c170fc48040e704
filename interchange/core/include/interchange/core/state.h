// What the core keeps of outcomes on their way, what it counts, and what it is given at its start.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "interchange/core/effects.h"
#include "wire/message.h"
#include "wire/messages.h"

namespace farcall::interchange {

// What an earlier life left on disk.
struct Recovered {
  std::uint64_t epoch = 0;
  bool drained = false;
  std::vector<DurationsRecord> durations;
  std::vector<BlockRecord> blocks;
  std::vector<PlacementRecord> placements;
  std::vector<SpoolRecord> spool;
};

struct Counters {
  std::uint64_t superseded = 0;  // outcomes that came too late
  std::uint64_t retries = 0;
  std::uint64_t dispatched = 0;
  std::uint64_t finished = 0;
};

struct PilotBatch {
  PilotId pilot;  // nil: the batch is the number of a file that was left, see left_files_
  std::uint64_t batch = 0;
};
struct LeftFile {
  BlockId block;
  std::string name;
  auto operator<=>(const LeftFile&) const = default;
};
struct Spooled {
  wire::Message message;
  std::vector<wire::SubmissionRanges> tasks;
  std::vector<PilotBatch> owed;  // acknowledged when this is safe
  // Placements that ended with these outcomes: gone from the disk when this is safe, so that a
  // restart in between waits for the pilot, which still has the outcomes.
  std::vector<std::uint64_t> dropped;
  Duration since{0};     // alive time
  bool on_disk = false;  // or on its way there
  bool durable = false;
};
struct Unjudged {  // a failure of a task whose submission is not known yet
  PilotId pilot;
  wire::SubmissionOutcomes outcome;  // one
  Bytes data;
  PilotBatch owed;
  Duration since{0};
};

}  // namespace farcall::interchange
