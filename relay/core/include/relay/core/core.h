// The relay as a pure state machine: events and the time go in, effects come out. It keeps users,
// endpoints, functions and submissions, hands tasks to interchanges and outcomes to clients, and
// answers for durability only after the store has committed. docs/protocol.md is what it keeps to.
// Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "relay/store/store.h"
#include "wire/blobs.h"
#include "wire/message.h"

namespace farcall::relay {

using PeerId = std::uint64_t;  // one session of one connection, never used again

struct Options {
  std::string address;     // as clients reach us; part of invitations
  std::string server_key;  // Z85
  std::string software;
  Duration result_ttl = std::chrono::hours(7 * 24);        // after they were collected
  Duration uncollected_ttl = std::chrono::hours(30 * 24);  // after the submission finished
  Duration tombstone_ttl = std::chrono::hours(30 * 24);
  Duration unsealed_limit = std::chrono::hours(1);  // since the last part
  Duration call_timeout = std::chrono::seconds(5);  // of questions to an interchange
  std::uint64_t inline_bytes_max = 8 << 20;         // largest argument set and result
  std::uint64_t function_bytes_max = 64 << 20;      // largest body of a function
  std::uint64_t chunk_cache_bytes = 256 << 20;
  std::uint64_t row_cache_bytes = 64 << 20;
  std::uint64_t seed = 1;                   // of endpoint ids
  std::function<std::string()> make_token;  // an unguessable text
};

struct Send {
  PeerId peer = 0;
  wire::Message message;
};
struct Refuse {
  PeerId peer = 0;
  Error error;
};
struct LoadChunk {
  SubmissionId submission;
  std::uint32_t first = 0;
};
struct LoadRows {
  std::uint64_t token = 0;
  SubmissionId submission;
  RangeSet wanted;
  std::uint64_t after_seq = 0;
  std::uint64_t bytes_max = 0;
};

// A client has offered it: answered by blob_pulled() when it is here, which it may be already.
struct PullBlob {
  PeerId peer = 0;
  std::string scope;  // whose it is: the name of a folder
  wire::BlobRef blob;
};
// To be answered by a BlobChunk.
struct ServeBlob {
  PeerId peer = 0;
  std::string scope;
  wire::BlobGet get;
};
// Nobody needs it any more.
struct DropBlob {
  std::string scope;
  std::string hash;
};

// To be carried out in this order: writes are queued, messages sent, loads asked for behind the
// writes. `ticket` is reported by committed() when the writes are durable; tickets rise.
struct Effects {
  std::vector<Write> writes;
  std::uint64_t ticket = 0;
  std::vector<std::variant<Send, Refuse>> messages;
  std::vector<std::variant<LoadChunk, LoadRows>> loads;
  std::vector<std::variant<PullBlob, ServeBlob, DropBlob>> blobs;
  std::optional<MonoTime> wake_at;  // tick() not before; replaces the earlier one
};

class Core {
 public:
  Core(Options options, LoadedState state, Now now);
  ~Core();
  Core(const Core&) = delete;

  // First start: whoever has this key owns the relay. No effect when the key is known.
  [[nodiscard]] Effects enrol_owner(const std::string& key, const std::string& user, Now now);
  [[nodiscard]] Effects hello(PeerId peer, const std::string& key, const wire::Message& message,
                              Now now);
  [[nodiscard]] Effects message(PeerId peer, const wire::Message& message, Now now);
  [[nodiscard]] Effects gone(PeerId peer, Now now);  // also for peers that are not known
  [[nodiscard]] Effects committed(std::uint64_t ticket, Now now);
  // The store cannot write for the moment, and why; may be said again. Until the next committed()
  // new submissions and functions are refused with that, and questions answered without waiting.
  [[nodiscard]] Effects store_stuck(const Error& why, Now now);
  // nullopt: the store does not have it.
  [[nodiscard]] Effects chunk_loaded(SubmissionId submission, std::uint32_t first,
                                     std::optional<Bytes> data, Now now);
  [[nodiscard]] Effects rows_loaded(std::uint64_t token, LoadedRows rows, Now now);
  // At the start: what is in the directory of blobs.
  [[nodiscard]] Effects blob_found(const std::string& scope, const wire::BlobRef& blob, Now now);
  [[nodiscard]] Effects blob_pulled(const PullBlob& pull, const Result<void>& outcome, Now now);
  [[nodiscard]] Effects tick(Now now);

  // What does not hold although it always should; empty when all is well. Slow: for tests.
  std::string broken_invariant() const;
  struct Counters {
    std::uint64_t tasks_received = 0, tasks_delivered = 0, outcomes_recorded = 0,
                  outcomes_superseded = 0, outcomes_aside = 0, outcomes_sent = 0, chunk_loads = 0,
                  row_loads = 0;
  };
  const Counters& counters() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace farcall::relay
