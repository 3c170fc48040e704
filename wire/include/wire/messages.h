// The schema: one struct per message. Fields are only ever added at the end (a shorter message from
// an older peer leaves them at their defaults) and never reused; golden bytes of each are tests.
// Ids travel as 16 raw bytes, ranges as flat [first, last, first, last …], enums as numbers.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/range_set.h"
#include "model/task.h"
#include "wire/message.h"

namespace farcall::wire {

// --- on every connection -------------------------------------------------------------------------

// First message of a dialling side, inside its role's hello.
struct Hello {
  std::string magic = "farcall";
  std::uint16_t version = kProtocolVersion;
  std::uint16_t oldest_version = kOldestProtocolVersion;
  std::string software;  // "farcall 0.1.0", for people
  std::string host;
  std::int32_t pid = 0;
};

struct Ping {
  static constexpr MessageType kType = MessageType::kPing;
  bool answer = false;  // true: this is the answer
};

// The listening side does not know the session, or found a gap in it: say hello again.
struct Reset {
  static constexpr MessageType kType = MessageType::kReset;
  std::string reason;
};

// Final: the same hello will never be accepted. The dialling side must not try again by itself.
struct Refused {
  static constexpr MessageType kType = MessageType::kRefused;
  std::int32_t code = 0;  // ErrorCode
  std::string text;
};

// Administration and questions: parameters and answer are JSON in payload[0]. docs/protocol.md
// lists the methods. Safe to send again after a reconnect: every method is idempotent.
struct Call {
  static constexpr MessageType kType = MessageType::kCall;
  std::uint64_t request = 0;  // chosen by the caller, unique in its process
  std::string method;
};
struct Reply {
  static constexpr MessageType kType = MessageType::kReply;
  std::uint64_t request = 0;
  std::int32_t error = 0;  // ErrorCode; 0: fine
  std::string text;        // of the error
};

// Flow control. What the other side may send in all since the welcome of this session: it counts
// up and never down, so a lost or repeated one does no harm. Unit of `tasks`: argument sets (relay
// → interchange) or outcomes (relay → client); of `bytes`: their payload.
struct Credit {
  static constexpr MessageType kType = MessageType::kCredit;
  std::uint64_t tasks = 0;
  std::uint64_t bytes = 0;
};

struct SubmissionRanges {
  SubmissionId submission;
  RangeSet ranges;
  bool operator==(const SubmissionRanges&) const = default;
};

struct SubmissionOutcomes {
  SubmissionId submission;
  std::vector<TaskOutcome> outcomes;
  bool operator==(const SubmissionOutcomes&) const = default;
};

// Consecutive argument sets of one submission; their bytes lie one after the other in one payload
// frame. At most kChunkTasksMax of them; made by the client and cut nowhere on the way.
struct ChunkMeta {
  std::uint32_t first = 0;           // index of the first task
  std::vector<std::uint32_t> sizes;  // bytes of each; the count of tasks is sizes.size()
  bool operator==(const ChunkMeta&) const = default;
};
inline constexpr std::size_t kChunkTasksMax = 1024;
inline constexpr std::size_t kChunkBytesMax = 1 << 20;  // unless a single argument set is larger

// --- client <-> relay ----------------------------------------------------------------------------

struct ClientHello {
  static constexpr MessageType kType = MessageType::kClientHello;
  Hello hello;
  std::string invitation;  // one-time token that enrols the connection's key; else empty
};
struct ClientWelcome {
  static constexpr MessageType kType = MessageType::kClientWelcome;
  std::string relay;  // software and version
  std::string user;
  std::string generation;              // of the store: rises when it was restored from a backup
  std::uint64_t inline_bytes_max = 0;  // largest argument set and result
};

// payload[0]: the body. Answered by a Reply with {"function_id": …}. The relay computes the id.
struct RegisterFunction {
  static constexpr MessageType kType = MessageType::kRegisterFunction;
  std::uint64_t request = 0;
  FunctionRecord function;
};

// Parts of submissions, durable one by one; a payload frame per chunk, in order. Sending a part
// again is harmless; the same id with other content is refused.
struct SubmitPart {
  SubmissionId submission;
  std::optional<SubmissionHeader> header;  // in the first part of a submission in each session
  std::vector<ChunkMeta> chunks;
  bool seal = false;        // no more tasks than `count` will come
  std::uint32_t count = 0;  // with seal
};
struct Submit {
  static constexpr MessageType kType = MessageType::kSubmit;
  std::vector<SubmitPart> parts;
};
// Sent after the store has committed. `received`: the tasks of the part it answers that are
// durable.
struct SubmitResult {
  SubmissionId submission;
  RangeSet received;
  bool sealed = false;
  std::int32_t error = 0;  // ErrorCode: the part was refused and will be again
  std::string text;
};
struct SubmitAck {
  static constexpr MessageType kType = MessageType::kSubmitAck;
  std::vector<SubmitResult> results;
};

// Sends outcomes of these submissions as they are recorded, those of `have` left out, and Progress
// now and whenever it changes (at most ten times a second). Replaces an earlier watch of the same.
struct WatchItem {
  SubmissionId submission;
  RangeSet have;
  bool outcomes = true;  // false: progress only
  bool stop = false;     // ends the watch
};
struct Watch {
  static constexpr MessageType kType = MessageType::kWatch;
  std::vector<WatchItem> items;
};
// payload[0]: the data of all outcomes, in order.
struct TaskResults {
  static constexpr MessageType kType = MessageType::kTaskResults;
  std::vector<SubmissionOutcomes> results;
};
// The client has them safe (printed, written or handed to the program): their time to live begins.
struct Collected {
  static constexpr MessageType kType = MessageType::kCollected;
  std::vector<SubmissionRanges> items;
};
struct ProgressItem {
  SubmissionId submission;
  std::uint32_t received = 0;  // tasks known to the relay
  bool sealed = false;
  std::uint32_t succeeded = 0, failed = 0, cancelled = 0;
  RangeSet running;        // as last reported
  std::int32_t error = 0;  // kNotFound: no such submission of this user
};
struct Progress {
  static constexpr MessageType kType = MessageType::kProgress;
  std::vector<ProgressItem> items;
};

// --- interchange <-> relay -----------------------------------------------------------------------

struct EndpointHello {
  static constexpr MessageType kType = MessageType::kEndpointHello;
  Hello hello;
  EndpointId endpoint;
  InstanceId instance;      // of the interchange's database
  std::uint64_t epoch = 0;  // as last granted to this instance; 0: never
  bool take_over = false;   // become the one in charge although another instance is connected
  std::vector<SubmissionRanges> holds;  // tasks in memory, delivered earlier and not finished
};
struct EndpointWelcome {
  static constexpr MessageType kType = MessageType::kEndpointWelcome;
  std::uint64_t epoch = 0;
  std::string generation;
  std::vector<SubmissionRanges> forget;  // of `holds`: finished or unknown at the relay
  std::string endpoint_name;
};
// payload: the bodies of `functions` in order, then the data of `chunks` in order. A function or a
// submission's header comes once per session, before the first chunk that needs it.
struct ChunkDelivery {
  SubmissionId submission;
  ChunkMeta chunk;
  RangeSet run;                        // those of the chunk that are wanted
  std::vector<TaskHistory> histories;  // of tasks in `run` that are not on their first attempt
};
struct Work {
  static constexpr MessageType kType = MessageType::kWork;
  std::vector<FunctionRecord> functions;
  std::vector<SubmissionHeader> submissions;
  std::vector<ChunkDelivery> chunks;
};
// Wished for until a final outcome of each is recorded; sent again after each welcome.
struct CancelTasks {
  static constexpr MessageType kType = MessageType::kCancelTasks;
  std::vector<SubmissionRanges> items;
};
// payload[0]: the data of all outcomes, in order. `batch` is the sender's and rises; kept by the
// sender until acknowledged. Also from pilot to interchange.
struct Results {
  static constexpr MessageType kType = MessageType::kResults;
  std::uint64_t batch = 0;
  std::vector<SubmissionOutcomes> results;
};
// These are recorded, superseded or put aside; either way nobody needs to keep them.
struct ResultsAck {
  static constexpr MessageType kType = MessageType::kResultsAck;
  std::vector<std::uint64_t> batches;
};
// payload[0]: JSON for `farcall endpoint status` and `farcall top`: docs/protocol.md.
struct EndpointStatus {
  static constexpr MessageType kType = MessageType::kEndpointStatus;
};
// Coalesced; tasks older than 100 ms only. `running` replaces what was said of a submission before.
struct Running {
  static constexpr MessageType kType = MessageType::kRunning;
  std::vector<SubmissionRanges> running;
};
// Attempts that are spent, so that a new interchange goes on counting.
struct SpentAttempts {
  SubmissionId submission;
  std::vector<TaskHistory> histories;
};
struct Attempts {
  static constexpr MessageType kType = MessageType::kAttempts;
  std::vector<SpentAttempts> items;
};

// --- pilot <-> interchange -----------------------------------------------------------------------

struct AttemptRef {
  SubmissionId submission;
  std::uint32_t index = 0;
  std::uint16_t attempt = 1;
  auto operator<=>(const AttemptRef&) const = default;
};
struct PilotHello {
  static constexpr MessageType kType = MessageType::kPilotHello;
  Hello hello;
  BlockId block;
  PilotId pilot;                 // this life of the process
  std::string node;              // host name
  std::uint32_t node_rank = 0;   // in the block, from 0
  std::string job_start;         // nonce that the batch script wrote at this start of the job
  std::int64_t incarnation = 0;  // wall clock ms at start: the larger is the newer one
  std::uint64_t epoch = 0;       // highest epoch of an interchange it has obeyed
  std::uint32_t cores = 0;
  std::uint64_t memory_mib = 0;
  std::int64_t remaining_s = -1;     // of the allocation; -1: not known
  std::vector<AttemptRef> holds;     // queued or running here
  std::uint64_t unacknowledged = 0;  // outcomes it will send again
};
struct PilotWelcome {
  static constexpr MessageType kType = MessageType::kPilotWelcome;
  std::uint64_t epoch = 0;
  std::uint64_t heartbeat_ms = 0;
  std::uint64_t lost_timeout_ms = 0;
  std::vector<AttemptRef> abandon;  // of `holds`: kill and forget
  std::uint32_t slots = 0;          // tasks of one core that may run at once
};
// payload: the bodies of `functions` in order, then one frame with the arguments of all tasks in
// order. Functions and headers come once per session.
struct TaskStart {
  std::uint32_t index = 0;
  std::uint16_t attempt = 1;
  std::uint32_t size = 0;  // bytes of its arguments
};
struct DispatchGroup {
  SubmissionId submission;
  std::vector<TaskStart> tasks;
};
struct Dispatch {
  static constexpr MessageType kType = MessageType::kDispatch;
  std::vector<FunctionRecord> functions;
  std::vector<SubmissionHeader> submissions;
  std::vector<DispatchGroup> groups;
};
// Each is answered by an outcome with TaskState::kCancelled, or by the outcome that came first.
struct CancelAttempts {
  static constexpr MessageType kType = MessageType::kCancelAttempts;
  std::vector<AttemptRef> attempts;
};
struct PilotStatus {
  static constexpr MessageType kType = MessageType::kPilotStatus;
  std::uint32_t running = 0;
  std::uint32_t queued = 0;
  std::int64_t remaining_s = -1;
};
// Finish what runs (until the deadline), hand back what does not, exit.
struct Stop {
  static constexpr MessageType kType = MessageType::kStop;
  std::string reason;
  std::uint64_t grace_ms = 0;  // 0: kill what runs now; it goes back uncharged
};
// Not started, or stopped through no fault of the task. To be placed again, not charged.
struct HandBack {
  static constexpr MessageType kType = MessageType::kHandBack;
  std::vector<AttemptRef> attempts;
  FailureClass reason = FailureClass::kNone;  // kNone: never started
};

}  // namespace farcall::wire
