// What the relay knows of submissions, endpoints and peers while it runs.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <unordered_set>

#include "model/offer.h"
#include "relay/core/core.h"
#include "wire/messages.h"
#include "wire/notes.h"

namespace farcall::relay {

struct Chunk {
  std::vector<std::uint32_t> sizes;
  IdBytes hash{};
  std::uint64_t bytes = 0;
};

// Every task of it is in `received`; from there it moves
//   received → durable → pending ⇄ delivered → final
// and nothing leaves `final`. A cancel at the relay goes to `final` from anywhere.
struct Submission {
  SubmissionRecord record;
  std::map<std::uint32_t, Chunk> chunks;  // by first index
  RangeSet received;
  RangeSet durable;    // committed
  RangeSet pending;    // durable, to be delivered
  RangeSet delivered;  // at the interchange, as far as is known
  RangeSet final;
  std::array<RangeSet, 3> by_state;                  // final, by how it ended
  std::array<std::uint32_t, 3> counts{};             // of by_state, committed
  RangeSet running;                                  // as last reported
  std::map<std::uint32_t, wire::TaskNote> progress;  // last word of running tasks; never stored
  std::map<std::uint32_t, TaskHistory> histories;
  std::uint64_t last_seq = 0;  // of outcome rows
  std::uint64_t committed_seq = 0;
  std::uint64_t superseded = 0;
  MonoTime last_part;
  std::set<PeerId> watchers;
  std::set<std::string> blobs;  // hashes of those that its arguments need, until it is finished

  SubmissionId id() const { return record.header.submission; }
  const std::string& user() const { return record.header.owner; }
  // No further task will come.
  bool is_closed() const {
    return record.aborted || (record.sealed && received.count() == record.count);
  }
  bool is_finished() const { return is_closed() && final.count() == received.count(); }
};

struct Function {
  FunctionEntry entry;
  std::uint64_t unfinished = 0;  // submissions that need it
};

struct Blob {
  std::uint64_t size = 0;
  bool here = false;
  std::uint64_t holders = 0;  // unfinished submissions and functions
  MonoTime keep_until;        // although there are none
  bool coming = false;        // from the endpoint that holds it
  bool brought = false;       // from there, and no client has sent it
  std::optional<Error> last;  // why it did not come
};

struct Endpoint {
  EndpointRecord record;
  PeerId peer = 0;     // in charge; 0: nobody is connected
  bool ready = false;  // it was sent its welcome
  std::string host;    // of the peer
  std::int32_t pid = 0;
  Bytes status;                // JSON, as last reported
  std::optional<Offer> offer;  // as in that
  wire::Credit granted;
  wire::Credit used;
  std::unordered_set<FunctionId> sent_functions;
  std::unordered_set<SubmissionId> sent_headers;
  std::set<SubmissionId> unfinished;
  // Submissions with pending tasks: by user, then priority, then age.
  using Place = std::tuple<std::int32_t, std::int64_t, SubmissionId>;
  std::map<std::string, std::set<Place>> queue;
  std::string last_user;  // whose turn it was
};

// Cursor and `have` say what the client has got of one submission.
struct WatchState {
  RangeSet have;
  bool outcomes = true;
  std::uint64_t cursor = 0;  // rows up to here are done with
  std::deque<OutcomeRowPtr> fetched;
  std::uint64_t fetched_to = 0;  // what is not in `fetched` up to here is not wanted
  std::uint64_t load = 0;        // token of the load under way
};

struct Peer {
  PeerId id = 0;
  std::string key;
  std::string user;
  bool ready = false;   // it was sent its welcome
  EndpointId endpoint;  // nil: a client
  wire::Credit granted;
  wire::Credit used;
  std::map<SubmissionId, WatchState> watches;
  std::set<SubmissionId> behind;          // watches that may have outcomes to send
  std::set<SubmissionId> progress_dirty;  // to be told of
  std::optional<MonoTime> last_progress;
  std::vector<wire::SubmitResult> submit_acks;
  std::vector<std::uint64_t> result_acks;
  MonoTime notes_window_ends;
  std::size_t notes_bytes = 0;  // sent in this window
};

}  // namespace farcall::relay
