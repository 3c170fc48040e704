// Simulated pilots: run tasks for a while, keep results until acknowledged, give back when stopped.
#include "base/log.h"
#include "world.h"

namespace farcall::interchange::sim {

SimPilot* World::pilot(PilotId id) {
  const auto found = pilots_.find(id);
  return found == pilots_.end() || !found->second.alive ? nullptr : &found->second;
}

void World::start_pilot(const Job& job, std::uint32_t rank) {
  const PilotId id = make_id<PilotId>(now().wall, rng_);
  SimPilot& pilot = pilots_[id];
  pilot.id = id;
  pilot.block = job.block;
  pilot.job = job.id;
  pilot.rank = rank;
  pilot.incarnation = now().wall.milliseconds_since_epoch();
  dial(id);
  in(seconds(5), [this, id] { heartbeat(id); });
}

void World::kill_pilot(PilotId id) {
  SimPilot* victim = pilot(id);
  if (victim == nullptr) return;
  if (victim->peer != 0) {
    const PeerId peer = victim->peer;
    in(up_to(seconds(10)), [this, peer] { event([&] { core_->pilot_gone(peer, now()); }); });
  }
  pilots_.erase(id);
}

void World::break_pilot(SimPilot& pilot) {
  const PeerId peer = std::exchange(pilot.peer, 0);
  pilot.up = false;
  const std::uint64_t life = life_;
  in(up_to(seconds(12)), [this, peer, life] {
    if (life == life_) event([&] { core_->pilot_gone(peer, now()); });
  });
  in(up_to(chance(10) ? seconds(90) : seconds(5)), [this, id = pilot.id] { dial(id); });
}

void World::dial(PilotId id) {
  SimPilot* self = pilot(id);
  if (self == nullptr || self->peer != 0) return;
  if (!core_) {
    in(seconds(1), [this, id] { dial(id); });
    return;
  }
  self->peer = next_peer_++;
  peers_[self->peer] = id;
  self->up = false;
  self->headers.clear();
  self->to_core = self->from_core = time_;
  wire::PilotHello hello;
  hello.block = self->block;
  hello.pilot = id;
  hello.node = "n" + std::to_string(self->rank);
  hello.node_rank = self->rank;
  hello.incarnation = self->incarnation;
  hello.epoch = self->epoch;
  hello.cores = scenario_.slots;
  hello.remaining_s = chance(50) ? -1 : 200;
  for (const auto& [ref, attempt] : self->attempts) hello.holds.push_back(ref);
  for (const auto& [batch, count] : self->outcomes_in)
    if (self->unacknowledged.contains(batch)) hello.unacknowledged += count;
  const PeerId peer = self->peer;
  const std::uint64_t life = life_;
  self->to_core = time_ + up_to(milliseconds(20));
  in(self->to_core - time_,
     [this, life, peer, block = self->block, message = wire::make_message(hello)] {
       if (life == life_ && core_) event([&] { core_->pilot_hello(peer, block, message, now()); });
     });
  // No answer: once more.
  in(seconds(10), [this, id, peer] {
    SimPilot* again = pilot(id);
    if (again != nullptr && again->peer == peer && !again->up) break_pilot(*again);
  });
}

void World::to_core(SimPilot& pilot, wire::Message message) {
  if (!pilot.up) return;
  const PeerId peer = pilot.peer;
  const std::uint64_t life = life_;
  pilot.to_core = std::max(pilot.to_core, time_ + up_to(milliseconds(20)));
  in(pilot.to_core - time_, [this, life, peer, message = std::move(message)] {
    if (life != life_ || !core_) return;
    event([&] { core_->pilot_message(peer, message, now()); });
    if (message.type == wire::MessageType::kResults && chance(3))
      event([&] { core_->pilot_message(peer, message, now()); });
  });
}

void World::from_core(PeerId peer, wire::Message message) {
  const auto found = peers_.find(peer);
  SimPilot* target = found == peers_.end() ? nullptr : pilot(found->second);
  if (target == nullptr || target->peer != peer) return;
  target->from_core = std::max(target->from_core, time_ + up_to(milliseconds(20)));
  in(target->from_core - time_, [this, id = target->id, peer, message = std::move(message)] {
    SimPilot* receiver = pilot(id);
    if (receiver != nullptr && receiver->peer == peer) pilot_receives(*receiver, message);
  });
}

void World::pilot_receives(SimPilot& self, const wire::Message& message) {
  using wire::MessageType;
  switch (message.type) {
    case MessageType::kPilotWelcome: {
      const auto welcome = wire::decode<wire::PilotWelcome>(message);
      self.up = true;
      self.epoch = welcome->epoch;
      self.slots = welcome->slots;
      for (const auto& ref : welcome->abandon) self.attempts.erase(ref);
      for (const auto& [batch, results] : self.unacknowledged) to_core(self, results);
      return start_tasks(self);
    }
    case MessageType::kDispatch:
      return take(self, message);
    case MessageType::kResultsAck: {
      const auto ack = wire::decode<wire::ResultsAck>(message);
      for (std::uint64_t batch : ack->batches) self.unacknowledged.erase(batch);
      return;
    }
    case MessageType::kCancelAttempts: {
      const auto cancel = wire::decode<wire::CancelAttempts>(message);
      for (const auto& ref : cancel->attempts)
        if (self.attempts.contains(ref)) {
          TaskOutcome outcome;
          outcome.state = TaskState::kCancelled;
          outcome.failure = FailureClass::kCancelled;
          deliver(self, ref, outcome, "E");
        }
      return start_tasks(self);
    }
    case MessageType::kStop:
      return stop_pilot(self, milliseconds(wire::decode<wire::Stop>(message)->grace_ms));
    default:
      complain("a pilot got a message that is not for it");
  }
}

void World::take(SimPilot& self, const wire::Message& message) {
  const auto dispatch = wire::decode<wire::Dispatch>(message);
  for (const SubmissionHeader& header : dispatch->submissions)
    self.headers[header.submission] = header;
  std::uint64_t cores = 0;
  std::size_t offset = 0;
  for (const wire::DispatchGroup& group : dispatch->groups)
    for (const wire::TaskStart& task : group.tasks) {
      const wire::AttemptRef ref{group.submission, task.index, task.attempt};
      if (!self.headers.contains(group.submission)) return complain("a header was not sent");
      const std::uint32_t wide = std::max(1U, self.headers[group.submission].resources.cores);
      const auto arguments = message.payload.back().view().substr(offset, task.size);
      offset += task.size;
      if (self.attempts.contains(ref))
        complain("an attempt is dispatched to a pilot that holds it");
      log_debug("sim pilot {}: takes {} attempt {}, {} cores", self.id.string(),
                TaskId{ref.submission, ref.index}.string(), ref.attempt, wide);
      self.attempts[ref] = {std::string(arguments), wide, false};
    }
  if (offset != message.payload.back().size()) complain("arguments do not add up");
  for (const auto& [ref, attempt] : self.attempts) cores += attempt.cores;
  if (cores > self.slots * 2)
    complain(fmt::format("pilot {} holds {} cores' worth of tasks with {} slots, stopping: {}",
                         self.id.string(), cores, self.slots, self.stopping));
  if (self.stopping) return give_back(self, false);
  start_tasks(self);
}

void World::start_tasks(SimPilot& self) {
  if (self.stopping) return;
  std::uint64_t used = 0;
  for (const auto& [ref, attempt] : self.attempts) used += attempt.running ? attempt.cores : 0;
  for (auto& [ref, attempt] : self.attempts) {
    if (attempt.running || used + attempt.cores > self.slots) continue;
    attempt.running = true;
    used += attempt.cores;
    ++ran_;
    in(up_to(scenario_.task_max), [this, id = self.id, each = ref] { end_task(id, each); });
  }
}

void World::end_task(PilotId id, const wire::AttemptRef& ref) {
  SimPilot* self = pilot(id);
  if (self == nullptr) return;
  const auto found = self->attempts.find(ref);
  if (found == self->attempts.end() || !found->second.running) return;
  TaskOutcome outcome;
  const std::uint64_t dice = rng_.below(100);
  std::string data = "R" + found->second.arguments;
  if (dice < 6) {
    outcome.state = TaskState::kFailed;
    outcome.failure = dice < 3 ? FailureClass::kUserError : FailureClass::kCrash;
    data = "E";
  }
  deliver(*self, ref, outcome, data);
  start_tasks(*self);
}

void World::deliver(SimPilot& self, const wire::AttemptRef& ref, TaskOutcome outcome,
                    std::string data) {
  log_debug("sim pilot {}: {} attempt {} is {}", self.id.string(),
            TaskId{ref.submission, ref.index}.string(), ref.attempt, name_of(outcome.state));
  self.attempts.erase(ref);
  outcome.index = ref.index;
  outcome.attempt = ref.attempt;
  outcome.data_size = data.size();
  wire::Results results{self.next_batch++, {{ref.submission, {outcome}}}};
  self.outcomes_in[results.batch] = 1;
  wire::Message message = wire::make_message(results, {Bytes(std::move(data))});
  self.unacknowledged[results.batch] = message;
  to_core(self, std::move(message));
}

void World::give_back(SimPilot& self, bool running) {
  wire::HandBack back;
  back.reason = running ? FailureClass::kAllocationEnded : FailureClass::kNone;
  for (const auto& [ref, attempt] : self.attempts)
    if (attempt.running == running) back.attempts.push_back(ref);
  for (const auto& ref : back.attempts) self.attempts.erase(ref);
  if (!back.attempts.empty()) to_core(self, wire::make_message(back));
}

void World::stop_pilot(SimPilot& self, Duration grace) {
  const bool again = std::exchange(self.stopping, true);
  give_back(self, false);
  in(grace, [this, id = self.id] {
    if (SimPilot* late = pilot(id)) give_back(*late, true);
  });
  if (!again) in(grace + seconds(1), [this, id = self.id] { leave(id); });
}

// With the last pilot the job ends.
void World::leave(PilotId id) {
  SimPilot* self = pilot(id);
  if (self == nullptr) return;
  if (!self->unacknowledged.empty() || !self->attempts.empty()) {
    give_back(*self, true);
    in(seconds(1), [this, id] { leave(id); });
    return;
  }
  const std::string job = self->job;
  kill_pilot(id);
  for (const auto& [other, each] : pilots_)
    if (each.job == job) return;
  end_job(job, BlockEnd::kCompleted);
}

void World::heartbeat(PilotId id) {
  SimPilot* self = pilot(id);
  if (self == nullptr) return;
  wire::PilotStatus status;
  for (const auto& [ref, attempt] : self->attempts)
    ++(attempt.running ? status.running : status.queued);
  to_core(*self, wire::make_message(status));
  if (self->up && chance(30)) {
    wire::Running running;
    std::map<SubmissionId, RangeSet> all;
    for (const auto& [ref, attempt] : self->attempts)
      if (attempt.running) all[ref.submission].insert(ref.index);
    for (const auto& [submission, ranges] : all) running.running.push_back({submission, ranges});
    to_core(*self, wire::make_message(running));
  }
  in(seconds(5), [this, id] { heartbeat(id); });
}

}  // namespace farcall::interchange::sim
