// The relay's state and the parts of its behaviour, one source file for each.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <unordered_map>

#include "lru.h"
#include "state.h"

namespace farcall::relay {

struct CancelCount {
  std::uint64_t cancelled = 0, requested = 0, finished = 0;
};

struct Core::Impl {
  Impl(Options o, LoadedState state, Now now);

  // --- core.cpp: one event from begin() to finish() ---
  void begin(Now now);
  Effects finish();
  // Runs when everything written so far, in this event as well, is durable.
  void after_commit(std::function<void()> action) { fresh_.push_back(std::move(action)); }
  void write(Write w) { effects_.writes.push_back(std::move(w)); }
  template <class Body>
  void send(PeerId peer, const Body& body, std::vector<Bytes> payload = {});
  void send_message(PeerId peer, wire::Message message);
  void refuse(PeerId peer, ErrorCode code, std::string text);
  std::int64_t wall_ms() const { return now_.wall.milliseconds_since_epoch(); }
  void load(LoadedState state);
  void load_submission(LoadedSubmission loaded);
  Peer* find_peer(PeerId id);
  Submission* find_submission(SubmissionId id);
  Submission* find_submission(const std::string& user, SubmissionId id);
  Endpoint* find_endpoint(EndpointId id);
  Function* find_function(const std::string& user, FunctionId id);
  void wake_by(MonoTime at);
  void on_committed(std::uint64_t ticket);
  void dispatch(Peer& peer, const wire::Message& message);
  template <class Body, class F>
  void with(Peer& peer, const wire::Message& message, F&& f);

  // --- clients.cpp ---
  void client_hello(PeerId id, const std::string& key, const wire::ClientHello& hello);
  void welcome_client(PeerId id, const std::string& user);
  bool accept_version(PeerId id, const wire::Hello& hello);
  Result<std::string> enrol(const std::string& key, const std::string& token);
  void gone(PeerId id);
  void register_function(Peer& peer, const wire::RegisterFunction& m, const wire::Message& raw);
  void reply(PeerId peer, std::uint64_t request, const nlohmann::json& answer,
             std::vector<Bytes> more = {});
  void reply_error(PeerId peer, std::uint64_t request, const Error& error);
  // As reply(), once what was written is durable.
  void reply_later(PeerId peer, std::uint64_t request, std::string answer);

  // --- submissions.cpp ---
  void submit(Peer& peer, const wire::Submit& m, const wire::Message& raw);
  bool has_all_of(const wire::SubmitPart& part);
  Result<Submission*> submission_for(const Peer& peer, const wire::SubmitPart& part);
  Result<Submission*> make_submission(const Peer& peer, const wire::SubmitPart& part);
  Result<void> check_chunk(const Submission& s, const wire::ChunkMeta& meta, const Bytes& data,
                           const IdBytes& hash, bool& known) const;
  Result<void> take_chunks(Submission& s, const wire::SubmitPart& part,
                           const std::vector<Bytes>& payload, RangeSet& taken);
  Result<std::vector<wire::BlobRef>> blobs_of_chunk(const Submission& s,
                                                    const wire::ChunkMeta& meta,
                                                    const Bytes& data) const;
  void add_chunk(Submission& s, const wire::ChunkMeta& meta, const Bytes& data, IdBytes hash);
  Result<void> seal(Submission& s, std::uint32_t count);
  void chunks_durable(SubmissionId id, const RangeSet& ranges);
  // After any change that may have finished it: once, it leaves the lists of unfinished ones.
  void note_if_finished(Submission& s);
  // Puts it into its endpoint's queue or takes it out, by whether it has pending tasks.
  void queue(Submission& s);

  // --- endpoints.cpp ---
  void endpoint_hello(PeerId id, const std::string& key, const wire::EndpointHello& hello);
  bool take_charge(PeerId id, Endpoint& e, const wire::EndpointHello& hello);
  void welcome_endpoint(PeerId id, EndpointId endpoint,
                        const std::vector<wire::SubmissionRanges>& holds);
  std::vector<wire::SubmissionRanges> reconcile(Endpoint& e,
                                                const std::vector<wire::SubmissionRanges>& holds);
  void send_wished_cancels(Endpoint& e);
  void running(Peer& peer, const wire::Running& m);
  void attempts(Peer& peer, const wire::Attempts& m);
  // notes.cpp: what running tasks say goes to those who watch; the last progress of each is kept.
  void notes(Peer& peer, const wire::Notes& m, const wire::Message& raw);
  void pass_on(Submission& s, const std::vector<wire::TaskNote>& notes,
               const std::string_view& bytes);
  void take_status(Endpoint& e, const Bytes& status);
  void endpoint_gone(Endpoint& e);
  // A question to the interchange; `answer` gets kTimeout when there is none.
  void call_endpoint(Endpoint& e, const std::string& method, const std::string& parameters,
                     std::function<void(Result<Bytes>)> answer);
  void take_reply(Peer& peer, const wire::Reply& m, const wire::Message& raw);
  void fail_calls(PeerId peer, MonoTime due_before);

  // --- delivery.cpp ---
  void deliver(Endpoint& e);
  bool fill(Endpoint& e, wire::Work& work, std::vector<Bytes>& functions,
            std::vector<Bytes>& chunks);
  Submission* next_of_user(Endpoint& e, const std::set<Endpoint::Place>& places,
                           const std::set<SubmissionId>& waiting);
  bool add_slice(Endpoint& e, Submission& s, wire::Work& work, std::vector<Bytes>& functions,
                 std::vector<Bytes>& chunks);
  const Bytes* chunk_data(Submission& s, std::uint32_t first);
  void prefetch(Submission& s);
  void introduce(Endpoint& e, const Submission& s, wire::Work& work, std::vector<Bytes>& functions);

  // --- results.cpp ---
  void results(Peer& peer, const wire::Results& m, const wire::Message& raw);
  void record(Endpoint& e, const wire::SubmissionOutcomes& outcomes, const Bytes& data);
  enum class Verdict { kAccept, kSuperseded, kUnknown };
  Verdict judge(const Submission& s, const TaskOutcome& outcome, const RangeSet& in_row) const;
  void deliver_again(SubmissionId id, RangeSet tasks);
  void put_aside(Endpoint& e, SubmissionId id, std::vector<TaskOutcome> outcomes, Bytes data);
  void commit_row(Submission& s, std::shared_ptr<OutcomeRow> row);
  void row_durable(const OutcomeRowPtr& row);

  // --- watches.cpp ---
  void watch(Peer& peer, const wire::Watch& m);
  void push(Peer& peer);
  // False: out of credit, nothing to send, or a load is under way.
  bool push_one(Peer& peer, Submission& s, WatchState& w);
  bool send_row(Peer& peer, WatchState& w, const OutcomeRow& row);
  void collected(Peer& peer, const wire::Collected& m);
  void write_soon(SubmissionId id);
  void write_what_waits();
  void progress_changed(Submission& s);
  void flush_progress(Peer& peer);
  void flush_acks(Peer& peer);
  void load_rows(SubmissionId id, RangeSet wanted, std::uint64_t after, std::uint64_t bytes_max,
                 std::function<void(LoadedRows)> then, std::uint64_t* token = nullptr);

  // --- blobs.cpp ---
  static std::string scope_of(const std::string& user);
  void blob_found(const std::string& scope, const wire::BlobRef& blob);
  void blob_offer(Peer& peer, const wire::BlobOffer& m);
  void blob_pulled(const PullBlob& pull, const Result<void>& outcome);
  void blob_get(Peer& peer, const wire::BlobGet& m);
  Result<std::vector<wire::BlobRef>> blobs_of(const std::string& user, const std::string& what,
                                              std::string_view payload) const;
  void need_blob(const std::string& user, const BlobUse& blob);
  void release_blob(const std::string& user, const std::string& hash);
  void note_blobs(Submission& s, const std::vector<wire::BlobRef>& blobs);
  void release_blobs(Submission& s);
  void collect_blobs();

  // --- stored.cpp: large results at their endpoints ---
  Result<nlohmann::json> answer_about_stored(const Peer& peer, std::uint64_t request,
                                             const std::string& method, const nlohmann::json& p);
  void drop_brought(const std::string& user, const std::string& hash);
  void forget_stored(Endpoint& e, const std::vector<SubmissionId>& over);

  // --- cancel.cpp ---
  CancelCount cancel(Submission& s, const RangeSet& wanted, bool force, const std::string& why);
  CancelCount cancel_whole(Submission& s, bool force, const std::string& why);
  void record_cancelled(Submission& s, const RangeSet& tasks, const std::string& why);

  // --- calls.cpp, calls_tasks.cpp ---
  void call(Peer& peer, const wire::Call& m, const wire::Message& raw);
  Result<nlohmann::json> answer(Peer& peer, std::uint64_t request, const std::string& method,
                                const nlohmann::json& p);
  Result<nlohmann::json> answer_about_functions(Peer& peer, std::uint64_t request,
                                                const std::string& method, const nlohmann::json& p);
  Result<nlohmann::json> answer_about_tasks(Peer& peer, std::uint64_t request,
                                            const std::string& method, const nlohmann::json& p);
  Result<nlohmann::json> invite(const Peer& peer, const nlohmann::json& p);
  Result<nlohmann::json> endpoint_register(const Peer& peer, const nlohmann::json& p);
  Result<nlohmann::json> endpoint_delete(const Peer& peer, const nlohmann::json& p);
  nlohmann::json endpoint_json(const Endpoint& e) const;
  Result<Endpoint*> endpoint_param(const std::string& user, const nlohmann::json& p);
  Result<nlohmann::json> submission_list(const Peer& peer, const nlohmann::json& p);
  Result<nlohmann::json> group_list(const Peer& peer);
  Result<nlohmann::json> task_list(const Peer& peer, const nlohmann::json& p);
  Result<nlohmann::json> task_cancel(const Peer& peer, const nlohmann::json& p);
  Result<nlohmann::json> task_status(const Peer& peer, std::uint64_t request,
                                     const nlohmann::json& p);
  Result<nlohmann::json> task_explain(const Peer& peer, std::uint64_t request,
                                      const nlohmann::json& p);
  Result<nlohmann::json> task_bring(const Peer& peer, const nlohmann::json& p);
  std::vector<std::string> explain_lines(const Submission& s, std::uint32_t index);
  nlohmann::json task_json(const Submission& s, std::uint32_t index);
  TaskState state_of(const Submission& s, std::uint32_t index) const;
  std::string endpoint_name(EndpointId id);
  std::string function_name(const Submission& s);
  Result<std::pair<Submission*, std::uint32_t>> task_param(const std::string& user,
                                                           const nlohmann::json& p);

  // --- retention.cpp ---
  void housekeeping();
  void close_unsealed();
  void purge();
  std::int64_t over_at_ms(const Submission& s) const;  // REQUIRES: it is finished
  void purge_submission(Submission& s);
  std::string broken_invariant() const;
  std::string broken_submission(const Submission& s) const;

  Options options_;
  Now now_;
  Effects effects_;
  Core::Counters counters_;
  std::string generation_;
  Rng rng_;

  std::map<std::string, UserKey> user_keys_;
  std::map<std::string, Invitation> invitations_;
  std::map<EndpointId, Endpoint> endpoints_;
  std::map<std::pair<std::string, FunctionId>, Function> functions_;
  std::unordered_map<SubmissionId, std::unique_ptr<Submission>> submissions_;
  std::map<std::string, std::set<SubmissionId>> by_user_;  // ids are ordered by time
  std::map<SubmissionId, Tombstone> tombstones_;
  std::map<PeerId, Peer> peers_;
  std::map<std::pair<std::string, std::string>, Blob> blobs_;  // by scope and hash
  Lru<std::pair<SubmissionId, std::uint32_t>, Bytes> chunk_cache_;
  Lru<std::pair<SubmissionId, std::uint64_t>, OutcomeRowPtr> row_cache_;
  std::set<std::pair<SubmissionId, std::uint32_t>> chunk_loads_;
  // Calls that wait for a chunk; null: it cannot be read.
  std::multimap<std::pair<SubmissionId, std::uint32_t>, std::function<void(const Bytes*)>>
      chunk_waiters_;
  std::map<std::uint64_t, std::function<void(LoadedRows)>> row_loads_;
  std::uint64_t last_token_ = 0;

  struct PendingCall {
    PeerId peer = 0;
    MonoTime due;
    std::function<void(Result<Bytes>)> answer;
  };
  std::map<std::uint64_t, PendingCall> calls_;
  std::uint64_t last_call_ = 0;

  std::uint64_t last_ticket_ = 0;
  std::uint64_t committed_ = 0;
  std::optional<Error> stuck_;  // why the store does not write
  std::vector<std::function<void()>> fresh_;
  std::deque<std::pair<std::uint64_t, std::function<void()>>> waiting_;
  // To be looked at before the event ends.
  std::set<EndpointId> deliver_to_;
  std::set<PeerId> push_to_, progress_to_, ack_to_;
  std::optional<MonoTime> progress_due_;  // somebody's that had to wait
  std::set<SubmissionId> soon_;           // records to be written, by soon_due_
  MonoTime soon_due_;

  MonoTime next_housekeeping_;
  Now last_housekeeping_;
  MonoTime purge_not_before_;
};

}  // namespace farcall::relay
