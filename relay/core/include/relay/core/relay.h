// The relay as a state machine: messages, commits and the time go in; messages, writes and reads come
// out. It has no clock, socket, file or thread. Not thread-safe.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "relay/core/state.h"
#include "relay/store/store.h"

namespace farcall::relay {

struct Settings {
  std::string software = "farcall";
  std::string address;         // as people reach it; part of invitations
  std::string server_key;      // likewise
  std::string owner;           // user name of who may invite
  std::uint64_t inline_bytes_max = 8 << 20;
  std::uint64_t cache_bytes_max = 256 << 20;  // arguments kept in memory until they are delivered
  Duration result_ttl = std::chrono::hours(24 * 7);        // after the client has collected them
  Duration uncollected_ttl = std::chrono::hours(24 * 30);  // after the last change
  Duration tombstone_ttl = std::chrono::hours(24 * 30);
  Duration unsealed_limit = std::chrono::hours(1);
};

struct ReadBody {
  FunctionId function;
};
struct ReadChunk {
  SubmissionId submission;
  std::uint32_t first = 0;
};
struct ReadOutcomes {
  SubmissionId submission;
  RangeSet wanted;
  std::uint64_t bytes_max = 0;
};
struct Read {
  std::uint64_t id = 0;
  std::variant<ReadBody, ReadChunk, ReadOutcomes> what;
};
struct ReadAnswer {
  std::uint64_t id = 0;
  Result<Bytes> bytes = Bytes();                     // ReadBody, ReadChunk
  Result<std::vector<OutcomesRow>> rows = {};  // ReadOutcomes
};

struct Effects {
  std::vector<std::pair<PeerId, wire::Message>> send;  // in order
  std::vector<std::pair<PeerId, Error>> refuse;
  std::vector<std::pair<PeerId, std::string>> reset;
  std::vector<Write> writes;   // one after the other; may share a transaction with later ones
  std::uint64_t commit = 0;    // number of these writes: committed() when they are durable
  std::vector<Read> reads;     // of what was written by then
};

class Relay {
 public:
  Relay(Settings settings, Contents contents, Rng rng);
  ~Relay();

  void hello(const Now& now, PeerId peer, const std::string& key, const wire::Message& message);
  void message(const Now& now, PeerId peer, const wire::Message& message);
  void gone(const Now& now, PeerId peer);
  // All writes up to this number are durable. A commit that fails is tried again by the caller; what
  // waits for it is not told to anybody meanwhile.
  void committed(const Now& now, std::uint64_t commit);
  void answered(const Now& now, ReadAnswer answer);
  void tick(const Now& now);
  // When tick() is wanted at the latest.
  MonoTime next_tick() const;
  // What the calls since the last one want done.
  Effects take_effects();

  // Aborts when an invariant does not hold. For tests, after each event.
  void sanity_check() const;
  std::uint64_t superseded() const { return superseded_; }
  std::uint64_t put_aside() const { return put_aside_; }

 private:
  using Message = wire::Message;
  using Json = nlohmann::json;

  // relay.cpp
  void client_hello(PeerId peer, const std::string& key, const Message& message);
  void endpoint_hello(PeerId peer, const std::string& key, const Message& message);
  void welcome_endpoint(PeerId peer, Endpoint& endpoint, const wire::EndpointHello& hello);
  void client_message(PeerId peer, Client& client, const Message& message);
  void endpoint_message(PeerId peer, Endpoint& endpoint, const Message& message);
  void send(PeerId peer, Message message);
  template <class Body>
  void send_body(PeerId peer, const Body& body, std::vector<Bytes> payload = {});
  void write(Write write);
  // Runs when everything written so far is durable; at once when it is.
  void after_commit(std::function<void()> action);
  void bad_message(PeerId peer, const Error& error);

  // submissions.cpp
  void register_function(PeerId peer, const Client& client, const Message& message);
  void submit(PeerId peer, Client& client, const Message& message);
  Error take_part(Client& client, wire::SubmitPart& part, const Bytes* data, RangeSet& received);
  Result<Submission*> open_submission(Client& client, wire::SubmitPart& part);
  Result<void> take_chunk(Submission& submission, wire::ChunkMeta& chunk, const Bytes& data);
  Submission* find(const SubmissionId& id);
  void store_row(const Submission& submission);

  // delivery.cpp
  void start_session(Endpoint& endpoint, PeerId peer);
  void make_ready(Submission& submission);
  void deliver(Endpoint& endpoint);
  Submission* next_submission(Endpoint& endpoint);
  bool deliver_chunk(Endpoint& endpoint, Submission& submission);
  void add_chunk(Endpoint& endpoint, Submission& submission, const Chunk& chunk, RangeSet run,
                 Bytes data);
  void flush_work(Endpoint& endpoint);
  void send_cancels(Endpoint& endpoint);

  // outcomes.cpp
  void take_results(PeerId peer, Endpoint& endpoint, const Message& message);
  void record(Submission& submission, OutcomesRow row);
  bool accept(Submission& submission, const TaskOutcome& outcome) const;
  void record_cancelled(Submission& submission, const RangeSet& tasks);
  void take_attempts(Endpoint& endpoint, const Message& message);
  void take_running(Endpoint& endpoint, const Message& message);
  struct CancelCounts {
    std::uint64_t cancelled = 0, requested = 0, finished = 0;
  };
  void cancel(Submission& submission, const RangeSet& tasks, bool force, CancelCounts& counts);

  // watches.cpp
  void watch(PeerId peer, Client& client, const Message& message);
  void collected(Client& client, const Message& message);
  void push_outcomes(const Submission& submission, const OutcomesRow& row);
  void pump(PeerId peer, Client& client);
  bool send_outcomes(PeerId peer, Client& client, Watch& watch, const OutcomesRow& row);
  void touch(const Submission& submission);
  void flush_progress();
  wire::ProgressItem progress_of(const Submission& submission) const;

  // calls.cpp, task_calls.cpp
  void call(PeerId peer, Client& client, const Message& message);
  void reply(PeerId peer, std::uint64_t request, const Result<Json>& answer,
             std::vector<Bytes> more = {});
  Result<Json> dispatch(PeerId peer, Client& client, std::uint64_t request,
                        const std::string& method, const Json& parameters, bool& later);
  Result<Json> call_invite(const Client& client, const Json& p);
  Result<Json> call_endpoint_register(const Client& client, const Json& p);
  Result<Json> call_endpoint_delete(const Client& client, const Json& p);
  Result<Json> call_functions(PeerId peer, const Client& client, std::uint64_t request,
                              const std::string& method, const Json& p, bool& later);
  Result<Json> call_submission_list(const Client& client, const Json& p);
  Result<Json> call_group_list(const Client& client);
  Result<Json> call_task_list(const Client& client, const Json& p);
  Result<Json> call_task_status(const Client& client, const Json& p);
  Result<Json> call_task_cancel(const Client& client, const Json& p);
  Result<Json> call_task_explain(PeerId peer, const Client& client, std::uint64_t request,
                                 const Json& p, bool& later);
  void endpoint_reply(Endpoint& endpoint, const Message& message);
  void finish_explain(std::uint64_t request, const std::vector<std::string>& more);
  Result<Endpoint*> find_endpoint(const std::string& owner, const std::string& name_or_id);
  Result<std::pair<Submission*, std::uint32_t>> find_task(const Client& client, const Json& p);
  std::vector<Submission*> submissions_of(const std::string& owner);
  Json endpoint_json(const Endpoint& endpoint) const;
  Json task_json(const Submission& submission, std::uint32_t index) const;
  Json submission_json(const Submission& submission);

  // retention.cpp
  void restore(Contents contents);
  void purge();
  void expire_unsealed();
  std::int64_t now_ms() const { return now_.wall.milliseconds_since_epoch(); }

  Settings settings_;
  Rng rng_;
  Now now_;
  std::string generation_;
  Effects effects_;
  std::uint64_t committed_ = 0;     // highest durable commit
  std::uint64_t next_commit_ = 1;   // number of the writes being collected
  std::deque<std::pair<std::uint64_t, std::function<void()>>> waiting_;  // ascending

  std::map<std::string, std::string> users_;  // key -> user
  std::map<std::string, InvitationRow> invitations_;
  std::map<EndpointId, Endpoint> endpoints_;
  std::unordered_map<FunctionId, Function> functions_;
  std::unordered_map<SubmissionId, Submission> submissions_;
  std::map<SubmissionId, std::int64_t> tombstones_;
  std::unordered_map<PeerId, Client> clients_;
  std::unordered_map<PeerId, EndpointId> endpoint_peers_;

  struct PendingChunk {
    EndpointId endpoint;
    PeerId peer = 0;
    SubmissionId submission;
    std::uint32_t first = 0;
    RangeSet run;
  };
  struct PendingOutcomes {
    PeerId peer = 0;
    SubmissionId submission;
  };
  struct PendingBody {
    FunctionId function;
    PeerId peer = 0;  // of a client that asked to see it; 0: an endpoint needs it
    std::uint64_t request = 0;
  };
  std::uint64_t last_read_ = 0;
  std::unordered_map<std::uint64_t, std::variant<PendingChunk, PendingOutcomes, PendingBody>> reads_;
  std::uint64_t request_read(std::variant<ReadBody, ReadChunk, ReadOutcomes> what,
                             std::variant<PendingChunk, PendingOutcomes, PendingBody> why);

  struct PendingExplain {
    PeerId peer = 0;
    std::uint64_t request = 0;
    std::vector<std::string> lines;
    MonoTime deadline;
  };
  std::uint64_t last_request_ = 0;
  std::map<std::uint64_t, PendingExplain> explains_;  // by our request to the endpoint

  std::set<SubmissionId> changed_;  // watched and not told yet
  MonoTime progress_due_;
  MonoTime retention_due_;
  std::uint64_t cached_bytes_ = 0;
  std::uint64_t last_order_ = 0;
  std::uint64_t superseded_ = 0;
  std::uint64_t put_aside_ = 0;
};

}  // namespace farcall::relay
