// What the core wants done. Effects are carried out in order; those that answer say with which
// event.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "interchange/core/block.h"
#include "wire/blobs.h"
#include "wire/message.h"
#include "wire/messages.h"
#include "wire/places.h"

namespace farcall::interchange {

// One session of one pilot's connection; never reused. The server's number.
using PeerId = std::uint64_t;

// Which tasks of a submission a pilot was given. Kept on disk, without a sync, until none is left.
struct PlacementRecord {
  std::uint64_t id = 0;
  PilotId pilot;
  BlockId block;
  SubmissionId submission;
  std::uint16_t attempt = 1;
  RangeSet ranges;
  std::uint32_t cores = 1;                // of each task
  std::vector<wire::PlacedShare> shares;  // see Placement
  bool never = false;                     // to be tried again
};

// Outcomes that the relay has not acknowledged: a Results message, as it is sent.
struct SpoolRecord {
  std::uint64_t batch = 0;
  Bytes body;  // packed wire::Results
  Bytes data;
};

// How long the last runs of a function took, oldest first. Kept on disk, without a sync.
struct DurationsRecord {
  FunctionId function;
  std::vector<std::uint32_t> took_ms;
  bool operator==(const DurationsRecord&) const = default;
};

namespace effect {

struct SendRelay {
  wire::Message message;
};
// Starts a new session with the relay.
struct RedialRelay {
  std::string why;
};
// To be sent when every SavePlacements before it has been written.
struct SendPilot {
  PeerId peer = 0;
  wire::Message message;
};
struct RefusePilot {
  PeerId peer = 0;
  Error error;
};
struct ResetPilot {
  PeerId peer = 0;
  std::string why;
};
// Synced; answered by Core::block_saved(id, serial).
struct SaveBlock {
  BlockRecord block;
  std::uint64_t serial = 0;
};
struct SaveEpoch {  // synced
  std::uint64_t epoch = 0;
};
struct SaveDrained {  // synced
  bool drained = false;
  std::optional<wire::Message> answer;  // for the relay, when it is on disk
};
struct SaveDurations {
  std::vector<DurationsRecord> functions;
};
struct SavePlacements {
  std::vector<PlacementRecord> placed;
  std::vector<std::uint64_t> dropped;
};
// What the relay has not taken in time. Synced; answered by Core::spooled(batch).
struct Spool {
  SpoolRecord record;
};
struct DropSpooled {
  std::vector<std::uint64_t> batches;
};
// The scheduler, on a thread of its own; answered by the Core::provider_… events.
struct SubmitBlock {
  BlockId block;
  std::string job_name;
  int nodes = 1;
  double walltime_s = 0;
  std::vector<std::string> exclude_nodes;
};
struct QueryBlocks {
  std::vector<std::string> job_ids;
};
struct FindBlock {
  BlockId block;
  std::string job_name;
};
struct CancelJobs {
  std::vector<std::string> job_ids;
};
// Looks for results that pilots of a block have left on shared storage because nobody took them;
// answered by Core::results_left() for each file.
struct CollectLeft {
  BlockId block;
};
// What was in this file is safe.
struct DropLeft {
  BlockId block;
  std::string file;
};
// Tasks of ours need these, or need them no more; counted.
struct NeedBlobs {
  std::vector<wire::BlobRef> needed, released;
};
struct StatusChanged {  // the JSON that also went to the relay
  std::string json;
};
struct Exit {
  std::string text;
};

}  // namespace effect

using Effect =
    std::variant<effect::SendRelay, effect::RedialRelay, effect::SendPilot, effect::RefusePilot,
                 effect::ResetPilot, effect::SaveBlock, effect::SaveEpoch, effect::SaveDrained,
                 effect::SaveDurations, effect::SavePlacements, effect::Spool, effect::DropSpooled,
                 effect::SubmitBlock, effect::QueryBlocks, effect::FindBlock, effect::CancelJobs,
                 effect::CollectLeft, effect::DropLeft, effect::NeedBlobs, effect::StatusChanged,
                 effect::Exit>;
using Effects = std::vector<Effect>;

}  // namespace farcall::interchange
