// What the relay keeps: records, and the writes that change them. Plain values.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "model/range_set.h"
#include "model/task.h"

namespace farcall::relay {

// Times are wall clock milliseconds since 1970; 0: has not happened.

struct UserKey {
  std::string key;  // Z85
  std::string user;
  bool owner = false;  // of the relay: may invite
  std::int64_t created_ms = 0;
  bool operator==(const UserKey&) const = default;
};

struct Invitation {
  std::string hash;  // content_hash of the token, which itself is never kept
  std::string user;
  std::int64_t expires_ms = 0;
  bool operator==(const Invitation&) const = default;
};

struct EndpointRecord {
  EndpointId id;
  std::string user, name, key, description;
  std::uint64_t epoch = 0;  // 0: nobody has served it yet
  InstanceId instance;      // to which the epoch was granted
  std::string host;
  std::int64_t last_seen_ms = 0;
  bool operator==(const EndpointRecord&) const = default;
};

struct FunctionEntry {
  std::string user;
  FunctionRecord record;
  Bytes body;
  std::int64_t created_ms = 0;
  bool operator==(const FunctionEntry&) const = default;
};

struct SubmissionRecord {
  SubmissionHeader header;
  std::int64_t received_ms = 0;  // first part
  bool sealed = false;
  std::uint32_t count = 0;  // with sealed
  bool aborted = false;     // cancelled as a whole: no further part is taken
  std::int64_t finished_ms = 0;
  std::int64_t collected_ms = 0;  // last time something was collected
  RangeSet cancel_wished;         // delivered, not final
  RangeSet collected;
  bool operator==(const SubmissionRecord&) const = default;
};

struct ChunkRecord {
  std::uint32_t first = 0;
  std::vector<std::uint32_t> sizes;
  IdBytes hash{};  // content_id of the data
  bool operator==(const ChunkRecord&) const = default;
};

// Outcomes of one submission that were recorded together. `outcomes` empty: the relay itself
// cancelled by_state[2], and `data` is the failure that each of those tasks gets.
struct OutcomeRow {
  SubmissionId submission;
  std::uint64_t seq = 0;             // from 1 in each submission, without gaps
  std::array<RangeSet, 3> by_state;  // succeeded, failed, cancelled
  std::vector<TaskOutcome> outcomes;
  Bytes data;
  bool operator==(const OutcomeRow&) const = default;
};
using OutcomeRowPtr = std::shared_ptr<const OutcomeRow>;
inline std::size_t state_slot(TaskState state) {
  return static_cast<std::size_t>(state) - static_cast<std::size_t>(TaskState::kSucceeded);
}

// A blob that a submission's arguments refer to.
struct BlobUse {
  std::string hash;
  std::uint64_t size = 0;
  auto operator<=>(const BlobUse&) const = default;
};

struct Tombstone {
  SubmissionId submission;
  std::string user;
  std::int64_t until_ms = 0;
  bool operator==(const Tombstone&) const = default;
};

// Each replaces what was stored under the same key.
struct PutUserKey {
  UserKey record;
};
struct PutInvitation {
  Invitation record;
};
struct DropInvitation {
  std::string hash;
};
struct PutEndpoint {
  EndpointRecord record;
};
struct DropEndpoint {
  EndpointId id;
};
struct PutFunction {
  FunctionEntry record;
};
struct DropFunction {
  std::string user;
  FunctionId id;
};
struct PutSubmission {
  SubmissionRecord record;
};
struct PutChunk {
  SubmissionId submission;
  ChunkRecord chunk;
  Bytes data;
};
struct PutOutcomes {
  OutcomeRowPtr row;
};
struct PutHistories {
  SubmissionId submission;
  std::vector<TaskHistory> histories;
};
// Added to those of the submission.
struct PutBlobs {
  SubmissionId submission;
  std::vector<BlobUse> blobs;
};
// Outcomes of tasks that are not known (after a restore from a backup): kept for people.
struct PutAside {
  EndpointId endpoint;
  SubmissionId submission;
  std::vector<TaskOutcome> outcomes;
  Bytes data;
  std::int64_t received_ms = 0;
};
// With its chunks, outcomes, histories and uses of blobs.
struct DropSubmission {
  Tombstone tombstone;
};
struct DropTombstone {
  SubmissionId submission;
};

using Write = std::variant<PutUserKey, PutInvitation, DropInvitation, PutEndpoint, DropEndpoint,
                           PutFunction, DropFunction, PutSubmission, PutChunk, PutOutcomes,
                           PutHistories, PutBlobs, PutAside, DropSubmission, DropTombstone>;

struct LoadedSubmission {
  SubmissionRecord record;
  std::vector<ChunkRecord> chunks;   // ascending, without their data
  std::array<RangeSet, 3> by_state;  // of all outcome rows
  std::uint64_t last_seq = 0;
  std::vector<TaskHistory> histories;
  std::vector<BlobUse> blobs;  // ascending
};

// All but the data of chunks and outcomes.
struct LoadedState {
  std::string generation;
  std::vector<UserKey> user_keys;
  std::vector<Invitation> invitations;
  std::vector<EndpointRecord> endpoints;
  std::vector<FunctionEntry> functions;
  std::vector<LoadedSubmission> submissions;
  std::vector<Tombstone> tombstones;
};

}  // namespace farcall::relay
