#include "interchange/core/blocks.h"

#include <algorithm>
#include <cmath>

#include "base/log.h"

namespace farcall::interchange {
namespace {

constexpr Duration kFindGrace = seconds(60);
constexpr Duration kFindInterval = seconds(5);
// A job that was submitted a moment ago may not be listed yet.
constexpr Duration kListingGrace = seconds(30);
constexpr Duration kCancelAgain = seconds(15);
constexpr Duration kPausedRetry = std::chrono::minutes(10);
constexpr int kRefusalsUntilPause = 3;
constexpr int kUnlistedUntilGone = 3;
constexpr int kLateLooksMax = 20;  // for an abandoned name, with growing distance
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

void Blocks::save(Entry& each) {
  effects_.push_back(effect::SaveBlock{each.record, ++each.serial});
}

void Blocks::call(Effect effect, Now now) {
  calls_.push_back(now.mono);
  effects_.push_back(std::move(effect));
}

int Blocks::calls_last_hour(Now now) const {
  return static_cast<int>(std::count_if(calls_.begin(), calls_.end(), [&](MonoTime at) {
    return now.mono - at < std::chrono::hours(1);
  }));
}

bool Blocks::change(Entry& each, BlockEvent event, std::string_view cause, Now now) {
  const BlockState before = each.record.state;
  if (!apply(each.record, event, cause, now)) return false;
  if (before != each.record.state) each.since = now.mono;
  save(each);
  if (is_final(each.record.state)) ended_.push_back(each.record);
  return true;
}

void Blocks::recover(const std::vector<BlockRecord>& records, Now now) {
  for (const BlockRecord& record : records) {
    Entry& each = blocks_[record.id];
    each.record = record;
    each.since = now.mono;
    started_ = true;
    if (record.state == BlockState::kIntent || record.state == BlockState::kSubmitting) {
      change(each, BlockEvent::kUnknown, "the interchange ended while it was being submitted", now);
      each.doubt_since = now.mono;
      each.next_find = now.mono;
    } else if (record.state == BlockState::kInDoubt) {
      each.doubt_since = now.mono;
      each.next_find = now.mono;
    } else if (record.state == BlockState::kAbandoned) {
      each.next_find = now.mono + kFindGrace;
    } else if (record.state == BlockState::kEnding) {
      each.unwanted = true;
      each.next_cancel = now.mono;
    }
  }
}

int Blocks::active() const {
  return static_cast<int>(std::count_if(blocks_.begin(), blocks_.end(), [](const auto& item) {
    return item.second.record.state < BlockState::kEnding && !item.second.unwanted;
  }));
}

bool Blocks::all_ended() const {
  return std::all_of(blocks_.begin(), blocks_.end(),
                     [](const auto& item) { return is_final(item.second.record.state); });
}

int Blocks::wanted(const Demand& demand) const {
  const ScalingSettings& scaling = settings_.scaling;
  int count = 0;
  if (demand.cores > 0) {
    // The size of a node is not known before the first one has called: one block finds out.
    const double per_block =
        static_cast<double>(demand.slots_per_node) * static_cast<double>(scaling.nodes_per_block);
    const double need =
        per_block > 0
            ? std::ceil(static_cast<double>(demand.cores) * scaling.parallelism / per_block)
            : 1.0;
    count = static_cast<int>(std::clamp(need, 1.0, 1e6));
  }
  return std::min(std::max(count, scaling.min_blocks), scaling.max_blocks);
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
  each.record.made_ms = each.record.since_ms = now.wall.milliseconds_since_epoch();
  each.since = now.mono;
  log_info("block {}: intent of {} nodes", each.record.job_name, each.record.nodes);
  save(each);
}

void Blocks::scale(const Demand& demand, Now now) {
  if (stopping_ || now.mono < not_before_) return;
  int want = wanted(demand);
  if (!started_) {
    want = std::min(std::max(want, settings_.scaling.init_blocks), settings_.scaling.max_blocks);
    started_ = true;
  }
  // After a refusal one at a time: the next is likely to be refused as well.
  const int missing = want - active();
  const int count = refusals_ > 0 ? std::min(missing, 1) : missing;
  for (int i = 0; i < count; ++i) make_block(now);
}

void Blocks::watch_idle(const Demand& demand, Now now) {
  int spare = active() - settings_.scaling.min_blocks;
  for (auto& [id, each] : blocks_) {
    const BlockState state = each.record.state;
    if ((state != BlockState::kQueued && state != BlockState::kRunning) || each.unwanted) continue;
    const auto use = demand.use.find(id);
    const bool busy = use != demand.use.end() && use->second.load > 0;
    const bool useless = state == BlockState::kQueued && demand.cores == 0;
    const bool idle =
        state == BlockState::kRunning && !busy && use != demand.use.end() && use->second.pilots > 0;
    if (!useless && !idle) {
      each.idle_since = MonoTime::max();
      continue;
    }
    if (each.idle_since == MonoTime::max()) each.idle_since = now.mono;
    if (spare <= 0 || now.mono - each.idle_since < settings_.scaling.max_idletime) continue;
    --spare;
    idle_.push_back(id);
    end(id, "idle for max_idletime", now);
  }
}

void Blocks::end(BlockId id, const std::string& why, Now now) {
  Entry* each = entry(id);
  if (each == nullptr || is_final(each->record.state) || each->unwanted) return;
  each->unwanted = true;
  each->record.reason = why;
  // One that is being written down or submitted is ended when that is over.
  if (each->record.state != BlockState::kQueued && each->record.state != BlockState::kRunning)
    return;
  change(*each, BlockEvent::kEnds, why, now);
  // Pilots that were told to stop end the job by themselves; this is for those that cannot.
  each->next_cancel = now.mono + settings_.stop_grace;
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
  for (auto& [id, each] : blocks_) {
    if (each.next_find <= now.mono && !each.find_under_way &&
        (each.record.state == BlockState::kInDoubt ||
         each.record.state == BlockState::kAbandoned)) {
      each.find_under_way = true;
      call(effect::FindBlock{id, each.record.job_name}, now);
    }
    if (each.record.state == BlockState::kEnding && each.next_cancel <= now.mono) {
      each.next_cancel = now.mono + kCancelAgain;
      cancel.push_back(each.record.job_id);
    }
  }
  if (!cancel.empty()) call(effect::CancelJobs{std::move(cancel)}, now);
}

void Blocks::ask(const Demand& demand, Now now) {
  if (status_under_way_ || now.mono < next_status_) return;
  std::vector<std::string> ids;
  bool waiting = false;
  for (const auto& [id, each] : blocks_) {
    const BlockState state = each.record.state;
    if (state < BlockState::kQueued || is_final(state)) continue;
    ids.push_back(each.record.job_id);
    const auto use = demand.use.find(id);
    const bool calls = use != demand.use.end() && use->second.calls_home;
    waiting = waiting || state != BlockState::kRunning || !calls;
  }
  if (ids.empty()) return;
  const Duration interval = settings_.scheduler_is_local ? Duration(seconds(1))
                            : waiting                    ? Duration(seconds(5))
                                                         : Duration(seconds(30));
  // Many endpoints on one cluster must not ask in step.
  const auto jitter = Duration(
      static_cast<std::int64_t>(rng_.below(static_cast<std::uint64_t>(interval.count()) / 5 + 1)));
  next_status_ = now.mono + interval + (settings_.scheduler_is_local ? Duration{0} : jitter);
  status_under_way_ = true;
  call(effect::QueryBlocks{std::move(ids)}, now);
}

void Blocks::tick(const Demand& demand, Now now) {
  while (!calls_.empty() && now.mono - calls_.front() >= std::chrono::hours(1)) calls_.pop_front();
  watch_idle(demand, now);
  scale(demand, now);
  look_for_lost(now);
  ask(demand, now);
  while (blocks_.size() > kFinalKept && is_final(blocks_.begin()->second.record.state) &&
         now.mono - blocks_.begin()->second.since > std::chrono::hours(24))
    blocks_.erase(blocks_.begin());
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
  call(effect::SubmitBlock{id, each->record.job_name, each->record.nodes, each->record.walltime_s},
       now);
}

void Blocks::back_off(const Error& error, Now now) {
  last_error_ = error.message;
  ++refusals_;
  hard_refusals_ = error.code == ErrorCode::kSchedulerRefused ? hard_refusals_ + 1 : 0;
  const Duration wait =
      std::min<Duration>(seconds(2) * (1 << std::min(refusals_, 8)), seconds(300));
  not_before_ = now.mono + wait;
  if (hard_refusals_ >= kRefusalsUntilPause) {
    paused_ =
        fmt::format("the scheduler refused {} blocks in a row: {}", hard_refusals_, error.message);
    not_before_ = now.mono + kPausedRetry;
    log_warn("{}; trying again in 10 minutes", paused_);
  }
}

void Blocks::submitted(BlockId id, const Result<std::string>& job_id, Now now) {
  Entry* each = entry(id);
  if (each == nullptr || each->record.state != BlockState::kSubmitting) return;
  if (job_id) {
    refusals_ = hard_refusals_ = 0;
    paused_.clear();
    last_error_.clear();
    each->record.job_id = *job_id;
    change(*each, BlockEvent::kAccepted, "accepted", now);
    next_status_ = std::min(next_status_, now.mono + seconds(1));
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
      each->next_find = now.mono + kFindGrace;  // until it is gone
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
                          ? now.mono + kFindGrace * (1 << std::min(each->finds / 2, 8))
                          : MonoTime::max();
    return;
  }
  // Only answers count towards giving up: a scheduler that is away says nothing about the job.
  if (!job_ids) {
    last_error_ = job_ids.error().message;
    each->next_find = now.mono + kFindInterval * 2;
    return;
  }
  if (now.mono - each->doubt_since < kFindGrace) {
    each->next_find = now.mono + kFindInterval;
    return;
  }
  each->finds = 0;
  change(*each, BlockEvent::kGivenUp, "not found by its name", now);
  each->next_find = now.mono + kFindGrace;
  back_off(Error{ErrorCode::kOutcomeUnknown, each->record.reason}, now);
}

void Blocks::reported(const Result<std::vector<JobReport>>& reports, Now now) {
  status_under_way_ = false;
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
  if (!report.listed || !ours) {
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
  next_status_ = std::min(next_status_, now.mono + seconds(1));
}

void Blocks::pilot_called(BlockId id, Now now) {
  Entry* each = entry(id);
  if (each == nullptr) return;
  if (each->record.state == BlockState::kQueued)
    change(*each, BlockEvent::kRuns, "a pilot called", now);
  else if (each->record.state == BlockState::kInDoubt)
    each->next_find = now.mono;  // it exists: the name will be found
  else if (each->record.state == BlockState::kAbandoned)
    each->next_find = now.mono;
}

std::string Blocks::explain_wait(Now now) const {
  if (!paused_.empty()) return paused_;
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
    made += state < BlockState::kEnding && !each.unwanted ? 1 : 0;
  }
  if (made > std::max(settings_.scaling.max_blocks, 0)) return "more blocks than max_blocks";
  return "";
}

}  // namespace farcall::interchange
