// The interchange as a pure state machine: events and the time go in, effects come out. It opens no
// file, reads no clock and has no thread; not thread-safe.
//
// The caller hands over every event in the order it happened, calls tick() at least every 100 ms,
// and take_effects() after each batch of events: tasks are placed then, once for all of them.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "interchange/core/blocks.h"
#include "interchange/core/effects.h"
#include "interchange/core/fit.h"
#include "interchange/core/nodes.h"
#include "interchange/core/pilots.h"
#include "interchange/core/queue.h"
#include "interchange/core/settings.h"
#include "interchange/core/state.h"
#include "interchange/core/walltime.h"
#include "wire/codec.h"

namespace farcall::interchange {

class Core {
 public:
  Core(Settings settings, Rng rng);
  Core(const Core&) = delete;

  // Before anything else, when there is something.
  void recover(const Recovered& state, Now now);

  // --- relay ---
  wire::Message make_hello();
  void relay_message(const wire::Message& message, Now now);  // the welcome included
  void relay_down();

  // --- pilots; `block`: whose key opened the connection ---
  void pilot_hello(PeerId peer, BlockId block, const wire::Message& hello, Now now);
  void pilot_message(PeerId peer, const wire::Message& message, Now now);
  void pilot_gone(PeerId peer, Now now);
  // A wire::Results that the pilot left in `file` of its block's directory. The same file may come
  // again; it is dropped when what is in it is safe.
  void results_left(BlockId block, PilotId pilot, const std::string& file,
                    const wire::Message& results, Now now);

  // --- disk ---
  void block_saved(BlockId block, std::uint64_t serial, Now now) {
    blocks_.saved(block, serial, now);
  }
  void spooled(std::uint64_t batch);  // and all before it

  // --- scheduler ---
  void provider_submitted(BlockId block, const Result<std::string>& job_id, Now now) {
    blocks_.submitted(block, job_id, now);
  }
  void provider_found(BlockId block, const Result<std::vector<std::string>>& job_ids, Now now) {
    blocks_.found(block, job_ids, now);
  }
  void provider_reported(const Result<std::vector<JobReport>>& reports, Now now) {
    blocks_.reported(reports, now);
    settle_ended_blocks(now);
  }
  void provider_cancelled(const std::vector<std::string>& job_ids, const Result<void>& outcome,
                          Now now) {
    blocks_.cancelled(job_ids, outcome, now);
  }

  void tick(Now now);
  // Tells the pilots to stop, ends all blocks, then asks for Exit.
  void stop(const std::string& reason, Now now);
  // Nothing more is placed; waiting blocks are cancelled, the others end when what runs on them has
  // ended. resume() goes on, also after a pause because of failures, and forgives bad nodes.
  // `answer` goes to the relay when it is on disk.
  void drain(Now now, std::optional<wire::Message> answer = std::nullopt);
  void resume(Now now, std::optional<wire::Message> answer = std::nullopt);
  // Places what can be placed, then hands over all that is to be done.
  Effects take_effects(Now now);

  std::string status_json(Now now) const;
  std::vector<std::string> explain(const TaskId& task, Now now) const;
  const Counters& counters() const { return counters_; }
  const Queue& queue() const { return queue_; }
  const Pilots& pilots() const { return pilots_; }
  const Blocks& blocks() const { return blocks_; }
  bool welcomed() const { return welcomed_; }
  std::uint64_t epoch() const { return epoch_; }
  // "" or the first invariant that does not hold.
  std::string sanity_check() const;

 private:
  // relay.cpp
  void on_welcome(const wire::EndpointWelcome& welcome, Now now);
  void on_work(const wire::Message& message, Now now);
  void add_header(const SubmissionHeader& header);
  void on_results_ack(const wire::ResultsAck& ack);
  void on_cancel_tasks(const wire::CancelTasks& cancel, Now now);
  void cancel_ranges(Submission& submission, const RangeSet& wished, Now now);
  void on_call(const wire::Message& message, Now now);
  void grant_credit(bool at_welcome);
  void send_relay(wire::Message message);
  void report_attempts();
  void report_running(Now now);
  void report_status(Now now);
  void fail_impossible(Submission& submission, Now now);
  void fail_spent(Submission& submission, const std::vector<TaskHistory>& histories, Now now);

  // pilots.cpp part of the core
  bool is_current(const Pilot& pilot) const;
  std::vector<wire::AttemptRef> reconcile(Pilot& pilot, const wire::PilotHello& hello, Now now);
  void return_missing(Pilot& pilot, Now now);
  void give_back(Pilot& pilot, Submission& submission, std::uint32_t index, Now now);
  void on_hand_back(Pilot& pilot, const wire::HandBack& back, Now now);
  void on_running(Pilot& pilot, const wire::Running& running);
  void fail_all_impossible(Now now);
  void on_topology(Pilot& pilot, wire::Topology topology, Now now);
  void on_spawn(Pilot& lead, wire::Spawn spawn);
  void on_spawned(const wire::Spawned& spawned);
  void lose_guests(Pilot& pilot, FailureClass failure, const std::string& why, Now now);
  void lose(Pilot& pilot, FailureClass failure, const std::string& why, Now now);
  void settle_ended_blocks(Now now);
  void stop_drained();
  void expire_pilots(Now now);
  void tell_to_stop(Pilot& pilot, const std::string& why, Duration grace);
  void send_pilot(Pilot& pilot, wire::Message message);
  void watch_node(const Pilot* pilot, const TaskId& task, FunctionId function,
                  const TaskOutcome& outcome, std::string_view data, Now now);
  bool is_newer(const Pilot& one, const Pilot& other) const;
  bool lets_end(const Pilot& pilot) const;

  // walltime.cpp
  Duration needs_time(const Submission& submission) const;  // zero: not known
  bool in_time(const Pilot& pilot, const Submission& submission, bool waits_first, Now now) const;
  bool is_too_short(const Pilot& pilot, Now now) const;
  Demand demand(Now now) const;

  // placement.cpp
  void place(Now now);
  void place_up_to(bool prefetch, Now now);
  std::uint64_t prefetch_of(const Pilot& pilot, const Submission& submission) const;
  void pace(const Submission& submission, const TaskOutcome& outcome);
  void dispatch(Pilot& pilot, Submission& submission, const RangeSet& tasks, Now now);
  wire::TaskPlace place_of(const Placement& placement);
  // wide_placement.cpp: tasks that get certain slots
  void place_wide(Submission& submission, const std::vector<Reservation>& before, Now now);
  bool place_one_wide(Submission& submission, const Wish& wish, Now now);
  void dispatch_wide(Submission& submission, const Wish& wish, const std::vector<Pilot*>& nodes,
                     const std::vector<Part>& parts, Now now);
  void make_plan(Now now);
  void plan_for(const Placement& placement, PilotId pilot, Now now);
  std::uint64_t kept_free(const Pilot& pilot, const Submission& s, bool waits, Now now) const;
  bool reserve(const Submission& submission, const Wish& wish, const Reservation* before, Now now);
  bool reserve_some_day(Reservation& made, const Submission& submission, const Wish& wish, Now now);
  Offer offer() const;
  void flush_dispatches();

  // results.cpp
  void on_results(Pilot& pilot, const wire::Message& message, Now now);
  // Nothing is taken of a message that is wrong. `left`: the number of the file it was in.
  struct Taken {
    std::uint64_t batch = 0, count = 0;
  };
  Result<Taken> take_results(PilotId pilot, std::optional<std::uint64_t> left,
                             const wire::Message& message, Now now);
  // False: it cannot be judged yet.
  bool judge(PilotId pilot, const SubmissionId& submission, const TaskOutcome& outcome,
             std::string_view data, Now now);
  void judge_failure(PilotId pilot, Submission& submission, const TaskOutcome& outcome,
                     std::string_view data, Now now);
  // The placed task was cut off by the end of its allocation: back to the queue uncharged, unless
  // it had most of a block.
  void cut_off(Pilot& pilot, Submission& submission, std::uint32_t index, const std::string& why,
               Now now);
  // The placed task failed at its current attempt: again, or finally.
  void charge(Submission& submission, std::uint32_t index, FailureClass failure,
              const std::string& why, const Pilot* pilot, Now now);
  void learn(const Submission& submission, const TaskOutcome& outcome);
  bool try_again(Submission& submission, std::uint32_t index, FailureClass failure);
  void take_off_pilot(Submission& submission, std::uint32_t index, bool cancel_there,
                      PilotId except = {});
  void emit(const SubmissionId& submission, TaskOutcome outcome, std::string_view data);
  void emit_failure(Submission& submission, std::uint32_t index, TaskState state,
                    FailureClass failure, const std::string& type, const std::string& text,
                    const Pilot* pilot, Now now);
  void flush_outcomes();
  void spool_older_than(Duration age);
  void acknowledge(const std::vector<PilotBatch>& batches);
  void judge_waiting(Now now);
  // late_results.cpp: what is lost and not to be tried again
  bool waits_for_late_result(Placement& placement, const Pilot& lost, const std::string& why);
  void found_again(const Pilot& pilot);
  void end_late_waits(Now now);

  const Settings settings_;
  Effects effects_;
  Queue queue_;
  Pilots pilots_;
  Blocks blocks_;
  Durations durations_;
  NodeHealth nodes_;
  Counters counters_;

  // relay session
  bool welcomed_ = false, ever_welcomed_ = false;
  std::uint64_t epoch_ = 0;
  std::uint64_t received_tasks_ = 0, received_bytes_ = 0;  // in this session
  std::uint64_t granted_tasks_ = 0, granted_bytes_ = 0;
  std::map<SubmissionId, std::map<std::uint32_t, TaskHistory>> attempts_to_report_;

  // results on their way
  std::map<std::uint64_t, Spooled> spool_;
  std::uint64_t spool_bytes_ = 0, outbox_bytes_ = 0;
  std::uint64_t next_batch_ = 1;
  std::uint64_t durable_batch_ = 0;  // all up to here are on disk or at the relay
  std::uint64_t spooled_batch_ = 0;  // all up to here that are still kept are on_disk
  std::map<SubmissionId, std::vector<TaskOutcome>> outbox_;
  std::map<SubmissionId, std::string> outbox_data_;
  std::vector<PilotBatch> outbox_owed_;
  std::unordered_map<TaskId, Unjudged> unjudged_;
  std::map<std::uint64_t, LeftFile> left_files_;  // taken in, not safe yet
  std::uint64_t last_left_ = 0;

  // placement
  std::unordered_map<FunctionId, Pace> paces_;
  std::uint64_t next_placement_ = 1;
  std::vector<PlacementRecord> placed_now_;
  std::vector<std::uint64_t> dropped_now_;
  std::map<PilotId, std::vector<std::pair<Submission*, RangeSet>>> dispatch_now_;
  std::map<PilotId, std::vector<wire::AttemptRef>> cancel_now_;
  std::uint32_t slots_seen_ = 0;  // of the largest node so far
  std::optional<std::uint32_t> gpus_seen_;
  std::uint64_t memory_seen_mib_ = 0;
  std::vector<Reservation> reservations_;  // in the order of the queue
  std::optional<Plan> plan_;               // while a turn of placement with wide tasks lasts

  // time
  Duration alive_{0};                     // the loop has been alive for so long
  Duration next_late_ = Duration::max();  // alive time; end_late_waits() has something to do then
  MonoTime last_tick_, stop_at_;
  MonoTime next_running_, next_status_, next_forced_status_, next_durations_;
  std::set<SubmissionId> running_changed_;
  bool ticked_ = false, stopping_ = false, exit_sent_ = false;
  std::string stop_reason_, last_status_, endpoint_name_;
};

}  // namespace farcall::interchange
