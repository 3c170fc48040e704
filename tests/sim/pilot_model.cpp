#include "simulation.h"

namespace farcall::sim {

PilotModel::PilotModel(Simulation& sim, BlockId block, std::string job, std::uint32_t rank)
    : sim_(sim), block_(block), job_(std::move(job)), rank_(rank) {
  id_ = make_id<PilotId>(sim.now().wall, sim.rng);
  incarnation_ = sim.now().wall.milliseconds_since_epoch();
  link.on_reset = [this] {
    if (!alive_) return;
    welcomed_ = false;
    const PeerId old = std::exchange(peer_, 0);
    sim_.disconnect(old);
    const auto life = sim_.life();
    // The interchange may hear of it before or after the next hello.
    sim_.after(sim_.between(0, 3000), [this, old, life] {
      if (life == sim_.life()) sim_.tell([&](Core& c) { c.pilot_gone(old, sim_.now()); });
    });
    sim_.after(sim_.between(20, 3000), [this, generation = link.generation] {
      if (generation == link.generation) connect();
    });
  };
}

void PilotModel::interchange_died() {
  if (!alive_) return;
  ++link.generation;
  welcomed_ = false;
  peer_ = 0;
  sim_.after(sim_.between(200, 3000), [this, generation = link.generation] {
    if (generation == link.generation) connect();
  });
}

void PilotModel::connect() {
  if (!alive_) return;
  if (!sim_.core) {
    sim_.after(sim_.between(300, 2000), [this, generation = link.generation] {
      if (generation == link.generation) connect();
    });
    return;
  }
  flush();
  ++link.generation;
  welcomed_ = false;
  sim_.disconnect(peer_);
  peer_ = sim_.connect(*this);
  wire::PilotHello hello;
  hello.block = block_;
  hello.pilot = id_;
  hello.node = "n" + std::to_string(rank_);
  hello.node_rank = rank_;
  hello.incarnation = incarnation_;
  hello.epoch = epoch_;
  hello.cores = sim_.options.slots;
  if (ends != Duration::max()) hello.remaining_s = (ends - sim_.time()) / seconds(1);
  for (const auto& ref : queue_) hello.holds.push_back(ref);
  for (const auto& [ref, held] : running_) hello.holds.push_back(ref);
  for (const auto& [batch, item] : unacknowledged_) hello.unacknowledged += item.second;
  headers_.clear();
  functions_.clear();
  sim_.after(seconds(6), [this, generation = link.generation] {
    if (generation == link.generation && alive_ && !welcomed_) connect();
  });
  sim_.transmit(link, 0, [this, peer = peer_, m = wire::make_message(hello)] {
    sim_.tell([&](Core& c) { c.pilot_hello(peer, block_, m, sim_.now()); });
  });
}

void PilotModel::send(wire::Message message) {
  if (!alive_ || !welcomed_) return;
  sim_.transmit(link, 0, [this, peer = peer_, m = std::move(message)] {
    sim_.tell([&](Core& c) { c.pilot_message(peer, m, sim_.now()); });
  });
}

void PilotModel::receive(const wire::Message& message) {
  if (!alive_) return;
  switch (message.type) {
    case wire::MessageType::kPilotWelcome:
      return on_welcome(*wire::decode<wire::PilotWelcome>(message));
    case wire::MessageType::kDispatch:
      return on_dispatch(message);
    case wire::MessageType::kCancelAttempts:
      return on_cancel(*wire::decode<wire::CancelAttempts>(message));
    case wire::MessageType::kStop:
      return on_stop(*wire::decode<wire::Stop>(message));
    case wire::MessageType::kResultsAck: {
      const auto ack = *wire::decode<wire::ResultsAck>(message);
      for (auto batch : ack.batches) unacknowledged_.erase(batch);
      return exit_when_done();
    }
    default:
      sim_.wrong("a pilot gets a message it does not understand");
  }
}

void PilotModel::on_welcome(const wire::PilotWelcome& welcome) {
  welcomed_ = true;
  if (welcome.epoch < epoch_) sim_.wrong("the epoch went down");
  epoch_ = welcome.epoch;
  slots_ = welcome.slots;
  for (const auto& ref : welcome.abandon) {
    std::erase(queue_, ref);
    if (const auto found = running_.find(ref); found != running_.end()) {
      busy_ -= found->second.cores;
      running_.erase(found);
    }
  }
  // Kept in order, so that they also go out in order.
  std::vector<wire::Message> again;
  for (const auto& [batch, item] : unacknowledged_) again.push_back(item.first);
  for (auto& message : again) send(std::move(message));
  flush();
  start_some();
  if (!std::exchange(beats_, true)) heartbeat();
}

void PilotModel::on_dispatch(const wire::Message& message) {
  const auto dispatch = *wire::decode<wire::Dispatch>(message);
  for (const auto& function : dispatch.functions) functions_.insert(function.id);
  for (const auto& header : dispatch.submissions) headers_[header.submission] = header;
  if (slots_ == 0) sim_.wrong("a pilot without slots gets tasks");
  const std::string_view data = message.payload.back().view();
  std::size_t offset = 0;
  for (const auto& group : dispatch.groups) {
    const auto header = headers_.find(group.submission);
    if (header == headers_.end() || !functions_.contains(header->second.function))
      return sim_.wrong("a pilot gets tasks without their header or function");
    for (const auto& task : group.tasks) {
      const wire::AttemptRef ref{group.submission, task.index, task.attempt};
      if (data.substr(offset, task.size) != "a" + std::to_string(task.index))
        sim_.wrong("a pilot gets the arguments of another task");
      offset += task.size;
      if (running_.contains(ref) || std::find(queue_.begin(), queue_.end(), ref) != queue_.end())
        sim_.wrong("a pilot gets an attempt that it holds already");
      queue_.push_back(ref);
    }
  }
  if (stopping_)
    hand_back(false, FailureClass::kNone);
  else
    start_some();
}

void PilotModel::start_some() {
  while (!queue_.empty() && !stopping_) {
    const wire::AttemptRef ref = queue_.front();
    const auto header = headers_.find(ref.submission);
    // After a new session the header may come later; then one core is what we know.
    const std::uint32_t cores = header == headers_.end() ? 1 : header->second.resources.cores;
    if (busy_ + cores > std::max(slots_, 1U)) return;
    queue_.pop_front();
    busy_ += cores;
    ++sim_.tally.starts;
    const std::uint64_t serial = ++serials_;
    running_[ref] = {serial, cores, sim_.now().wall.milliseconds_since_epoch()};
    const auto span = static_cast<std::uint64_t>(sim_.options.task_ms_max);
    const auto fate = sim_.fate(ref);
    auto last = milliseconds(static_cast<std::int64_t>(1 + fate % span));
    if (fate % 211 == 0) last = seconds(40);
    if (sim_.options.task_ms > 0) last = milliseconds(sim_.options.task_ms);
    sim_.after(last, [this, ref, serial] { finished(ref, serial); });
  }
}

void PilotModel::finished(const wire::AttemptRef& ref, std::uint64_t serial) {
  const auto found = running_.find(ref);
  if (!alive_ || found == running_.end() || found->second.serial != serial) return;
  busy_ -= found->second.cores;
  sim_.tally.worked_s += found->second.cores * sim_.options.task_ms / 1000.0;
  const std::int64_t started_ms = found->second.started_ms;
  running_.erase(found);
  const auto fate = sim_.fate(ref) >> 20;
  const bool bad = static_cast<double>(fate % 10'000) < sim_.options.task_failure * 1e4;
  constexpr FailureClass kKinds[] = {FailureClass::kUserError, FailureClass::kCrash,
                                     FailureClass::kEnvironment, FailureClass::kMemoryExceeded};
  if (bad)
    add_outcome(ref, TaskState::kFailed, kKinds[(fate / 10'000) % 4], "E");
  else
    add_outcome(ref, TaskState::kSucceeded, FailureClass::kNone,
                fmt::format("V{}:{}", ref.index, ref.attempt), started_ms);
  start_some();
  exit_when_done();
}

void PilotModel::add_outcome(const wire::AttemptRef& ref, TaskState state, FailureClass failure,
                             std::string data, std::int64_t started_ms) {
  TaskOutcome outcome;
  outcome.index = ref.index;
  outcome.attempt = ref.attempt;
  outcome.state = state;
  outcome.failure = failure;
  outcome.data_size = data.size();
  outcome.started_ms = started_ms;
  outcome.ended_ms = sim_.now().wall.milliseconds_since_epoch();
  auto& [outcomes, bytes] = outbox_[ref.submission];
  outcomes.push_back(std::move(outcome));
  bytes += data;
  if (std::exchange(flush_set_, true)) return;
  sim_.after(sim_.between(0, 60), [this] {
    flush_set_ = false;
    if (alive_) flush();
  });
}

void PilotModel::flush() {
  if (outbox_.empty()) return;
  wire::Results results;
  results.batch = next_batch_++;
  std::string data;
  std::uint64_t count = 0;
  for (auto& [id, item] : outbox_) {
    count += item.first.size();
    results.results.push_back({id, std::move(item.first)});
    data += item.second;
  }
  outbox_.clear();
  auto message = wire::make_message(results, {Bytes(std::move(data))});
  unacknowledged_[results.batch] = {message, count};
  send(std::move(message));
}

void PilotModel::on_cancel(const wire::CancelAttempts& cancel) {
  for (const auto& ref : cancel.attempts) {
    if (const auto found = running_.find(ref); found != running_.end()) {
      busy_ -= found->second.cores;
      running_.erase(found);
    } else if (std::erase(queue_, ref) == 0) {
      continue;  // its outcome came first
    }
    add_outcome(ref, TaskState::kCancelled, FailureClass::kCancelled, "E");
  }
  start_some();
}

void PilotModel::hand_back(bool running_too, FailureClass reason) {
  wire::HandBack waiting{{queue_.begin(), queue_.end()}, FailureClass::kNone};
  queue_.clear();
  if (!waiting.attempts.empty()) send(wire::make_message(waiting));
  if (!running_too) return;
  wire::HandBack cut{{}, reason};
  for (const auto& [ref, held] : running_) cut.attempts.push_back(ref);
  running_.clear();
  busy_ = 0;
  if (!cut.attempts.empty()) send(wire::make_message(cut));
}

void PilotModel::on_stop(const wire::Stop& stop) {
  stopping_ = true;
  hand_back(stop.grace_ms == 0, FailureClass::kNone);
  exit_when_done();
  sim_.after(milliseconds(stop.grace_ms), [this] {
    if (!alive_) return;
    hand_back(true, FailureClass::kNone);
    exit_when_done();
  });
  sim_.after(milliseconds(stop.grace_ms) + seconds(30), [this] { die(); });
}

void PilotModel::allocation_ends() {
  if (!alive_) return;
  stopping_ = true;
  sim_.tally.cut_off += running_.size();
  hand_back(true, FailureClass::kAllocationEnded);
  flush();
}

// It works on, and nobody can reach it.
void PilotModel::cut_off(Duration time) {
  if (!alive_) return;
  ++sim_.tally.cuts;
  sim_.reset(link);
  ++link.generation;
  sim_.after(time, [this, generation = link.generation] {
    if (generation == link.generation) connect();
  });
}

void PilotModel::heartbeat() {
  if (!alive_) return;
  std::map<SubmissionId, RangeSet> running;
  for (const auto& [ref, held] : running_) running[ref.submission].insert(ref.index);
  wire::Running report;
  for (auto& [id, ranges] : running) report.running.push_back({id, std::move(ranges)});
  if (!report.running.empty()) send(wire::make_message(report));
  send(wire::make_message(wire::PilotStatus{static_cast<std::uint32_t>(running_.size()),
                                            static_cast<std::uint32_t>(queue_.size()), -1}));
  sim_.after(seconds(5), [this] { heartbeat(); });
}

void PilotModel::exit_when_done() {
  if (stopping_ && running_.empty() && queue_.empty() && unacknowledged_.empty() && outbox_.empty())
    die();
}

// One that was told of its end has had the time to write down what it could not deliver.
void PilotModel::leave_results() {
  flush();
  for (const auto& [batch, item] : unacknowledged_) {
    ++sim_.tally.left;
    sim_.left[block_][fmt::format("results-{}-{}", id_.string(), batch)] = {id_, item.first};
  }
}

void PilotModel::die() {
  if (!alive_) return;
  if (stopping_) leave_results();
  alive_ = false;
  ++link.generation;
  const PeerId old = std::exchange(peer_, 0);
  sim_.disconnect(old);
  // A node that loses its power says nothing: that is seen after the silence.
  sim_.after(sim_.chance(0.3) ? seconds(10) : sim_.between(0, 1000),
             [this, old, life = sim_.life()] {
               if (life == sim_.life()) sim_.tell([&](Core& c) { c.pilot_gone(old, sim_.now()); });
             });
  sim_.scheduler.pilot_exited(job_);
}

}  // namespace farcall::sim
