// Sessions of pilots: who may work, what they hold, when they are given up.
#include <algorithm>

#include "base/log.h"
#include "interchange/core/core.h"

namespace farcall::interchange {
namespace {

// How long outcomes that a pilot announced may take before what they are not is placed again.
constexpr Duration kMissingLimit = seconds(30);
// After the end of a block its pilots' last words may still be on the way.
constexpr Duration kLastWords = seconds(3);

RangeSet one(std::uint32_t index) { return RangeSet{{index, index + 1}}; }

}  // namespace

void Core::send_pilot(Pilot& pilot, wire::Message message) {
  effects_.push_back(effect::SendPilot{pilot.peer, std::move(message)});
}

void Core::tell_to_stop(Pilot& pilot, const std::string& why, Duration grace) {
  pilot.may_work = false;
  pilots_.update_open(pilot, settings_.prefetch);
  if (pilot.peer == 0) return;
  const auto grace_ms = std::chrono::duration_cast<milliseconds>(grace).count();
  send_pilot(pilot, wire::make_message(wire::Stop{why, static_cast<std::uint64_t>(grace_ms)}));
}

// Of several lives on one node of a block only the newest gets tasks; and when the job itself was
// started again (requeued, or a copy of it was cut off), only those of its newest start.
bool Core::is_newer(const Pilot& one, const Pilot& other) const {
  // Of one that has not called since the restart neither start nor incarnation is known.
  return &one != &other && one.block == other.block && !one.recovered && !other.recovered &&
         one.incarnation > other.incarnation &&
         (one.node_rank == other.node_rank || one.job_start != other.job_start);
}

bool Core::is_current(const Pilot& pilot) const {
  const BlockRecord* block = blocks_.find(pilot.block);
  if (block == nullptr || block->state == BlockState::kIntent ||
      block->state >= BlockState::kEnding || blocks_.was_stopped(pilot.block) ||
      blocks_.drains(pilot.block) || nodes_.is_bad(pilot.node))
    return false;
  return std::none_of(pilots_.all().begin(), pilots_.all().end(),
                      [&](const auto& item) { return is_newer(item.second, pilot); });
}

void Core::pilot_hello(PeerId peer, BlockId block, const wire::Message& message, Now now) {
  const auto hello = wire::decode<wire::PilotHello>(message);
  const auto refuse = [&](ErrorCode code, std::string text) {
    log_warn("a pilot is refused: {}", text);
    effects_.push_back(effect::RefusePilot{peer, Error{code, std::move(text)}});
  };
  if (!hello) return refuse(ErrorCode::kCorrupt, hello.error().message);
  if (hello->hello.oldest_version > wire::kProtocolVersion ||
      hello->hello.version < wire::kOldestProtocolVersion)
    return refuse(
        ErrorCode::kVersion,
        fmt::format("the pilot speaks protocol versions {} to {}, the interchange {} to {}",
                    hello->hello.oldest_version, hello->hello.version, wire::kOldestProtocolVersion,
                    wire::kProtocolVersion));
  if (hello->block != block)
    return refuse(ErrorCode::kDenied, "the key of block " + block.string() +
                                          " does not open the door for block " +
                                          hello->block.string());
  if (hello->epoch > epoch_) {
    if (welcomed_)
      return refuse(ErrorCode::kDenied,
                    fmt::format("an interchange of epoch {} is in charge, this one has {}",
                                hello->epoch, epoch_));
    effects_.push_back(effect::ResetPilot{peer, "the interchange is not in charge yet"});
    return;
  }
  Pilot& pilot = pilots_.add(hello->pilot);
  pilot.block = block;
  pilot.node = hello->node;
  pilot.node_rank = hello->node_rank;
  pilot.incarnation = hello->incarnation;
  pilot.job_start = hello->job_start;
  pilot.cores = hello->cores;
  pilot.recovered = false;
  nodes_.seen(pilot.node);
  pilots_.connect(pilot, peer);
  pilot.heard = alive_;
  pilot.searched = false;
  pilot.expires = alive_ + settings_.lost_timeout;
  pilot.ends = hello->remaining_s < 0 ? MonoTime::max() : now.mono + seconds(hello->remaining_s);
  pilot.running.clear();
  pilot.memory_mib = hello->memory_mib;
  pilot.may_work = is_current(pilot) && !stopping_;
  pilot.slots = settings_.slots_per_node > 0
                    ? settings_.slots_per_node
                    : std::max(1U, hello->cores / std::max(1U, settings_.cores_per_worker));
  blocks_.pilot_called(block, !nodes_.is_bad(pilot.node), now);
  if (pilot.may_work) {
    if (pilot.slots > slots_seen_ || pilot.memory_mib > memory_seen_mib_) {
      slots_seen_ = std::max(slots_seen_, pilot.slots);
      memory_seen_mib_ = std::max(memory_seen_mib_, pilot.memory_mib);
      fail_all_impossible(now);
    }
    for (auto& [id, other] : pilots_.all())
      if (is_newer(pilot, other) &&
          (other.may_work || !other.placements.empty() || !other.guests.empty())) {
        lose(other, FailureClass::kLost, "a newer pilot took over its node", now);
        tell_to_stop(other, "a newer pilot took over this node", Duration{0});
      }
  }
  wire::PilotWelcome welcome;
  welcome.epoch = epoch_;
  welcome.heartbeat_ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<milliseconds>(settings_.heartbeat).count());
  welcome.lost_timeout_ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<milliseconds>(settings_.lost_timeout).count());
  welcome.abandon = reconcile(pilot, *hello, now);
  welcome.slots = pilot.may_work ? pilot.slots : 0;
  log_info("pilot {} on {} (rank {} of block {}): connected, {} slots, holds {}, abandons {}",
           pilot.id.string(), pilot.node, pilot.node_rank, block.string(), welcome.slots,
           hello->holds.size(), welcome.abandon.size());
  send_pilot(pilot, wire::make_message(welcome));
  pilots_.update_open(pilot, settings_.prefetch);
  if (!pilot.may_work) {
    tell_to_stop(pilot,
                 stopping_         ? stop_reason_
                 : lets_end(pilot) ? "its block or its node gets no more tasks"
                                   : "its block has ended or a newer pilot took over",
                 stopping_         ? settings_.stop_grace
                 : lets_end(pilot) ? kDrainGrace
                                   : Duration{0});
  }
  for (const Placement& placement : pilot.placements)
    placement.submission->cancelled.intersection(placement.tasks)
        .for_each([&](std::uint32_t index) {
          cancel_now_[pilot.id].push_back({placement.submission->id, index, placement.attempt});
        });
}

// On a bad node and on a drained block what runs may end.
bool Core::lets_end(const Pilot& pilot) const {
  return blocks_.drains(pilot.block) || nodes_.is_bad(pilot.node);
}

std::vector<wire::AttemptRef> Core::reconcile(Pilot& pilot, const wire::PilotHello& hello,
                                              Now now) {
  std::vector<wire::AttemptRef> abandon;
  std::set<wire::AttemptRef> held;
  for (const wire::AttemptRef& ref : hello.holds) {
    held.insert(ref);
    Submission* submission = queue_.find(ref.submission);
    Placement* placement =
        submission == nullptr ? nullptr : pilot.holder_of(*submission, ref.index);
    if (placement == nullptr || placement->attempt != ref.attempt) abandon.push_back(ref);
    // One that is told to stop at once kills it and hands it back.
    else if (pilot.may_work || lets_end(pilot))
      placement->lost.reset();
  }
  if (pilot.may_work || lets_end(pilot)) found_again(pilot);
  pilot.missing.clear();
  for (const Placement& placement : pilot.placements)
    placement.tasks.for_each([&](std::uint32_t index) {
      const wire::AttemptRef ref{placement.submission->id, index, placement.attempt};
      if (!held.contains(ref)) pilot.missing.push_back(ref);
    });
  pilot.outcomes_awaited = hello.unacknowledged;
  pilot.batches_seen.clear();
  pilot.missing_until = alive_ + kMissingLimit;
  if (pilot.outcomes_awaited == 0) return_missing(pilot, now);
  return abandon;
}

void Core::give_back(Pilot& pilot, Submission& submission, std::uint32_t index, Now now) {
  Placement* placement = pilot.holder_of(submission, index);
  pilots_.take_off(pilot, *placement, index, dropped_now_);
  if (submission.cancelled.contains(index))
    emit_failure(submission, index, TaskState::kCancelled, FailureClass::kCancelled,
                 "TaskCancelled", "the task was cancelled before it ran", &pilot, now);
  else
    queue_.pend(submission, one(index));
}

void Core::cut_off(Pilot& pilot, Submission& submission, std::uint32_t index,
                   const std::string& why, Now now) {
  Placement* placement = pilot.holder_of(submission, index);
  const Duration had = now.mono - placement->since;
  const bool once = !submission.header || submission.header->retry.never;
  if (!once && !had_most_of_a_block(had, settings_.scaling)) {
    submission.cut_after = std::max(submission.cut_after, had);
    return give_back(pilot, submission, index, now);
  }
  pilots_.take_off(pilot, *placement, index, dropped_now_);
  charge(submission, index, FailureClass::kAllocationEnded, why, &pilot, now);
}

void Core::return_missing(Pilot& pilot, Now now) {
  for (const wire::AttemptRef& ref : std::exchange(pilot.missing, {})) {
    Submission* submission = queue_.find(ref.submission);
    Placement* placement =
        submission == nullptr ? nullptr : pilot.holder_of(*submission, ref.index);
    if (placement != nullptr && placement->attempt == ref.attempt)
      give_back(pilot, *submission, ref.index, now);
  }
  pilots_.update_open(pilot, settings_.prefetch);
}

void Core::pilot_message(PeerId peer, const wire::Message& message, Now now) {
  Pilot* pilot = pilots_.find_peer(peer);
  if (pilot == nullptr) return;
  pilot->heard = alive_;
  pilot->searched = false;
  if (pilot->loss == FailureClass::kLost && pilot->loss_why.empty())
    pilot->expires = alive_ + settings_.lost_timeout;
  const auto bad = [&](const Error& error) {
    effects_.push_back(effect::ResetPilot{peer, error.message});
  };
  if (message.type == wire::Topology::kType) {
    auto topology = wire::decode<wire::Topology>(message);
    return topology ? on_topology(*pilot, std::move(*topology), now) : bad(topology.error());
  }
  if (message.type == wire::Spawn::kType) {
    auto spawn = wire::decode<wire::Spawn>(message);
    return spawn ? on_spawn(*pilot, std::move(*spawn)) : bad(spawn.error());
  }
  if (message.type == wire::Spawned::kType) {
    const auto spawned = wire::decode<wire::Spawned>(message);
    return spawned ? on_spawned(*spawned) : bad(spawned.error());
  }
  switch (message.type) {
    case wire::MessageType::kResults:
      return on_results(*pilot, message, now);
    case wire::MessageType::kHandBack: {
      const auto back = wire::decode<wire::HandBack>(message);
      return back ? on_hand_back(*pilot, *back, now) : bad(back.error());
    }
    case wire::MessageType::kRunning: {
      const auto running = wire::decode<wire::Running>(message);
      return running ? on_running(*pilot, *running) : bad(running.error());
    }
    case wire::MessageType::kPilotStatus: {
      const auto status = wire::decode<wire::PilotStatus>(message);
      if (!status) return bad(status.error());
      pilot->reported_running = status->running;
      if (status->remaining_s >= 0) pilot->ends = now.mono + seconds(status->remaining_s);
      return;
    }
    default:
      log_warn("a message of type {} from pilot {} is not for an interchange: ignored",
               static_cast<int>(message.type), pilot->id.string());
  }
}

void Core::fail_all_impossible(Now now) {
  std::vector<Submission*> waiting;
  for (const auto& [order, submission] : queue_.ready()) waiting.push_back(submission);
  for (Submission* submission : waiting) fail_impossible(*submission, now);
}

void Core::on_topology(Pilot& pilot, wire::Topology topology, Now now) {
  // Those that are given keep their numbers.
  pilot.processors = std::move(topology.processors);
  pilot.domains = std::move(topology.domains);
  pilot.gpus = std::move(topology.gpus);
  const auto gpus = static_cast<std::uint32_t>(pilot.gpus.size());
  if (pilot.may_work && (!gpus_seen_ || gpus > *gpus_seen_)) {
    gpus_seen_ = gpus;
    fail_all_impossible(now);
  }
  if (!pilot.guests.empty() || topology.guests > 0)
    send_pilot(pilot, wire::make_message(wire::Guests{Pilots::guests_of(pilot)}));
}

// A leading pilot wants a part of its task started on another node of it.
void Core::on_spawn(Pilot& lead, wire::Spawn spawn) {
  Submission* submission = queue_.find(spawn.attempt.submission);
  const Placement* placement =
      submission == nullptr ? nullptr : lead.holder_of(*submission, spawn.attempt.index);
  std::string why = "the task was not given a share of that node";
  if (placement != nullptr && placement->attempt == spawn.attempt.attempt)
    for (const wire::PlacedShare& share : placement->shares) {
      Pilot* pilot = pilots_.find(share.pilot);
      if (pilot == nullptr || pilot->node_rank != spawn.node_rank) continue;
      if (pilot->peer != 0) return send_pilot(*pilot, wire::make_message(spawn));
      why = fmt::format("the pilot on {} is not connected", pilot->node);
    }
  send_pilot(lead, wire::make_message(wire::Spawned{spawn.attempt, spawn.request, 255, why}));
}

void Core::on_spawned(const wire::Spawned& spawned) {
  Submission* submission = queue_.find(spawned.attempt.submission);
  if (submission == nullptr) return;
  Placement* placement = nullptr;
  Pilot* lead = pilots_.holder_of(*submission, spawned.attempt.index, placement);
  if (lead != nullptr && lead->peer != 0 && placement->attempt == spawned.attempt.attempt)
    send_pilot(*lead, wire::make_message(spawned));
}

void Core::on_hand_back(Pilot& pilot, const wire::HandBack& back, Now now) {
  // A pilot that ends gives back what it has; but what has no time left there goes back by itself,
  // and so does what ended with another task of its MPI pool.
  const bool displaced = back.reason == FailureClass::kCrash;
  if (back.reason != FailureClass::kTimeExceeded && !displaced) pilot.may_work = false;
  const bool ended = back.reason == FailureClass::kAllocationEnded && !stopping_ &&
                     !blocks_.was_stopped(pilot.block);
  for (const wire::AttemptRef& ref : back.attempts) {
    Submission* submission = queue_.find(ref.submission);
    Placement* placement =
        submission == nullptr ? nullptr : pilot.holder_of(*submission, ref.index);
    if (placement == nullptr || placement->attempt != ref.attempt) continue;
    // The pilot counts from its own clock: it has less time left than was thought here.
    if (back.reason == FailureClass::kTimeExceeded)
      pilot.ends = std::min(pilot.ends, now.mono + (needs_time(*submission) - milliseconds(1)));
    if (displaced) {
      pilots_.take_off(pilot, *placement, ref.index, dropped_now_);
      charge(*submission, ref.index, FailureClass::kNone,
             "another task that shared its MPI ranks or its workers ended them", &pilot, now);
    } else if (back.reason == FailureClass::kAllocationEnded && placement->lost) {
      const std::string why = placement->lost->why;
      pilots_.take_off(pilot, *placement, ref.index, dropped_now_);
      charge(*submission, ref.index, FailureClass::kLost, why, &pilot, now);
    } else if (ended) {
      cut_off(pilot, *submission, ref.index, "its allocation ended", now);
    } else {
      give_back(pilot, *submission, ref.index, now);
    }
  }
  pilots_.update_open(pilot, settings_.prefetch);
}

void Core::on_running(Pilot& pilot, const wire::Running& running) {
  for (const wire::SubmissionRanges& each : running.running) {
    if (each.ranges.empty())
      pilot.running.erase(each.submission);
    else
      pilot.running[each.submission] = each.ranges;
    running_changed_.insert(each.submission);
  }
}

void Core::pilot_gone(PeerId peer, Now) {
  Pilot* pilot = pilots_.find_peer(peer);
  if (pilot == nullptr) return;
  log_info("pilot {} on {}: connection lost, {} cores' worth of tasks wait for it",
           pilot->id.string(), pilot->node, pilot->load);
  for (const auto& [submission, ranges] : pilot->running) running_changed_.insert(submission);
  pilot->running.clear();
  pilots_.disconnect(*pilot);
}

// Tasks of other pilots that need this one: they cannot go on.
void Core::lose_guests(Pilot& pilot, FailureClass failure, const std::string& why, Now now) {
  for (const auto& [ref, guest] : std::map(pilot.guests)) {
    Submission* submission = queue_.find(ref.submission);
    FARCALL_CHECK(submission != nullptr, "a guest is of no submission");
    // Its outcome is here and waits for somebody who can judge it.
    if (unjudged_.contains({ref.submission, ref.index})) continue;
    Placement* placement = nullptr;
    Pilot* lead = pilots_.holder_of(*submission, ref.index, placement);
    FARCALL_CHECK(lead != nullptr, "a guest's task is at no pilot");
    if (placement->lost) continue;
    if (failure == FailureClass::kLost && !submission->cancelled.contains(ref.index) &&
        waits_for_late_result(*placement, pilot, why))
      continue;
    if (failure == FailureClass::kAllocationEnded) {
      cut_off(*lead, *submission, ref.index, why, now);
      continue;
    }
    // Not charged means that the same attempt runs again: a cancel would be taken for its end.
    take_off_pilot(*submission, ref.index, failure != FailureClass::kNone, pilot.id);
    if (failure != FailureClass::kNone)
      charge(*submission, ref.index, failure, why, &pilot, now);
    else if (submission->cancelled.contains(ref.index))
      emit_failure(*submission, ref.index, TaskState::kCancelled, FailureClass::kCancelled,
                   "TaskCancelled", "the task was cancelled", &pilot, now);
    else
      queue_.pend(*submission, one(ref.index));
  }
}

void Core::lose(Pilot& pilot, FailureClass failure, const std::string& why, Now now) {
  lose_guests(pilot, failure, why, now);
  std::vector<std::pair<Submission*, std::uint32_t>> tasks;
  for (const Placement& placement : pilot.placements)
    if (!placement.lost)
      placement.tasks.for_each(
          [&](std::uint32_t index) { tasks.emplace_back(placement.submission, index); });
  // Its outcome is here and waits for somebody who can judge it.
  std::erase_if(tasks, [&](const auto& task) {
    return unjudged_.contains({task.first->id, task.second});
  });
  if (!tasks.empty())
    log_warn("pilot {} on {}: {} tasks {}: {}", pilot.id.string(), pilot.node, tasks.size(),
             failure == FailureClass::kNone ? "go back to the queue" : "are lost", why);
  for (const auto& [submission, index] : tasks) {
    if (failure == FailureClass::kNone) {
      give_back(pilot, *submission, index, now);
      continue;
    }
    if (failure == FailureClass::kAllocationEnded) {
      cut_off(pilot, *submission, index, why, now);
      continue;
    }
    Placement& placement = *pilot.holder_of(*submission, index);
    if (failure == FailureClass::kLost && !submission->cancelled.contains(index) &&
        waits_for_late_result(placement, pilot, why))
      continue;
    pilots_.take_off(pilot, placement, index, dropped_now_);
    charge(*submission, index, failure, why, &pilot, now);
  }
  pilot.missing.clear();
  for (const auto& [submission, ranges] : pilot.running) running_changed_.insert(submission);
  pilot.running.clear();
  pilots_.update_open(pilot, settings_.prefetch);
}

void Core::settle_ended_blocks(Now) {
  for (const BlockRecord& block : blocks_.take_ended()) {
    effects_.push_back(effect::CollectLeft{block.id});
    const bool cut = block.end == BlockEnd::kWalltime || block.end == BlockEnd::kPreempted;
    for (auto& [id, pilot] : pilots_.all()) {
      if (pilot.block != block.id) continue;
      pilot.may_work = false;
      pilots_.update_open(pilot, settings_.prefetch);
      pilot.loss = blocks_.was_stopped(block.id) && !cut ? FailureClass::kNone
                   : cut                                 ? FailureClass::kAllocationEnded
                                                         : FailureClass::kLost;
      pilot.loss_why =
          fmt::format("job {} of its block ended ({})", block.job_id, name_of(block.end));
      pilot.expires = std::min(pilot.expires, alive_ + kLastWords);
    }
  }
}

void Core::expire_pilots(Now now) {
  for (auto next = pilots_.all().begin(); next != pilots_.all().end();) {
    Pilot& pilot = next->second;
    ++next;
    if (!pilot.missing.empty() && alive_ >= pilot.missing_until) return_missing(pilot, now);
    if (alive_ < pilot.expires) continue;
    if (!pilot.placements.empty() && !std::exchange(pilot.searched, true)) {
      effects_.push_back(effect::CollectLeft{pilot.block});
      continue;  // the answer is here at the next tick
    }
    const std::string why =
        pilot.loss_why.empty()
            ? fmt::format("pilot {} on {} was not heard of for {} s", pilot.id.string(), pilot.node,
                          std::chrono::duration_cast<seconds>(settings_.lost_timeout).count())
            : pilot.loss_why;
    lose(pilot, pilot.loss, why, now);
    if (pilot.peer == 0 && pilot.placements.empty() && pilot.guests.empty()) {
      pilots_.remove(pilot);
    } else {
      pilot.expires = alive_ + settings_.lost_timeout;
      pilot.searched = false;  // what it leaves meanwhile is found the next time
      if (pilot.peer != 0 && pilot.loss_why.empty())
        effects_.push_back(effect::ResetPilot{pilot.peer, "nothing was heard for too long"});
    }
  }
}

}  // namespace farcall::interchange
