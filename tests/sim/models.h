// What surrounds the interchange's core in a simulation: pilots, a relay, a scheduler and a disk.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "interchange/core/core.h"

namespace farcall::sim {

using interchange::Core;
using interchange::PeerId;
using std::chrono::milliseconds;
using std::chrono::seconds;

struct Options {
  std::uint64_t seed = 1;
  int blocks = 4;
  int nodes_per_block = 5;
  std::uint32_t slots = 2;
  int submissions = 4;
  std::uint32_t tasks_per_submission = 200;
  std::uint32_t chunk_tasks = 64;
  std::uint64_t window_tasks = 400;
  int task_ms_max = 20'000;
  double walltime_s = 100;
  bool retry_never = false;
  int task_ms = 0;                // of every task, instead of any up to task_ms_max
  std::uint64_t walltime_ms = 0;  // of a task, as its submission says
  bool ends_known = false;        // pilots know when their allocation ends
  int latency_ms_max = 3000;      // of a pilot's start, and of a job's end after its last pilot's
  std::int64_t prefetch = -1;
  Duration limit = std::chrono::hours(12);
  // Faults; rates are per message or per call.
  double message_loss = 0.003;
  double task_failure = 0.05;
  double scheduler_fault = 0.1;
  Duration pilot_kill_every = seconds(30);  // mean; zero: never
  Duration cut_every{0};  // a pilot is out of reach for longer than the lost-timeout
  Duration crash_every = seconds(60);
  Duration outage_every = seconds(80);
  Duration cancel_every = seconds(5);
  Duration faults_until = std::chrono::minutes(20);
};

struct Tally {
  std::uint64_t events = 0, checks = 0, resets = 0, crashes = 0, outages = 0, kills = 0, jobs = 0;
  std::uint64_t duplicates = 0, stale_failures = 0, wished = 0, starts = 0;
  std::uint64_t left = 0, left_taken = 0;  // files of results that pilots could not deliver
  std::uint64_t early = 0;                 // failures before the budget of their class was spent
  std::uint64_t succeeded = 0, failed = 0, cancelled = 0;
  double held_s = 0, worked_s = 0;  // core-seconds of jobs, and of tasks that were finished
  std::uint64_t cut_off = 0;        // tasks that ran when their allocation ended
  std::uint64_t queries = 0;
  std::uint64_t trace = 0;       // hash over all that happened, for repeatability
  std::uint64_t cuts = 0;        // pilots that nobody could reach for minutes
  std::uint64_t lost = 0;        // tasks that ended so
  std::uint64_t after_lost = 0;  // results of those that came after all
  int attempt_max = 0;
  Duration virtual_time{0};
  std::string error;  // "": all held
};

class Simulation;

// One connection: in order, or not at all.
struct Link {
  std::uint64_t generation = 0;
  Duration last[2] = {Duration{0}, Duration{0}};
  std::function<void()> on_reset;
};

// What is on disk: only what was applied survives a crash.
struct Disk {
  std::uint64_t epoch = 0;
  std::map<FunctionId, interchange::DurationsRecord> durations;
  std::map<BlockId, interchange::BlockRecord> blocks;
  std::map<std::uint64_t, interchange::PlacementRecord> placements;
  std::map<std::uint64_t, interchange::SpoolRecord> spool;
};

// A file in a block's directory on shared storage.
struct LeftResults {
  PilotId pilot;
  wire::Message results;
};

class RelayModel {
 public:
  explicit RelayModel(Simulation& sim) : sim_(sim) {}
  void add_submissions();
  void hello(const wire::Message& message);
  void receive(const wire::Message& message);
  void session_lost() { session_ = false; }
  void outage();
  void cancel_some();
  bool up() const { return up_; }
  bool all_final() const { return open_ == 0; }
  std::uint64_t open() const { return open_; }
  std::string unfinished() const;

 private:
  struct Task {
    TaskState state = TaskState::kPending;
    TaskHistory history;
    bool wished = false;
    bool lost = false;  // it ended so
  };
  struct Entry {
    SubmissionHeader header;
    std::vector<Task> tasks;
    RangeSet there;  // held according to the hello, or delivered in this session
    bool header_sent = false;
  };
  void deliver();
  bool deliver_chunk(Entry& entry, std::uint32_t first);
  void record(const wire::Message& message);
  void record_one(Entry& entry, const TaskOutcome& outcome, std::string_view data);
  void send(wire::Message message);
  void check_budgets(const Entry& entry, const TaskHistory& history);
  void end(Entry& entry, std::uint32_t index, TaskState state);
  void send_wishes();

  Simulation& sim_;
  bool up_ = true, session_ = false;
  std::uint64_t life_ = 0, session_number_ = 0;
  std::uint64_t epoch_ = 0, open_ = 0;
  wire::Credit credit_, sent_;
  std::map<SubmissionId, Entry> entries_;
  FunctionRecord function_;
  bool function_sent_ = false;
};

class PilotModel {
 public:
  PilotModel(Simulation& sim, BlockId block, std::string job, std::uint32_t rank);
  void connect();
  void interchange_died();
  void receive(const wire::Message& message);
  void allocation_ends();  // SIGTERM
  void cut_off(Duration time);
  void die();
  bool alive() const { return alive_; }
  PeerId peer() const { return peer_; }
  const std::string& job() const { return job_; }
  std::uint32_t rank() const { return rank_; }
  BlockId block() const { return block_; }
  Link link;
  Duration ends = Duration::max();  // of the allocation, as far as known

 private:
  struct Held {
    std::uint64_t serial = 0;
    std::uint32_t cores = 1;
    std::int64_t started_ms = 0;
  };
  void on_welcome(const wire::PilotWelcome& welcome);
  void on_dispatch(const wire::Message& message);
  void on_cancel(const wire::CancelAttempts& cancel);
  void on_stop(const wire::Stop& stop);
  void start_some();
  void finished(const wire::AttemptRef& ref, std::uint64_t serial);
  void add_outcome(const wire::AttemptRef& ref, TaskState state, FailureClass failure,
                   std::string data, std::int64_t started_ms = 0);
  void flush();
  void hand_back(bool running_too, FailureClass reason);
  void heartbeat();
  void exit_when_done();
  void leave_results();
  void send(wire::Message message);

  Simulation& sim_;
  BlockId block_;
  std::string job_;
  std::uint32_t rank_;
  PilotId id_;
  std::int64_t incarnation_;
  bool alive_ = true, welcomed_ = false, stopping_ = false, beats_ = false, flush_set_ = false;
  PeerId peer_ = 0;
  std::uint64_t epoch_ = 0, serials_ = 0, next_batch_ = 1;
  std::uint32_t slots_ = 0, busy_ = 0;
  std::map<SubmissionId, SubmissionHeader> headers_;
  std::set<FunctionId> functions_;
  std::deque<wire::AttemptRef> queue_;
  std::map<wire::AttemptRef, Held> running_;
  std::map<std::uint64_t, std::pair<wire::Message, std::uint64_t>> unacknowledged_;
  std::map<SubmissionId, std::pair<std::vector<TaskOutcome>, std::string>> outbox_;
};

class SchedulerModel {
 public:
  explicit SchedulerModel(Simulation& sim) : sim_(sim) {}
  void submit(const interchange::effect::SubmitBlock& call);
  void query(std::vector<std::string> ids);
  void find(BlockId block, const std::string& name);
  void cancel(std::vector<std::string> ids);
  void pilot_exited(const std::string& job);
  void kill_a_pilot();
  void cut_off_a_pilot();
  std::string live_jobs() const;

 private:
  struct Job {
    std::string name;
    BlockId block;
    interchange::JobReport::State state = interchange::JobReport::State::kQueued;
    interchange::BlockEnd end = interchange::BlockEnd::kUnknown;
    Duration listed_from{0}, ended_at{0}, started_at{0};
    int alive = 0, nodes = 0;
  };
  PilotModel* any_pilot() const;
  std::string create(const interchange::effect::SubmitBlock& call);
  void start(const std::string& id, int nodes, double walltime_s);
  void end(const std::string& id, interchange::BlockEnd how);
  bool listed(const Job& job) const;

  Simulation& sim_;
  std::map<std::string, Job> jobs_;
  std::set<std::string> names_;
  std::uint64_t numbers_ = 1000;
};

}  // namespace farcall::sim
