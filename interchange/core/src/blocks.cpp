#include "interchange/core/blocks.h"

#include <algorithm>
#include <cmath>

#include "base/log.h"

namespace farcall::interchange {
namespace {

constexpr Duration kFindInterval = seconds(5);
constexpr int kFindDoublingsMax = 5;
// A job that was submitted a moment ago may not be listed yet.
constexpr Duration kListingGrace = seconds(30);
constexpr Duration kCancelAgain = seconds(15);
constexpr Duration kCancelAgainUnanswered = seconds(60);
constexpr Duration kPausedRetry = std::chrono::hours(1);
constexpr int kFailuresUntilPause = 3;
// Of its time a block that has less left than this does not count as room for what waits.
constexpr Duration kEndsSoon = seconds(60);
constexpr int kUnlistedUntilGone = 3;
constexpr int kLateLooksMax = 20;  // for an abandoned name, with growing distance
constexpr std::int64_t kLateLooksFor_ms = 24LL * 3600 * 1000;
constexpr std::size_t kFinalKept = 200;

}  // namespace

Blocks::Entry* Blocks::entry(BlockId id) {
  const auto found = blocks_.find(id);
  return found == blocks_.end() ? nullptr : &found->second;
}

const BlockRecord* Blocks::find(BlockId id) const {
  const auto found = blocks_.find(id);
  return found == blocks_.end() ? nullptr : &found->second.record;
}

std::vector<const BlockRecord*> Blocks::all() const {
  std::vector<const BlockRecord*> result;
  for (const auto& [id, each] : blocks_) result.push_back(&each.record);
  return result;
}

bool Blocks::was_stopped(BlockId id) const {
  const auto found = blocks_.find(id);
  return found != blocks_.end() && found->second.unwanted;
}

bool Blocks::drains(BlockId id) const {
  const auto found = blocks_.find(id);
  return found != blocks_.end() && found->second.draining && !found->second.unwanted;
}

void Blocks::save(Entry& each) {
  effects_.push_back(effect::SaveBlock{each.record, ++each.serial});
}

void Blocks::call(Effect effect, Now now) {
  pace_.called(now);
  effects_.push_back(std::move(effect));
}

bool Blocks::change(Entry& each, BlockEvent event, std::string_view cause, Now now) {
  const BlockState before = each.record.state;
  if (!apply(each.record, event, cause, now)) return false;
  if (before != each.record.state) {
    each.since = now.mono;
    pace_.changed(now);
  }
  save(each);
  if (is_final(each.record.state)) {
    ended_.push_back(each.record);
    count_failure(each, now);
  }
  return true;
}

void Blocks::recover(const std::vector<BlockRecord>& records, Now now) {
  for (const BlockRecord& record : records) {
    Entry& each = blocks_[record.id];
    each.record = record;
    each.since = now.mono;
    each.called = record.state == BlockState::kRunning;  // the doubt is in its favour
    cores_seen_ = std::max(cores_seen_, record.cores);
    started_ = true;
    if (record.state == BlockState::kIntent || record.state == BlockState::kSubmitting) {
      change(each, BlockEvent::kUnknown, "the interchange ended while it was being submitted", now);
      each.doubt_since = now.mono;
      each.next_find = now.mono;
    } else if (record.state == BlockState::kInDoubt) {
      each.doubt_since = now.mono;
      each.next_find = now.mono;
    } else if (record.state == BlockState::kAbandoned &&
               now.wall.milliseconds_since_epoch() - record.since_ms < kLateLooksFor_ms) {
      each.next_find = now.mono + settings_.lookup_grace;
    } else if (record.state == BlockState::kEnding) {
      each.unwanted = true;
      each.next_cancel = now.mono;
    }
  }
}

bool Blocks::is_active(const Entry& each) const {
  return each.record.state < BlockState::kEnding && !each.unwanted && !each.draining;
}

bool Blocks::all_ended() const {
  return std::all_of(blocks_.begin(), blocks_.end(),
                     [](const auto& item) { return is_final(item.second.record.state); });
}

void Blocks::make_block(Now now) {
  const BlockId id = make_id<BlockId>(now.wall, rng_);
  Entry& each = blocks_[id];
  each.record.id = id;
  // The id makes it unique for ever; the name makes it readable in squeue.
  std::string name;
  for (char c : settings_.endpoint_name)
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_') name += c;
  each.record.job_name = fmt::format("fc-{}-{}", name.substr(0, 40), id.string());
  each.record.nodes = settings_.scaling.nodes_per_block;
  each.record.walltime_s = settings_.scaling.walltime_s;
  each.record.cores =
      settings_.scaling.cores_per_node > 0 ? settings_.scaling.cores_per_node : cores_seen_;
  each.record.made_ms = each.record.since_ms = now.wall.milliseconds_since_epoch();
  each.since = now.mono;
  log_info("block {}: intent of {} nodes", each.record.job_name, each.record.nodes);
  save(each);
}

void Blocks::look_at_use(const Demand& demand, Now now) {
  for (auto& [id, each] : blocks_) {
    const auto found = demand.use.find(id);
    const BlockUse use = found == demand.use.end() ? BlockUse{} : found->second;
    each.calls_home = use.calls_home;
    if (use.cores > 0 && settings_.scaling.cores_per_node == 0 && each.record.cores != use.cores) {
      each.record.cores = use.cores;
      save(each);
    }
    cores_seen_ = std::max(cores_seen_, use.cores);
    const bool idle = each.record.state == BlockState::kRunning && use.load == 0 && use.pilots > 0;
    if (!idle)
      each.idle_since = MonoTime::max();
    else if (each.idle_since == MonoTime::max())
      each.idle_since = now.mono;
  }
}

ScalingView Blocks::view(const Demand& demand, Now now) {
  ScalingView view;
  view.cores = demand.cores;
  view.tasks = demand.tasks;
  view.slots_per_node = demand.slots_per_node;
  view.first = !started_;
  const auto lasts = [&](MonoTime& since, bool holds) {
    if (!holds)
      since = MonoTime::max();
    else if (since == MonoTime::max())
      since = now.mono;
    return holds ? now.mono - since : Duration{0};
  };
  view.no_task_for = lasts(no_task_since_, demand.tasks == 0);
  for (const auto& [id, each] : blocks_) {
    if (!is_active(each)) continue;
    ScalingBlock block;
    block.id = id;
    block.runs = each.record.state == BlockState::kRunning;
    if (const auto use = demand.use.find(id); use != demand.use.end()) {
      block.load = use->second.load;
      const auto quarter = seconds(static_cast<std::int64_t>(each.record.walltime_s / 4));
      block.ends_soon = use->second.remaining < std::min<Duration>(kEndsSoon, quarter);
    }
    if (each.idle_since != MonoTime::max()) block.idle = now.mono - each.idle_since;
    view.blocks.push_back(block);
  }
  const int needed = needed_blocks(settings_.scaling, view);
  view.excess_for = lasts(excess_since_, static_cast<int>(view.blocks.size()) > needed);
  return view;
}

void Blocks::scale(const Demand& demand, Now now) {
  const ScalingView seen = view(demand, now);
  const ScalingPlan plan = plan_blocks(settings_.scaling, seen);
  for (BlockId id : plan.give_back) give_back(id, "not needed for max_idletime", demand, now);
  // Full of time that nothing fits into: another block can do more.
  for (const ScalingBlock& block : seen.blocks) {
    const auto use = demand.use.find(block.id);
    if (block.runs && block.load == 0 && use != demand.use.end() && use->second.too_short)
      give_back(block.id, "what waits does not fit into the time it has left", demand, now);
  }
  if (stopping_ || draining_ || now.mono < not_before_) return;
  started_ = true;
  int room = settings_.scaling.max_blocks;
  bool jobs = false;
  for (const auto& [id, each] : blocks_) {
    const bool job = each.record.state <= BlockState::kRunning;
    room -= job && (is_active(each) || each.draining) ? 1 : 0;
    jobs = jobs || (job && each.record.state >= BlockState::kQueued);
  }
  // One that does not even answer a question would only leave us in doubt.
  if (jobs && pace_.unanswered() > 0) return;
  int count = std::min(plan.make, room);
  // After a failure one at a time: the next is likely to fail as well.
  if (refusals_ > 0 || dead_starts_ > 0 || !paused_.empty()) count = std::min(count, 1);
  for (int i = 0; i < count && affordable(now); ++i) make_block(now);
  if (plan.make <= 0) over_budget_.clear();
}

double Blocks::core_seconds(const BlockRecord& block, Now now) const {
  const std::int64_t now_ms = now.wall.milliseconds_since_epoch();
  const double running = block.ran_ms > 0
                             ? static_cast<double>(std::max<std::int64_t>(now_ms - block.ran_ms, 0))
                             : 0.0;
  return static_cast<double>(block.nodes) * std::max(1U, block.cores) *
         (block.used_s + running / 1000.0);
}

double Blocks::core_hours_used(Now now) const {
  double sum = forgotten_core_s_;
  for (const auto& [id, each] : blocks_) sum += core_seconds(each.record, now);
  return sum / 3600;
}

double Blocks::core_hours_committed(Now now) const {
  double sum = 0;
  for (const auto& [id, each] : blocks_) {
    const BlockRecord& block = each.record;
    if (is_final(block.state)) continue;
    sum += std::max(
        0.0, static_cast<double>(block.nodes) * std::max(1U, block.cores) * block.walltime_s -
                 core_seconds(block, now));
  }
  return sum / 3600;
}

// A block may use all of its time, so that is what it has to fit with.
bool Blocks::affordable(Now now) {
  const ScalingSettings& scaling = settings_.scaling;
  if (scaling.core_hours_max <= 0) return true;
  const double cores =
      std::max(1U, scaling.cores_per_node > 0 ? scaling.cores_per_node : cores_seen_);
  const double block = scaling.nodes_per_block * cores * scaling.walltime_s / 3600;
  const double used = core_hours_used(now), committed = core_hours_committed(now);
  over_budget_.clear();
  if (used + committed + block <= scaling.core_hours_max) return true;
  over_budget_ = fmt::format(
      "no further block: it may use {:.2f} core-hours, and of the {:g} of core_hours_max {:.2f} "
      "are "
      "used and {:.2f} given to blocks that are there; raise core_hours_max to go on",
      block, scaling.core_hours_max, used, committed);
  return false;
}

void Blocks::give_back(BlockId id, const std::string& why, const Demand& demand, Now now) {
  Entry* each = entry(id);
  if (each == nullptr || !is_active(*each)) return;
  if (each->record.state != BlockState::kRunning) return end(id, why, now);
  drained_.push_back(id);
  const auto use = demand.use.find(id);
  if (use == demand.use.end() || use->second.load == 0) return end(id, why, now);
  log_info("block {}: gets no more tasks: {}", each->record.job_name, why);
  each->draining = true;
  each->record.reason = why;
}

void Blocks::watch_drained(const Demand& demand, Now now) {
  for (auto& [id, each] : blocks_) {
    if (!each.draining || each.unwanted || each.record.state != BlockState::kRunning) continue;
    const auto use = demand.use.find(id);
    if (use == demand.use.end() || use->second.load == 0) end(id, each.record.reason, now);
  }
}

void Blocks::drain_all(const std::string& why, Now now) {
  draining_ = true;
  for (auto& [id, each] : blocks_) {
    if (!is_active(each)) continue;
    if (each.record.state != BlockState::kRunning) {
      end(id, why, now);
      continue;
    }
    each.draining = true;
    each.record.reason = why;
    drained_.push_back(id);
  }
}

void Blocks::resume() {
  draining_ = false;
  paused_.clear();
  refusals_ = hard_refusals_ = dead_starts_ = 0;
  not_before_ = MonoTime{};
}

void Blocks::end(BlockId id, const std::string& why, Now now) {
  Entry* each = entry(id);
  if (each == nullptr || is_final(each->record.state) || each->unwanted) return;
  each->unwanted = true;
  each->record.reason = why;
  // One that is being written down or submitted is ended when that is over.
  if (each->record.state != BlockState::kQueued && each->record.state != BlockState::kRunning)
    return;
  const bool runs = each->record.state == BlockState::kRunning;
  change(*each, BlockEvent::kEnds, why, now);
  // Pilots that were told to stop end the job by themselves; this is for those that cannot.
  each->next_cancel = runs ? now.mono + settings_.stop_grace : now.mono;
}

void Blocks::end_all(const std::string& why, Now now) {
  stopping_ = true;
  for (auto& [id, each] : blocks_) {
    end(id, why, now);
    if (each.record.state == BlockState::kInDoubt) each.next_find = now.mono;
  }
}

void Blocks::look_for_lost(Now now) {
  std::vector<std::string> cancel;
  // Names that were given up are looked for one after the other, the longest due first: what is
  // urgent must not wait in a queue behind them, nor one of them behind another for ever.
  bool late_look = stopping_;
  const Entry* next_late = nullptr;
  for (const auto& [id, each] : blocks_) {
    if (each.record.state != BlockState::kAbandoned) continue;
    late_look = late_look || each.find_under_way;
    if (next_late == nullptr || each.next_find < next_late->next_find) next_late = &each;
  }
  for (auto& [id, each] : blocks_) {
    if (each.next_find <= now.mono && !each.find_under_way &&
        (each.record.state == BlockState::kInDoubt || (&each == next_late && !late_look))) {
      each.find_under_way = true;
      call(effect::FindBlock{id, each.record.job_name}, now);
    }
    // By its id, which after a loss of the scheduler's state may be somebody else's.
    if (each.record.state == BlockState::kEnding && each.next_cancel <= now.mono && !each.foreign) {
      each.next_cancel =
          now.mono + (pace_.unanswered() > 0 ? kCancelAgainUnanswered : kCancelAgain);
      cancel.push_back(each.record.job_id);
    }
  }
  if (!cancel.empty()) call(effect::CancelJobs{std::move(cancel)}, now);
}

void Blocks::ask(Now now) {
  std::vector<std::string> ids;
  bool calm = true;
  for (const auto& [id, each] : blocks_) {
    const BlockState state = each.record.state;
    if (state < BlockState::kQueued || is_final(state)) continue;
    ids.push_back(each.record.job_id);
    calm = calm && state == BlockState::kRunning && each.calls_home;
  }
  if (ids.empty() || !pace_.query_due(calm, now)) return;
  pace_.query_began(now);
  effects_.push_back(effect::QueryBlocks{std::move(ids)});
}

void Blocks::tick(const Demand& demand, Now now) {
  look_at_use(demand, now);
  watch_drained(demand, now);
  scale(demand, now);
  look_for_lost(now);
  ask(now);
  while (blocks_.size() > kFinalKept && is_final(blocks_.begin()->second.record.state) &&
         now.mono - blocks_.begin()->second.since > std::chrono::hours(24)) {
    forgotten_core_s_ += core_seconds(blocks_.begin()->second.record, now);
    blocks_.erase(blocks_.begin());
  }
}

void Blocks::saved(BlockId id, std::uint64_t serial, Now now) {
  Entry* each = entry(id);
  if (each == nullptr || serial != 1 || each->record.state != BlockState::kIntent) return;
  if (each->unwanted) {
    change(*each, BlockEvent::kForgotten, "not wanted any more", now);
    return;
  }
  change(*each, BlockEvent::kSaved, "the intent is on disk", now);
  FARCALL_CHECK(!each->submitted_once, "an intent is submitted twice: " + each->record.job_name);
  each->submitted_once = true;
  call(effect::SubmitBlock{id, each->record.job_name, each->record.nodes, each->record.walltime_s,
                           excluded_},
       now);
}

void Blocks::back_off(const Error& error, Now now) {
  last_error_ = error.message;
  ++refusals_;
  hard_refusals_ = error.code == ErrorCode::kSchedulerRefused ? hard_refusals_ + 1 : 0;
  const Duration wait =
      std::min<Duration>(seconds(2) * (1 << std::min(refusals_, 8)), seconds(300));
  not_before_ = now.mono + wait;
  if (hard_refusals_ >= kFailuresUntilPause)
    pause(
        fmt::format("the scheduler refused {} blocks in a row: {}", hard_refusals_, error.message),
        now);
}

void Blocks::pause(const std::string& why, Now now) {
  paused_ = fmt::format(
      "{}; no block is asked for any more but one an hour: when the cause is gone, "
      "`farcall endpoint resume {}`",
      why, settings_.endpoint_name);
  not_before_ = now.mono + kPausedRetry;
  log_warn("{}", paused_);
}

// A block that ends before a pilot of use has called would be followed by the next one for ever.
void Blocks::count_failure(const Entry& each, Now now) {
  const BlockRecord& block = each.record;
  if (block.state != BlockState::kEnded || each.unwanted || each.draining || each.called ||
      block.end == BlockEnd::kUnknown || block.end == BlockEnd::kCancelled ||
      block.end == BlockEnd::kPreempted)
    return;
  ++dead_starts_;
  last_error_ = each.turned_away
                    ? fmt::format("job {} got no node but such as are bad", block.job_id)
                    : fmt::format(
                          "job {} ended ({}{}{}) before a pilot called home; its output is in "
                          "blocks/{}/job.out of the endpoint's folder",
                          block.job_id, name_of(block.end), block.reason.empty() ? "" : ": ",
                          block.reason, block.id.string());
  log_warn("{}", last_error_);
  not_before_ = now.mono + seconds(2) * (1 << std::min(dead_starts_, 8));
  if (dead_starts_ >= kFailuresUntilPause)
    pause(fmt::format("{} blocks in a row came to nothing: {}", dead_starts_, last_error_), now);
}

void Blocks::submitted(BlockId id, const Result<std::string>& job_id, Now now) {
  Entry* each = entry(id);
  if (each == nullptr || each->record.state != BlockState::kSubmitting) return;
  if (job_id) {
    refusals_ = hard_refusals_ = 0;
    if (dead_starts_ == 0) {
      paused_.clear();
      last_error_.clear();
    }
    each->record.job_id = *job_id;
    change(*each, BlockEvent::kAccepted, "accepted", now);
    if (std::exchange(each->unwanted, false)) end(id, "not wanted any more", now);
    return;
  }
  each->record.reason = job_id.error().message;
  if (job_id.error().code == ErrorCode::kOutcomeUnknown ||
      job_id.error().code == ErrorCode::kTimeout) {
    change(*each, BlockEvent::kUnknown, job_id.error().message, now);
    last_error_ = job_id.error().message;
    each->doubt_since = now.mono;
    each->next_find = now.mono + seconds(1);
    return;
  }
  change(*each, BlockEvent::kRefused, job_id.error().message, now);
  back_off(job_id.error(), now);
}

void Blocks::found(BlockId id, const Result<std::vector<std::string>>& job_ids, Now now) {
  Entry* each = entry(id);
  if (each == nullptr) return;
  each->find_under_way = false;
  ++each->finds;
  const bool late = each->record.state == BlockState::kAbandoned;
  if (!late && each->record.state != BlockState::kInDoubt) return;
  if (job_ids && !job_ids->empty()) {
    if (late) {
      log_warn("block {}: job {} showed up after it was given up: cancelled", each->record.job_name,
               job_ids->front());
      // Until it is gone; some schedulers list what was cancelled for long.
      each->next_find = now.mono + settings_.lookup_grace * (1 << std::min(each->finds / 2, 8));
      call(effect::CancelJobs{*job_ids}, now);
      return;
    }
    each->record.job_id = job_ids->front();
    change(*each, BlockEvent::kFound, "found by its name", now);
    if (std::exchange(each->unwanted, false)) end(id, "not wanted any more", now);
    return;
  }
  if (late) {
    each->next_find = each->finds < kLateLooksMax && now.mono - each->since < std::chrono::hours(24)
                          ? now.mono + settings_.lookup_grace * (1 << std::min(each->finds / 2, 8))
                          : MonoTime::max();
    return;
  }
  // Only answers count towards giving up: a scheduler that is away says nothing about the job.
  if (!job_ids) {
    last_error_ = job_ids.error().message;
    each->next_find =
        now.mono + kFindInterval * (2 << std::min(each->find_failures++, kFindDoublingsMax));
    return;
  }
  each->find_failures = 0;
  if (now.mono - each->doubt_since < settings_.lookup_grace) {
    each->next_find = now.mono + std::min<Duration>(kFindInterval, settings_.lookup_grace / 4);
    return;
  }
  each->finds = 0;
  change(*each, BlockEvent::kGivenUp, "not found by its name", now);
  each->next_find = now.mono + settings_.lookup_grace;
  back_off(Error{ErrorCode::kOutcomeUnknown, each->record.reason}, now);
}

void Blocks::reported(const Result<std::vector<JobReport>>& reports, Now now) {
  pace_.query_ended(reports.has_value(), now);
  if (!reports) {
    last_error_ = reports.error().message;
    log_warn("asking for the state of the blocks failed: {}", reports.error().message);
    return;
  }
  for (auto& [id, each] : blocks_) {
    if (each.record.state < BlockState::kQueued || is_final(each.record.state)) continue;
    const auto report = std::find_if(reports->begin(), reports->end(), [&](const JobReport& item) {
      return item.job_id == each.record.job_id;
    });
    if (report != reports->end()) apply_report(each, *report, now);
  }
}

void Blocks::apply_report(Entry& each, const JobReport& report, Now now) {
  const bool ours = report.job_name.empty() || report.job_name == each.record.job_name;
  if (report.listed && !ours && !std::exchange(each.foreign, true))
    log_warn("block {}: job {} is now another one, {}: the scheduler has lost what it knew",
             each.record.job_name, each.record.job_id, report.job_name);
  if (!report.listed || !ours) {
    pace_.changed(now);
    // What its pilots say is worth more than a scheduler that has forgotten it.
    if (each.calls_home) return;
    // Not listed: not yet, or not any more. A few answers in a row decide.
    ++each.unlisted;
    const bool may_be_new = !each.listed_once && now.mono - each.since < kListingGrace;
    if (each.unlisted >= kUnlistedUntilGone && !may_be_new)
      change(each, BlockEvent::kGone, "the scheduler does not know the job any more", now);
    return;
  }
  each.unlisted = 0;
  each.listed_once = true;
  if (!each.unwanted && !report.reason.empty()) each.record.reason = report.reason;
  const std::string cause = fmt::format("the scheduler says {}", report.word);
  const BlockState state = each.record.state;
  switch (report.state) {
    case JobReport::State::kUnknown:
      break;
    case JobReport::State::kQueued:
      if (state == BlockState::kRunning) change(each, BlockEvent::kWaits, cause, now);
      break;
    case JobReport::State::kRunning:
      if (state == BlockState::kQueued) change(each, BlockEvent::kRuns, cause, now);
      break;
    case JobReport::State::kEnding:
      if (state != BlockState::kEnding) change(each, BlockEvent::kEnds, cause, now);
      break;
    case JobReport::State::kEnded:
      each.record.end = report.end;
      change(each, BlockEvent::kGone, fmt::format("{} ({})", cause, name_of(report.end)), now);
      break;
  }
}

void Blocks::cancelled(const std::vector<std::string>& job_ids, const Result<void>& outcome,
                       Now now) {
  if (!outcome) {
    last_error_ = outcome.error().message;
    log_warn("cancelling {} jobs failed: {}; trying again", job_ids.size(),
             outcome.error().message);
  }
  pace_.changed(now);
}

void Blocks::pilot_called(BlockId id, bool of_use, Now now) {
  Entry* each = entry(id);
  if (each == nullptr) return;
  (of_use ? each->called : each->turned_away) = true;
  if (of_use && std::exchange(dead_starts_, 0) > 0) paused_.clear();
  if (each->record.state == BlockState::kQueued)
    change(*each, BlockEvent::kRuns, "a pilot called", now);
  else if (each->record.state == BlockState::kInDoubt)
    each->next_find = now.mono;  // it exists: the name will be found
  else if (each->record.state == BlockState::kAbandoned)
    each->next_find = now.mono;
}

std::string Blocks::explain_wait(Now now) const {
  if (draining_)
    return fmt::format("the endpoint is drained: `farcall endpoint resume {}` goes on",
                       settings_.endpoint_name);
  if (!paused_.empty()) return paused_;
  if (!over_budget_.empty()) return over_budget_;
  if (pace_.unanswered() > 0)
    return fmt::format("the scheduler has not answered for {} s: {}",
                       (now.mono - pace_.unanswered_since()) / seconds(1), last_error_);
  for (const auto& [id, each] : blocks_)
    if (each.record.state == BlockState::kQueued)
      return fmt::format("block {} (job {}) waits in the scheduler's queue{}", each.record.job_name,
                         each.record.job_id,
                         each.record.reason.empty() ? "" : ": " + each.record.reason);
  for (const auto& [id, each] : blocks_)
    if (each.record.state < BlockState::kQueued)
      return fmt::format("block {} is being submitted", each.record.job_name);
  if (now.mono < not_before_) return "the last block was refused: " + last_error_;
  return "";
}

std::string Blocks::sanity_check() const {
  int made = 0;
  for (const auto& [id, each] : blocks_) {
    if (!(each.record.id == id)) return "a block is filed under another one's id";
    const BlockState state = each.record.state;
    if (state >= BlockState::kQueued && state <= BlockState::kEnding && each.record.job_id.empty())
      return "a block in the queue has no job";
    made += is_active(each) ? 1 : 0;
  }
  if (made > std::max(settings_.scaling.max_blocks, 0)) return "more blocks than max_blocks";
  return "";
}

}  // namespace farcall::interchange
