// An interchange's core in a simulated world: a relay, a scheduler, a disk and pilots, all in one
// process and in virtual time, driven by one seed. Whatever can go wrong outside goes wrong until
// `calm_after`; afterwards everything has to come to an end.
#pragma once

#include <map>
#include <memory>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "interchange/core/core.h"

namespace farcall::interchange::sim {

struct Scenario {
  std::uint64_t seed = 1;
  int submissions = 8;
  int tasks_per_submission = 150;
  int nodes_per_block = 3;
  int max_blocks = 6;
  std::uint32_t slots = 4;
  Duration task_max = seconds(20);
  Duration walltime = seconds(300);
  Duration calm_after = seconds(900);
  Duration limit = std::chrono::hours(12);  // virtual; then it hangs
  bool faults = true;
  int fault_every_ms = 2000;  // one thing goes wrong in this time, on average
  int check_every = 1;        // events between two sanity checks
  std::uint64_t window_tasks = 400;
};

struct Job {
  std::string id, name;
  BlockId block;
  int nodes = 0;
  enum class State { kQueued, kRunning, kEnded } state = State::kQueued;
  BlockEnd end = BlockEnd::kUnknown;
  bool held = false;  // the submit command failed, and no job was made
};

struct SimTask {
  bool final = false;
  TaskState state = TaskState::kPending;
  FailureClass failure = FailureClass::kNone;
  std::uint16_t attempt = 1;  // newest known at the relay
  TaskHistory history;
  bool cancel = false;
};

struct SimSubmission {
  SubmissionHeader header;
  std::vector<SimTask> tasks;
  RangeSet delivered;  // in this session
  bool header_sent = false;
};

struct SimAttempt {
  std::string arguments;
  std::uint32_t cores = 1;
  bool running = false;
};

struct SimPilot {
  PilotId id;
  BlockId block;
  std::string job;
  std::uint32_t rank = 0;
  std::int64_t incarnation = 0;
  bool alive = true, stopping = false, up = false;
  PeerId peer = 0;
  std::uint64_t epoch = 0;
  std::uint32_t slots = 0;
  std::map<wire::AttemptRef, SimAttempt> attempts;
  std::map<std::uint64_t, wire::Message> unacknowledged;
  std::map<std::uint64_t, std::uint64_t> outcomes_in;  // of each batch
  std::uint64_t next_batch = 1;
  std::map<SubmissionId, SubmissionHeader> headers;
  Duration to_core{0}, from_core{0};  // last delivery, so that order is kept
};

class World {
 public:
  explicit World(Scenario scenario);
  // "" when all tasks have ended as they may; else what is wrong.
  std::string run();
  std::string summary() const;

 private:
  using Action = std::function<void()>;
  struct Event {
    Duration at;
    std::uint64_t order;
    Action action;
    bool operator<(const Event& other) const {
      return std::tie(other.at, other.order) < std::tie(at, order);
    }
  };
  void in(Duration delay, Action action);
  Now now() const { return {{seconds(1000) + time_}, {seconds(1'700'000'000) + time_}}; }
  bool chance(std::uint64_t percent) { return rng_.below(100) < percent; }
  Duration up_to(Duration limit) {
    return Duration(
        static_cast<std::int64_t>(rng_.below(static_cast<std::uint64_t>(limit.count()) + 1)));
  }
  void complain(const std::string& what);

  // interchange
  void start_core();
  void kill_core();
  void event(const Action& action);
  void carry_out(Effect& effect);
  void write(Effect effect, Action after);
  void store(const Effect& effect);
  void tick();

  // relay
  void dial_relay();
  void to_relay(const wire::Message& message);
  void relay_hello(const wire::Message& message);
  void relay_receives(const wire::Message& message);
  void from_relay(wire::Message message);
  void deliver_work();
  void record(const wire::Results& results, const Bytes& data);
  void break_relay();
  void wish_cancel();

  // scheduler
  void provider(Action action);
  void submit(const effect::SubmitBlock& block);
  void start_job(const std::string& id);
  void end_job(const std::string& id, BlockEnd end);
  std::vector<JobReport> reports(const std::vector<std::string>& ids) const;

  // pilots
  void start_pilot(const Job& job, std::uint32_t rank);
  void dial(PilotId id);
  void break_pilot(SimPilot& pilot);
  void kill_pilot(PilotId id);
  void to_core(SimPilot& pilot, wire::Message message);
  void from_core(PeerId peer, wire::Message message);
  void pilot_receives(SimPilot& pilot, const wire::Message& message);
  void take(SimPilot& pilot, const wire::Message& message);
  void start_tasks(SimPilot& pilot);
  void end_task(PilotId id, const wire::AttemptRef& ref);
  void deliver(SimPilot& pilot, const wire::AttemptRef& ref, TaskOutcome outcome, std::string data);
  void stop_pilot(SimPilot& pilot, Duration grace);
  void leave(PilotId id);
  void heartbeat(PilotId id);
  void give_back(SimPilot& pilot, bool running);
  SimPilot* pilot(PilotId id);

  void fault();
  bool all_final() const;
  std::string check_end() const;

  Scenario scenario_;
  Rng rng_;
  Duration time_{0};
  std::uint64_t order_ = 0, events_ = 0;
  std::priority_queue<Event> events_waiting_;
  std::string wrong_;

  std::unique_ptr<Core> core_;
  std::uint64_t life_ = 0;  // of the interchange
  Recovered disk_;
  std::uint64_t writes_pending_ = 0;
  Duration disk_free_{0};
  bool exited_ = false, stopping_ = false;

  bool relay_up_ = false;
  std::uint64_t relay_session_ = 0;
  Duration relay_in_{0}, relay_out_{0};
  wire::Credit credit_;
  std::uint64_t sent_tasks_ = 0, sent_bytes_ = 0;
  FunctionRecord function_;
  bool function_sent_ = false;
  std::vector<SimSubmission> submissions_;
  std::map<SubmissionId, std::size_t> submission_index_;

  std::map<std::string, Job> jobs_;
  std::set<std::string> names_submitted_;
  int job_number_ = 0;
  Duration provider_free_{0};

  std::map<PilotId, SimPilot> pilots_;
  std::map<PeerId, PilotId> peers_;
  PeerId next_peer_ = 1;

  int faults_ = 0, restarts_ = 0, recorded_ = 0, superseded_ = 0, ran_ = 0;
};

}  // namespace farcall::interchange::sim
