// What the relay keeps, and the interface of whoever keeps it. A commit is one transaction: after
// apply() has returned, all of it survives the loss of power; if it fails, none of it is there.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "model/range_set.h"
#include "model/task.h"
#include "wire/messages.h"

namespace farcall::relay {

struct UserRow {
  std::string key;  // CURVE public key, the primary key
  std::string user;
};
// One-time: gone when it has been used.
struct InvitationRow {
  std::string token_hash;
  std::string user;
  std::int64_t expires_ms = 0;
};
struct UsedInvitation {
  std::string token_hash;
};
struct EndpointRow {
  EndpointId id;
  std::string owner;
  std::string name;
  std::string key;
  std::string description;
  std::int64_t created_ms = 0;
  InstanceId instance;  // in charge
  std::uint64_t epoch = 0;
};
struct DeletedEndpoint {
  EndpointId id;
};
struct FunctionRow {
  std::string owner;
  FunctionRecord function;
  Bytes body;  // empty when loaded: read_function_body()
  std::uint64_t size = 0;
  std::int64_t created_ms = 0;
};
struct DeletedFunction {
  std::string owner;
  FunctionId id;
};
// Replaces an earlier row of the submission.
struct SubmissionRow {
  SubmissionHeader header;
  bool sealed = false;
  std::uint32_t count = 0;   // with sealed
  RangeSet cancel_wished;
  RangeSet collected;
  std::int64_t changed_ms = 0;  // last part, outcome or collection
};
struct ChunkRow {
  SubmissionId submission;
  wire::ChunkMeta chunk;
  std::string hash;  // content_hash of sizes and data
  Bytes data;        // empty when loaded: read_chunk()
};
// Outcomes recorded together; the data of all of them in order.
struct OutcomesRow {
  SubmissionId submission;
  std::vector<TaskOutcome> outcomes;
  Bytes data;  // empty when loaded: read_outcomes()
};
struct HistoriesRow {
  SubmissionId submission;
  std::vector<TaskHistory> histories;  // each replaces what was there for its index
};
// The submission with all that belongs to it; its id stays known as a tombstone.
struct PurgedSubmission {
  SubmissionId submission;
  std::int64_t until_ms = 0;
};

using Write = std::variant<UserRow, InvitationRow, UsedInvitation, EndpointRow, DeletedEndpoint,
                           FunctionRow, DeletedFunction, SubmissionRow, ChunkRow, OutcomesRow,
                           HistoriesRow, PurgedSubmission>;

struct Tombstone {
  SubmissionId submission;
  std::int64_t until_ms = 0;
};

// Everything but bodies, arguments and results.
struct Contents {
  std::string generation;
  std::vector<UserRow> users;
  std::vector<InvitationRow> invitations;
  std::vector<EndpointRow> endpoints;
  std::vector<FunctionRow> functions;
  std::vector<SubmissionRow> submissions;
  std::vector<ChunkRow> chunks;        // by submission, then first
  std::vector<OutcomesRow> outcomes;   // in the order they were recorded
  std::vector<HistoriesRow> histories;
  std::vector<Tombstone> tombstones;
};

// Used by one thread at a time. Errors name the file and what the system said.
class Store {
 public:
  virtual ~Store() = default;
  virtual Result<Contents> load() = 0;
  virtual Result<void> apply(const std::vector<Write>& writes) = 0;
  // kNotFound when there is none; kCorrupt when it is not what was written.
  virtual Result<Bytes> read_function_body(const FunctionId& id) = 0;
  virtual Result<Bytes> read_chunk(const SubmissionId& submission, std::uint32_t first) = 0;
  // Those of `wanted` that are recorded, whole rows cut down to them, at most about `bytes_max`.
  virtual Result<std::vector<OutcomesRow>> read_outcomes(const SubmissionId& submission,
                                                         const RangeSet& wanted,
                                                         std::uint64_t bytes_max) = 0;
};

// The outcomes of `row` whose index is in `wanted`, with their data.
OutcomesRow select_outcomes(const OutcomesRow& row, const RangeSet& wanted);
std::string chunk_hash(const wire::ChunkMeta& chunk, const Bytes& data);

}  // namespace farcall::relay
