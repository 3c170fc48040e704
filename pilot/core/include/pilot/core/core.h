// The node agent's mind: what it holds, what runs, what it still owes the interchange. Pure: events
// and the time go in, effects come out of take_effects(). Not thread-safe.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "pilot/core/attempt.h"
#include "pilot/core/note.h"
#include "wire/blobs.h"
#include "wire/message.h"
#include "wire/messages.h"

namespace farcall::pilot {

struct Settings {
  wire::PilotHello hello;  // all that does not change; epoch, holds … are filled in at each hello
  std::uint32_t slots = 0;                            // 0: as many as hello.cores
  std::optional<wire::Topology> topology;             // likewise, sent after each welcome
  Duration heartbeat = std::chrono::seconds(10);      // the welcome may say otherwise
  Duration lost_timeout = std::chrono::seconds(120);  // likewise
  Duration orphan_timeout = std::chrono::seconds(300);
  Duration linger = std::chrono::seconds(3);  // for the last acknowledgements when stopping
  std::optional<MonoTime> allocation_end;
  // Without a connection new results are saved after so long, and then less and less often.
  Duration save_after = std::chrono::seconds(5);
  // At most so many tasks of a short function lie ready behind each other at one worker.
  std::uint32_t line_up = 128;
};

struct Send {
  wire::Message message;
};
struct Start {
  Assignment work;
  // It may wait behind another at a worker: every slot is taken and its function is a short one.
  bool line_up = false;
};
struct Kill {
  wire::AttemptRef ref;
};
// This session is not with whom it should be: begin another one in a while.
struct Redial {
  std::string why;
};
// Results that nobody has taken, as a file where the interchange will look for them. All that was
// saved before stays.
struct Save {
  wire::Message results;
};
// All that was saved has been taken: the files can go.
struct DropSaved {};
// Answered by on_blob() when it is a file on this node or cannot be.
struct GetBlob {
  wire::BlobRef blob;
};
// No attempt here needs it any more.
struct DropBlob {
  std::string hash;
};
struct Exit {
  int code = 0;
  std::string why;
};
using Effect = std::variant<Send, Start, Kill, Redial, Save, DropSaved, StartGuest, EndGuest,
                            GuestEnded, GetBlob, DropBlob, Exit>;

// How a runner says that an attempt is over.
struct Finished {
  wire::AttemptRef ref;
  TaskOutcome outcome;  // index, attempt, host, data_size and times that are 0 are filled in here
  Bytes data;
};

class Core {
 public:
  Core(Settings settings, Now now);
  ~Core();

  // Connection.
  wire::PilotHello make_hello(Now now);
  void on_message(const wire::Message& message, Now now);
  void on_down(Now now);
  // The node's own wish to end (SIGTERM): as a Stop with this grace.
  void on_terminate(const std::string& reason, Duration grace, Now now);

  // Runners. For each Start: at most one on_began, then exactly one of on_finished, on_returned
  // (did not run, or did not end, through no fault of its own) and, after a Kill only, on_killed.
  void on_began(const wire::AttemptRef& ref, Now now);
  void on_finished(Finished finished, Now now);
  void on_returned(const wire::AttemptRef& ref, Now now);
  void on_killed(const wire::AttemptRef& ref, Now now);
  void on_note(const wire::AttemptRef& ref, Note note);  // of an attempt that runs
  // Tasks over several nodes. spawn: something is wanted on another node of an attempt that is led
  // from here; a GuestEnded follows.
  void spawn(wire::Spawn spawn);
  void on_guest_ended(wire::Spawned spawned);
  void on_blob(const std::string& hash, const Result<std::string>& file, Now now);

  // After each turn of the loop: places what can start, and sends what was collected.
  void settle(Now now);
  // When time alone changes something; call settle() then.
  std::optional<MonoTime> next_deadline() const;
  std::vector<Effect> take_effects();

  std::uint32_t running() const;  // handed to runners
  // Of those, how many wait behind another one at its worker.
  std::size_t lined_up() const { return lined_up_refs_.size(); }
  // Those that wait for blobs as well.
  std::uint32_t queued() const {
    return static_cast<std::uint32_t>(queue_.size() + waiting_.size());
  }
  // Of an attempt that its runner has begun and nobody has killed; nullptr: there is none.
  const Assignment* running_work(const wire::AttemptRef& ref) const;
  // Some attempt of it is queued or running here.
  bool holds(const TaskId& task) const;
  bool stopping() const { return stopping_; }
  std::uint32_t slots() const { return slots_; }
  std::size_t unacknowledged() const;
  // The first invariant that does not hold; empty: all is well.
  std::string sanity_check() const;

 private:
  // What is known of how long a function takes.
  struct Pace {
    std::uint32_t short_runs = 0;  // in a row
    double mean_ms = 0;            // of them, the latest counting most
  };
  struct Batch {
    wire::Message message;
    std::uint32_t outcomes = 0;
  };

  void on_welcome(const wire::PilotWelcome& welcome, Now now);
  void on_dispatch(const wire::Message& message, Now now);
  void on_cancel(const wire::CancelAttempts& cancel, Now now);
  void begin_stop(const std::string& reason, Duration grace, Now now);

  // The only place where an attempt changes its state. False: it cannot, which is a bug of ours or
  // of a runner and is logged.
  bool apply(Attempt& attempt, AttemptEvent event);
  Attempt* find(const wire::AttemptRef& ref);
  void on_places(wire::Places places);
  void set_guests(const std::vector<wire::Guest>& guests);
  void on_spawn(wire::Spawn spawn);
  void enqueue(Assignment work, Now now);
  void kill(Attempt& attempt, EndReason reason);
  void drop_queued(const wire::AttemptRef& ref);
  void remove(const wire::AttemptRef& ref, Now now);
  void end_killed(const wire::AttemptRef& ref, Now now);
  void deliver(Attempt& attempt, TaskOutcome outcome, Bytes data, Now now);
  void deliver_own(Attempt& attempt, TaskState state, FailureClass failure, Now now);
  void pace(const Attempt& attempt, const TaskOutcome& outcome, Now now);

  void await_blobs(Attempt& attempt, Now now);
  void fail_input(Attempt& attempt, const Error& error, Now now);
  void release_blobs(const Assignment& work);

  void place(Now now);
  bool may_line_up(const Attempt& attempt) const;
  std::uint32_t line_of(const Pace& pace) const;
  std::uint32_t cores_of(const Assignment& work) const;
  void release(const Attempt& attempt);
  MonoTime walltime_end(const Attempt& attempt) const;
  MonoTime orphan_at() const;
  void expire(Now now);
  void report_running(Now now);
  void report_notes(Now now);
  void send_results();
  void make_batch();
  void on_results_ack(const wire::ResultsAck& ack);
  void save_in_time(Now now);
  void save();
  void send_status(Now now);
  void maybe_exit(Now now);
  void send(wire::Message message) { effects_.push_back(Send{std::move(message)}); }
  std::int64_t remaining_s(Now now) const;
  void conclude(Finished finished, Now now);
  void settle_suspects(Now now);
  void exit(int code, std::string why);

  Settings settings_;
  std::uint64_t epoch_ = 0;
  std::uint32_t slots_ = 0;
  bool up_ = false;
  bool stopping_ = false;
  bool exited_ = false;
  std::string stop_reason_;
  MonoTime stop_deadline_ = MonoTime::max();
  MonoTime work_end_ = MonoTime::max();  // a little before the allocation's end
  bool work_over_ = false;
  bool terminated_ = false;         // by the batch system, which ends every process of the job
  std::vector<Finished> suspects_;  // died of SIGTERM: perhaps with us, then it is no outcome
  MonoTime suspects_until_ = MonoTime::max();
  MonoTime linger_until_ = MonoTime::max();
  MonoTime silent_since_;      // while not up_
  bool cut_off_seen_ = false;  // settle() has seen the lost-timeout pass …
  bool orphan_seen_ = false;   // … and the orphan one
  MonoTime next_status_;
  MonoTime next_running_report_ = MonoTime::max();

  std::map<wire::AttemptRef, Attempt> attempts_;
  std::deque<wire::AttemptRef> queue_;
  std::set<wire::AttemptRef> waiting_;  // queued, and not in queue_ until their blobs are here
  struct BlobUse {
    std::string file;  // empty: it is being fetched
    std::set<wire::AttemptRef> holders;
  };
  std::map<std::string, BlobUse> blobs_;  // by hash
  std::uint32_t cores_used_ = 0;          // by what was handed over without being lined up
  std::map<wire::AttemptRef, std::uint32_t> held_;    // … and by which
  std::map<wire::AttemptRef, std::uint32_t> guests_;  // led elsewhere, with slots of ours
  std::uint32_t guest_slots_ = 0;
  std::map<wire::AttemptRef, std::shared_ptr<const wire::TaskPlace>>
      places_;                                // of a coming Dispatch
  std::set<wire::AttemptRef> lined_up_refs_;  // handed over beyond the slots
  std::set<std::pair<MonoTime, wire::AttemptRef>> walltimes_;

  // Of this session.
  std::unordered_map<FunctionId, std::shared_ptr<const Function>> functions_;
  std::unordered_map<SubmissionId, std::shared_ptr<const SubmissionHeader>> headers_;
  std::unordered_map<FunctionId, Pace> paces_;

  // Outcomes: collected in this turn, then in batches until acknowledged.
  std::map<SubmissionId, std::vector<std::pair<TaskOutcome, Bytes>>> fresh_;
  std::size_t fresh_count_ = 0;
  std::vector<wire::AttemptRef> hand_back_, hand_back_late_;  // late: no time is left for them
  std::vector<wire::AttemptRef> hand_back_killed_;
  std::vector<wire::AttemptRef> hand_back_displaced_;  // began, and ended with another's fault
  std::map<std::uint64_t, Batch> batches_;
  std::uint64_t last_batch_ = 0;
  std::uint64_t saved_batch_ = 0;  // all up to here that are not acknowledged are in files
  bool saved_any_ = false;
  MonoTime next_save_ = MonoTime::max();
  Duration save_delay_{0};
  std::map<SubmissionId, RangeSet> reported_running_;
  std::map<wire::AttemptRef, Note> notes_;  // not told yet
  MonoTime next_notes_;                     // not before

  std::vector<Effect> effects_;
};

}  // namespace farcall::pilot
