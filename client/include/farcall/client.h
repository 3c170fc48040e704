// Everything that talks to a relay as a user does: functions, submissions, results, administration.
// The farcall command and the Python module are made with it and use nothing else.
//
// Threads: a Client may be used from any thread. It has one I/O thread of its own, on which all
// callbacks come, in batches; a callback must not block and must not call a method that waits.
// Connections: a lost connection is made again by itself. What the relay has not acknowledged
// (calls, functions, parts of submissions, watches) is sent again under the same ids, so that
// nothing is done twice.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/ids.h"
#include "farcall/notes.h"
#include "model/range_set.h"
#include "model/task.h"

namespace farcall {

struct ClientOptions {
  std::filesystem::path home;      // empty: $FARCALL_HOME or ~/.farcall
  std::filesystem::path identity;  // empty: <home>/identity
  std::string relay;               // tcp://host:port instead of the identity's; empty: none
  Duration timeout = std::chrono::seconds(30);  // of connect() and of each call
  // connect(): false gives up at the first failure, true tries again until the timeout.
  bool wait_for_relay = false;
  std::string invitation;  // one-time token that enrols the identity's key
  // Memory for outcomes that are on their way or not consumed yet.
  std::uint64_t credit_bytes = 32 << 20;
  std::uint64_t credit_tasks = 16384;
  // Bytes of a submission that the relay has not acknowledged; add() waits beyond that.
  std::uint64_t unacknowledged_bytes_max = 16 << 20;
  // The connection came up (nullopt) or was lost and why; on the I/O thread.
  std::function<void(const std::optional<Error>&)> on_connection;
};

// What the relay said when it let us in.
struct RelayInfo {
  std::string address;
  std::string software;
  std::string user;
  std::string generation;
  std::uint64_t inline_bytes_max = 0;  // largest argument set and result
};

struct CallAnswer {
  std::string json;            // the answer, an object
  std::vector<Bytes> payload;  // frames after it: the body of a function, for instance
};

struct Outcome {
  TaskOutcome task;
  Bytes data;  // the value or the failure: docs/payloads.md, farcall/payload.h
};

// Bytes that the relay keeps, named by their hash (BLAKE2b-256, 64 hexadecimal digits).
struct StoredBlob {
  std::string hash;
  std::uint64_t size = 0;
};

// Outcomes of one submission, each at most once per watch. The relay sends more when the last copy
// of `lease` is gone: keep it as long as the data waits in a queue of yours, drop it when consumed.
struct OutcomeBatch {
  SubmissionId submission;
  std::vector<Outcome> outcomes;
  std::shared_ptr<const void> lease;
};

struct SubmissionProgress {
  SubmissionId submission;
  std::uint32_t received = 0;  // tasks the relay knows
  bool sealed = false;         // no more will come
  std::uint32_t succeeded = 0, failed = 0, cancelled = 0;
  RangeSet running;            // as last reported by the endpoint
  std::optional<Error> error;  // kNotFound: no such submission of ours

  std::uint32_t finished() const { return succeeded + failed + cancelled; }
  bool complete() const { return sealed && finished() == received; }
};

struct WatchRequest {
  SubmissionId submission;
  RangeSet have;         // outcomes that are not to come
  bool outcomes = true;  // false: progress only
};
struct WatchHandlers {
  std::function<void(OutcomeBatch)> on_outcomes;
  std::function<void(const SubmissionProgress&)> on_progress;
  std::function<void(TaskNotes)> on_notes;  // may be empty, as the others
};

// What is durable at the relay of a submission that is being written.
struct SubmissionState {
  SubmissionId submission;
  RangeSet durable;
  bool sealed = false;         // the seal is durable: nothing more can be lost
  std::optional<Error> error;  // refused, finally: no part will be taken
};

struct SubmissionOptions {
  // Comes on the I/O thread whenever something was acknowledged or refused.
  std::function<void(const SubmissionState&)> on_state;
  // Of this submission (in an earlier life of this program) already durable: not sent again.
  RangeSet durable;
};

// Tasks of one submission, added one after the other and sent in chunks that the relay makes
// durable one by one; tasks run before the submission is sealed. Thread-safe. A writer that is
// destroyed before seal() leaves the submission open; the relay cancels it after an hour.
class SubmissionWriter {
 public:
  ~SubmissionWriter();
  SubmissionWriter(const SubmissionWriter&) = delete;

  const SubmissionId& id() const;
  // One more task; its index. Waits while too much is unacknowledged. kTooLarge when the relay
  // would not take it; the relay's reason when it has refused the submission; kTimeout when it
  // could not be sent for `ClientOptions::timeout` without any acknowledgement.
  Result<std::uint32_t> add(Bytes argument_set);
  // Sends what was added although the chunk is not full.
  void flush();
  // flush(), and fixes the count. Does not wait: see wait_durable().
  void seal();
  // Until all that was added (and the seal) is durable. kTimeout says what is missing.
  Result<void> wait_durable(Duration timeout);
  SubmissionState state() const;
  std::uint32_t added() const;

  struct Impl;
  explicit SubmissionWriter(std::shared_ptr<Impl> impl);

 private:
  std::shared_ptr<Impl> impl_;
};

// What Client::collect needs; all functions are called on the caller's thread.
struct CollectRequest {
  std::vector<WatchRequest> submissions;
  std::function<void(OutcomeBatch&)> on_outcomes;              // may be empty
  std::function<void(const SubmissionProgress&)> on_progress;  // may be empty
  std::function<void(const TaskNotes&)> on_notes;              // may be empty
  std::function<bool()>
      keep_going;  // asked at least every 100 ms; false ends the wait; may be empty
  Duration timeout = Duration::max();
  // Stop when all tasks known now are finished, whether the submission is sealed or not.
  bool unsealed_is_complete = false;
  // False: the data of a large result is left as it is, a reference to bytes at its endpoint.
  bool whole_values = true;
  // Stop when the outcomes of all tasks that are finished by now have come, whatever else is open.
  bool only_finished = false;
};

class Client {
 public:
  // Reads the identity, connects, waits for the relay's welcome. kNotFound: no identity (the text
  // says how to get one); kUnreachable, kDenied, kVersion with what to do next.
  static Result<std::unique_ptr<Client>> connect(ClientOptions options = {});
  ~Client();
  Client(const Client&) = delete;

  RelayInfo relay() const;

  // A method of docs/protocol.md. `parameters`: a JSON object, empty for none. Errors are the
  // relay's; kTimeout when it did not answer in time.
  Result<CallAnswer> call(std::string_view method, std::string_view parameters = {});
  // The same; `done` comes on the I/O thread, exactly once, also when the client is destroyed.
  void call_async(std::string_view method, std::string_view parameters,
                  std::function<void(Result<CallAnswer>)> done);

  // Computes the id, which is the content's: the same code is the same function. Registering what
  // this client has registered before costs nothing.
  Result<FunctionId> register_function(FunctionRecord function, Bytes body);
  // Brings bytes to the relay, unless it has them already, for argument sets that refer to them
  // (docs/payloads.md); returns when they are safe there. Goes on over reconnects where it was; of
  // the bytes a few MiB are copied at a time. What no unfinished task refers to is kept for an
  // hour. `parts`, read as one, must not change meanwhile. kIo when the relay's disk is full;
  // kTimeout when nothing has moved for `ClientOptions::timeout`.
  Result<StoredBlob> store_bytes(const std::vector<std::string_view>& parts);
  Result<StoredBlob> store_file(const std::filesystem::path& path);
  // By name or id; kNotFound lists the user's endpoints and suggests the nearest. Remembered.
  Result<EndpointId> find_endpoint(const std::string& name_or_id);

  // A new time-ordered id; write it down before sending if the work must survive this process.
  SubmissionId new_submission_id();
  // `header.submission` nil: a new one; `created_ms` 0: now. The relay sees nothing before the
  // first chunk is full, flush() or seal().
  std::unique_ptr<SubmissionWriter> open_submission(SubmissionHeader header,
                                                    SubmissionOptions options = {});
  // All of it at once, sealed; returns when it is durable.
  Result<SubmissionId> submit(SubmissionHeader header, std::vector<Bytes> argument_sets);

  // The bytes of a large result, which the data of its outcome refers to (docs/payloads.md, first
  // byte 'B'): a file in a folder that goes with this client. Checked; goes on over reconnects
  // where it was. kUnreachable while its endpoint is not connected, kNotFound when it was released,
  // kResultLost when it is gone there for another reason, or damaged.
  Result<std::filesystem::path> fetch_blob(const TaskId& task, const StoredBlob& blob);
  // `data` itself, or what it refers to, mapped from such a file. collect() does that by itself.
  Result<Bytes> whole_value(const TaskId& task, const Bytes& data);

  // Outcomes and progress until unwatch(). One watch per submission: a later one of the same
  // submission takes its place. Goes on over reconnects; an outcome never comes twice.
  using WatchId = std::uint64_t;
  WatchId watch(std::vector<WatchRequest> submissions, WatchHandlers handlers);
  // No callback of this watch begins after it returns (unless called on the I/O thread, where one
  // may be running).
  void unwatch(WatchId id);
  // We have these safe: their time to live at the relay begins.
  void collected(const SubmissionId& submission, RangeSet indices);
  // Until everything sent before has been handled by the relay.
  Result<void> flush();

  // Watches until every submission is complete and all its outcomes have come. The last progress
  // of each, in the order of the request. kNotFound: the relay has no such submission of ours;
  // kTimeout; kCancelled when keep_going said so.
  Result<std::vector<SubmissionProgress>> collect(CollectRequest request);

  // How many tasks ended at once, are wished to end, were finished already.
  struct CancelCounts {
    std::uint64_t cancelled = 0, requested = 0, finished = 0;
  };
  Result<CancelCounts> cancel(const std::vector<TaskId>& tasks, bool force = false);
  Result<CancelCounts> cancel_submission(const SubmissionId& submission, bool force = false);
  Result<CancelCounts> cancel_group(const std::string& group, bool force = false);

  struct Impl;
  explicit Client(std::shared_ptr<Impl> impl);

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace farcall
