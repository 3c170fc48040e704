#include "interchange/core/core.h"

#include <algorithm>

#include "base/log.h"

namespace farcall::interchange {

namespace {
// A tick that comes later than this means that the loop was not alive in between.
constexpr Duration kTickMax = seconds(2);
// The relay answers sooner than this when all is well, and then no result has to be written here.
constexpr Duration kSpoolAfter = milliseconds(100);
// What is lost of them by a crash is learned again.
constexpr Duration kDurationsEvery = seconds(5);
constexpr char kDrainedWhy[] = "the endpoint is drained";

bool is_there(const BlockRecord* block) { return block != nullptr && !is_final(block->state); }
}  // namespace

Core::Core(Settings settings, Rng rng)
    : settings_(std::move(settings)), blocks_(settings_, rng, effects_) {}

void Core::recover(const Recovered& state, Now now) {
  epoch_ = state.epoch;
  durations_.recover(state.durations);
  blocks_.recover(state.blocks, now);
  if (state.drained) blocks_.drain_all(kDrainedWhy, now);
  for (const SpoolRecord& record : state.spool) {
    next_batch_ = std::max(next_batch_, record.batch + 1);
    durable_batch_ = spooled_batch_ = std::max(durable_batch_, record.batch);
    const auto results = wire::decode<wire::Results>(record.body);
    if (!results) {
      log_error("the spool has a batch that cannot be read, left out: {}", results.error().message);
      continue;
    }
    Spooled entry;
    entry.durable = entry.on_disk = true;
    entry.message = wire::Message{wire::MessageType::kResults, record.body, {record.data}};
    for (const auto& each : results->results) {
      RangeSet tasks;
      for (const TaskOutcome& outcome : each.outcomes) tasks.insert(outcome.index);
      tasks.for_each([&](std::uint32_t index) {
        queue_.mark_done(queue_.submission(each.submission), index);
      });
      entry.tasks.push_back({each.submission, std::move(tasks)});
    }
    spool_bytes_ += record.body.size() + record.data.size();
    spool_.emplace(record.batch, std::move(entry));
  }
  for (const PlacementRecord& record : state.placements) {
    next_placement_ = std::max(next_placement_, record.id + 1);
    Submission& submission = queue_.submission(record.submission);
    submission.cores_on_disk = std::max(1U, record.cores);
    submission.never_on_disk = record.never;
    const RangeSet tasks = record.ranges.difference(submission.done).difference(submission.placed);
    if (tasks.empty()) {
      dropped_now_.push_back(record.id);
      continue;
    }
    queue_.place(submission, tasks);
    if (record.attempt > 1)
      tasks.for_each([&](std::uint32_t index) {
        TaskHistory& history = submission.histories[index];
        history.index = index;
        history.attempt = std::max(history.attempt, record.attempt);
      });
    Pilot& pilot = pilots_.add(record.pilot);
    pilot.block = record.block;
    pilot.recovered = true;
    pilot.expires = settings_.lost_timeout;
    for (const wire::PlacedShare& share : record.shares) {
      if (pilots_.find(share.pilot) != nullptr) continue;
      Pilot& other = pilots_.add(share.pilot);
      other.block = record.block;
      other.recovered = true;
      other.expires = settings_.lost_timeout;
    }
    pilots_.add_placement(pilot, {.id = record.id,
                                  .submission = &submission,
                                  .attempt = record.attempt,
                                  .tasks = tasks,
                                  .since = now.mono,
                                  .shares = record.shares});
  }
  log_info("restarted: epoch {}, {} blocks, {} placements, {} batches of results", epoch_,
           state.blocks.size(), state.placements.size(), state.spool.size());
}

void Core::tick(Now now) {
  if (ticked_) alive_ += std::clamp<Duration>(now.mono - last_tick_, Duration{0}, kTickMax);
  ticked_ = true;
  last_tick_ = now.mono;
  expire_pilots(now);
  end_late_waits(now);
  if (!unjudged_.empty()) judge_waiting(now);
  spool_older_than(kSpoolAfter);
  // A node is only asked for when the relay has said that we are in charge.
  if (ever_welcomed_ || epoch_ > 0) {
    nodes_.tick(now);
    std::vector<std::string> bad;
    for (const BadNode& node : nodes_.bad()) bad.push_back(node.name);
    blocks_.exclude(std::move(bad));
    blocks_.tick(demand(now), now);
    settle_ended_blocks(now);
    stop_drained();
  }
  report_running(now);
  report_status(now);
  if (now.mono >= next_durations_) {
    next_durations_ = now.mono + kDurationsEvery;
    if (auto changed = durations_.take_changed(); !changed.empty())
      effects_.push_back(effect::SaveDurations{std::move(changed)});
  }
  if (!stopping_ || exit_sent_) return;
  const bool told = spool_.empty() || !welcomed_;
  if ((blocks_.all_ended() && told) || now.mono >= stop_at_) {
    exit_sent_ = true;
    effects_.push_back(effect::Exit{
        blocks_.all_ended() ? "stopped: " + stop_reason_
                            : "stopped, but not all batch jobs have ended: " + stop_reason_});
  }
}

// Whether a waiting task fits in time is only asked for pilots that have nothing to do.
Demand Core::demand(Now now) const {
  Demand demand;
  demand.slots_per_node = std::max(settings_.slots_per_node, slots_seen_);
  demand.cores = queue_.pending_cores();
  demand.tasks = queue_.pending_tasks();
  for (const auto& [id, pilot] : pilots_.all()) {
    std::uint64_t load = pilot.load;
    for (const Placement& placement : pilot.placements)
      if (placement.lost && !is_there(blocks_.find(pilot.block)))
        load -= placement.load();  // nothing but its result is waited for
      else
        demand.tasks += placement.tasks.count();
    demand.cores += load;
    const bool first = !demand.use.contains(pilot.block);
    BlockUse& use = demand.use[pilot.block];
    const bool calls = !pilot.recovered && alive_ - pilot.heard < settings_.heartbeat * 3;
    use.pilots += pilot.peer != 0 ? 1 : 0;
    use.calls_home = use.calls_home || calls;
    use.load += load;
    use.cores = std::max(use.cores, pilot.cores);
    if (pilot.ends != MonoTime::max())
      use.remaining = std::min(use.remaining, pilot.ends - now.mono);
    use.too_short = (first || use.too_short) && load == 0 && is_too_short(pilot, now);
  }
  return demand;
}

void Core::stop_drained() {
  for (BlockId drained : blocks_.take_drained()) {
    const BlockRecord* block = blocks_.find(drained);
    const bool lets_end = blocks_.drains(drained);
    for (auto& [id, pilot] : pilots_.all())
      if (pilot.block == drained)
        tell_to_stop(pilot, block == nullptr ? "drained" : block->reason,
                     lets_end ? kDrainGrace : settings_.stop_grace);
  }
}

void Core::drain(Now now, std::optional<wire::Message> answer) {
  log_info("drained: no block is asked for, those that run end with their tasks");
  effects_.push_back(effect::SaveDrained{true, std::move(answer)});
  blocks_.drain_all(kDrainedWhy, now);
  stop_drained();
}

void Core::resume(Now, std::optional<wire::Message> answer) {
  log_info("resumed");
  effects_.push_back(effect::SaveDrained{false, std::move(answer)});
  blocks_.resume();
  nodes_.forgive();
}

void Core::stop(const std::string& reason, Now now) {
  if (stopping_) return;
  log_info("stopping: {}", reason);
  stopping_ = true;
  stop_reason_ = reason;
  stop_at_ = now.mono + settings_.stop_limit;
  for (auto& [id, pilot] : pilots_.all()) tell_to_stop(pilot, reason, settings_.stop_grace);
  blocks_.end_all(reason, now);
}

Effects Core::take_effects(Now now) {
  place(now);
  flush_outcomes();
  flush_dispatches();
  report_attempts();
  grant_credit(false);
  effect::NeedBlobs blobs{queue_.take_needed(), queue_.take_released()};
  if (!blobs.needed.empty() || !blobs.released.empty()) effects_.push_back(std::move(blobs));
  return std::exchange(effects_, {});
}

}  // namespace farcall::interchange
