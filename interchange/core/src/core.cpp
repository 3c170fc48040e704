#include "interchange/core/core.h"

#include <algorithm>

#include "base/log.h"

namespace farcall::interchange {

namespace {
// A tick that comes later than this means that the loop was not alive in between.
constexpr Duration kTickMax = seconds(2);
// The relay answers sooner than this when all is well, and then no result has to be written here.
constexpr Duration kSpoolAfter = milliseconds(100);
}  // namespace

Core::Core(Settings settings, Rng rng)
    : settings_(std::move(settings)), blocks_(settings_, rng, effects_) {}

void Core::recover(const Recovered& state, Now now) {
  epoch_ = state.epoch;
  blocks_.recover(state.blocks, now);
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
    pilots_.add_placement(pilot, {record.id, &submission, record.attempt, tasks});
  }
  log_info("restarted: epoch {}, {} blocks, {} placements, {} batches of results", epoch_,
           state.blocks.size(), state.placements.size(), state.spool.size());
}

void Core::tick(Now now) {
  if (ticked_) alive_ += std::clamp<Duration>(now.mono - last_tick_, Duration{0}, kTickMax);
  ticked_ = true;
  last_tick_ = now.mono;
  expire_pilots(now);
  if (!unjudged_.empty()) judge_waiting(now);
  spool_older_than(kSpoolAfter);
  // A node is only asked for when the relay has said that we are in charge.
  if (ever_welcomed_ || epoch_ > 0) {
    Demand demand;
    demand.slots_per_node = std::max(settings_.slots_per_node, slots_seen_);
    demand.cores = queue_.pending_cores();
    for (const auto& [id, pilot] : pilots_.all()) {
      demand.cores += pilot.load;
      BlockUse& use = demand.use[pilot.block];
      use.pilots += pilot.peer != 0 ? 1 : 0;
      use.calls_home = use.calls_home || alive_ - pilot.heard < settings_.heartbeat * 3;
      use.load += pilot.load;
    }
    blocks_.tick(demand, now);
    settle_ended_blocks(now);
    for (BlockId idle : blocks_.take_idle())
      for (auto& [id, pilot] : pilots_.all())
        if (pilot.block == idle) tell_to_stop(pilot, "idle for max_idletime", settings_.stop_grace);
  }
  report_running(now);
  report_status(now);
  if (!stopping_ || exit_sent_) return;
  const bool told = spool_.empty() || !welcomed_;
  if ((blocks_.all_ended() && told) || now.mono >= stop_at_) {
    exit_sent_ = true;
    effects_.push_back(effect::Exit{
        blocks_.all_ended() ? "stopped: " + stop_reason_
                            : "stopped, but not all batch jobs have ended: " + stop_reason_});
  }
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
  return std::exchange(effects_, {});
}

}  // namespace farcall::interchange
