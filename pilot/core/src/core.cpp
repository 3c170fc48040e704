#include "pilot/core/core.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "pilot/core/failure.h"
#include "wire/codec.h"

namespace farcall::pilot {

using wire::AttemptRef;

namespace {
constexpr Duration kRunningAge = std::chrono::milliseconds(100);
// Before the allocation's end: what still runs is cut off and given back while there is time to say
// so. Of a short allocation less.
constexpr Duration kCutBeforeEnd = std::chrono::seconds(5);
constexpr int kSigKill = 9;
constexpr int kSigTerm = 15;
constexpr Duration kSuspectFor = std::chrono::seconds(1);
// A function is a short one when this many runs in a row took no longer than that.
constexpr std::uint32_t kShortRuns = 32;
constexpr std::int64_t kShortRun_ms = 5;
constexpr Duration kSaveDelayMax = std::chrono::minutes(1);
// What is lined up at a worker is work for about so long: enough to hide the way to the pilot and
// back, and not more than a task may wait behind others while another worker is free.
constexpr double kLine_ms = 8;
// Times come in whole milliseconds, so that a mean says little below this.
constexpr double kShortestMean_ms = 1.0 / 16;

std::string text_of(const AttemptRef& ref) {
  return fmt::format("{} attempt {}", TaskId{ref.submission, ref.index}.string(), ref.attempt);
}
}  // namespace

Core::Core(Settings settings, Now now) : settings_(std::move(settings)), silent_since_(now.mono) {
  FARCALL_CHECK(settings_.hello.cores > 0, "a pilot needs a core");
  if (const auto end = settings_.allocation_end)
    work_end_ = {end->since_start - std::min<Duration>(kCutBeforeEnd, (*end - now.mono) / 20)};
}
Core::~Core() = default;

std::vector<Effect> Core::take_effects() { return std::exchange(effects_, {}); }

std::uint32_t Core::running() const {
  return static_cast<std::uint32_t>(attempts_.size() - queued());
}

std::size_t Core::unacknowledged() const {
  std::size_t count = fresh_count_;
  for (const auto& [number, batch] : batches_) count += batch.outcomes;
  return count;
}

bool Core::holds(const TaskId& task) const {
  auto found = attempts_.lower_bound(AttemptRef{task.submission, task.index, 0});
  const auto is_it = [&](const AttemptRef& ref) {
    return ref.submission == task.submission && ref.index == task.index;
  };
  if (found != attempts_.end() && is_it(found->first)) return true;
  const auto guest = guests_.lower_bound(AttemptRef{task.submission, task.index, 0});
  return guest != guests_.end() && is_it(guest->first);
}

// --- tasks led elsewhere -------------------------------------------------------------------------

void Core::set_guests(const std::vector<wire::Guest>& guests) {
  std::map<AttemptRef, std::uint32_t> now;
  std::uint32_t slots = 0;
  for (const wire::Guest& guest : guests) {
    now[guest.attempt] = guest.slots;
    slots += guest.slots;
  }
  for (const auto& [ref, held] : guests_)
    if (!now.contains(ref)) effects_.push_back(EndGuest{ref});
  guests_ = std::move(now);
  guest_slots_ = slots;
}

void Core::on_spawn(wire::Spawn spawn) {
  if (guests_.contains(spawn.attempt)) {
    effects_.push_back(StartGuest{std::move(spawn)});
    return;
  }
  send(wire::make_message(
      wire::Spawned{spawn.attempt, spawn.request, 255,
                    fmt::format("the task holds nothing of {}", settings_.hello.node)}));
}

void Core::spawn(wire::Spawn spawn) {
  if (up_) return send(wire::make_message(spawn));
  effects_.push_back(GuestEnded{
      {spawn.attempt, spawn.request, 255, "the interchange cannot be reached at the moment"}});
}

void Core::on_guest_ended(wire::Spawned spawned) {
  if (up_ && guests_.contains(spawned.attempt)) send(wire::make_message(spawned));
}

// --- attempts ------------------------------------------------------------------------------------

bool Core::apply(Attempt& attempt, AttemptEvent event) {
  const auto next = next_state(attempt.state, event);
  if (!next) {
    log_error("task {}: '{}' cannot happen while it is {}", text_of(attempt.work.ref),
              name_of(event), name_of(attempt.state));
    return false;
  }
  if (log_enabled(LogLevel::kDebug))
    log_debug("task {}: {}: {}→{}", text_of(attempt.work.ref), name_of(event),
              name_of(attempt.state), name_of(*next));
  attempt.state = *next;
  return true;
}

Attempt* Core::find(const AttemptRef& ref) {
  auto found = attempts_.find(ref);
  return found == attempts_.end() ? nullptr : &found->second;
}

void Core::enqueue(Assignment work, Now now) {
  const AttemptRef ref = work.ref;
  if (Attempt* known = find(ref)) {
    // Abandoned a moment ago and not dead yet: it waits for its own end. Anything else is a repeat.
    if (known->state == AttemptState::kEnding && known->end == EndReason::kAbandoned)
      known->again = std::move(work);
    return;
  }
  Attempt attempt;
  attempt.work = std::move(work);
  await_blobs(attempts_.emplace(ref, std::move(attempt)).first->second, now);
}

void Core::kill(Attempt& attempt, EndReason reason) {
  if (attempt.state == AttemptState::kEnding) {
    // Abandoning wins over everything: nobody waits for its outcome.
    if (reason == EndReason::kAbandoned) attempt.end = reason;
    return;
  }
  if (!apply(attempt, AttemptEvent::kKill)) return;
  attempt.end = reason;
  effects_.push_back(Kill{attempt.work.ref});
}

void Core::drop_queued(const AttemptRef& ref) {
  Attempt* attempt = find(ref);
  if (attempt == nullptr || !apply(*attempt, AttemptEvent::kDrop)) return;
  if (waiting_.erase(ref) == 0) queue_.erase(std::find(queue_.begin(), queue_.end(), ref));
  release_blobs(attempt->work);
  attempts_.erase(ref);
}

std::uint32_t Core::cores_of(const Assignment& work) const {
  if (work.place) return work.place->shares.front().slots;
  return std::clamp<std::uint32_t>(
      work.header->resources.exclusive ? slots_ : work.header->resources.cores, 1,
      std::max(slots_, 1u));
}

void Core::release(const Attempt& attempt) {
  const AttemptRef ref = attempt.work.ref;
  if (lined_up_refs_.erase(ref) > 0) return;
  auto held = held_.extract(ref);
  if (held.empty()) return;
  cores_used_ -= held.mapped();
  // What was lined up takes the place: it is of one core.
  while (cores_used_ + guest_slots_ < slots_ && !lined_up_refs_.empty()) {
    held_[*lined_up_refs_.begin()] = 1;
    lined_up_refs_.erase(lined_up_refs_.begin());
    ++cores_used_;
  }
}

// The attempt is over (its state is kGone): gives back what it held.
void Core::remove(const AttemptRef& ref, Now now) {
  auto found = attempts_.find(ref);
  Attempt& attempt = found->second;
  release(attempt);
  if (attempt.work.header->walltime_ms > 0) walltimes_.erase({walltime_end(attempt), ref});
  auto reported = reported_running_.find(ref.submission);
  if (reported != reported_running_.end() && reported->second.contains(ref.index))
    next_running_report_ = std::min(next_running_report_, now.mono + kRunningAge);
  if (notes_.contains(ref)) next_notes_ = now.mono;  // its last words go before its outcome
  std::optional<Assignment> again = std::move(attempt.again);
  release_blobs(attempt.work);
  attempts_.erase(found);
  if (again && stopping_) hand_back_.push_back(ref);
  if (again && !stopping_) enqueue(std::move(*again), now);
}

MonoTime Core::walltime_end(const Attempt& attempt) const {
  return attempt.began + std::chrono::milliseconds(attempt.work.header->walltime_ms);
}

// --- runners -------------------------------------------------------------------------------------

void Core::on_began(const AttemptRef& ref, Now now) {
  Attempt* attempt = find(ref);
  if (attempt == nullptr || !apply(*attempt, AttemptEvent::kBegan)) return;
  attempt->began = now.mono;
  attempt->began_wall = now.wall;
  if (attempt->work.header->walltime_ms > 0) walltimes_.insert({walltime_end(*attempt), ref});
  next_running_report_ = std::min(next_running_report_, now.mono + kRunningAge);
}

// A batch system that ends a job sends SIGTERM, and in the end (Slurm at once for a job that its
// controller does not know) SIGKILL, to all of its processes, to tasks as well as to us: what died
// of it is not judged before we can know whether that was so.
void Core::on_finished(Finished finished, Now now) {
  const TaskOutcome& outcome = finished.outcome;
  const auto died_of = [&](int signal) {
    return outcome.signal == signal || outcome.exit_code == 128 + signal;
  };
  const bool by_signal =
      (died_of(kSigTerm) || died_of(kSigKill)) &&
      (outcome.failure == FailureClass::kNone || outcome.failure == FailureClass::kCrash);
  const Attempt* attempt = find(finished.ref);
  if (by_signal && attempt != nullptr && attempt->end == EndReason::kNone) {
    if (suspects_.empty()) suspects_until_ = now.mono + kSuspectFor;
    suspects_.push_back(std::move(finished));
    return;
  }
  conclude(std::move(finished), now);
}

void Core::settle_suspects(Now now) {
  if (suspects_.empty() || (!terminated_ && now.mono < suspects_until_)) return;
  suspects_until_ = MonoTime::max();
  for (Finished& finished : std::exchange(suspects_, {})) {
    Attempt* attempt = find(finished.ref);
    const bool with_us = terminated_ && attempt != nullptr && attempt->end == EndReason::kNone;
    if (!with_us) {
      conclude(std::move(finished), now);
      continue;
    }
    apply(*attempt, AttemptEvent::kFinished);
    hand_back_killed_.push_back(finished.ref);
    remove(finished.ref, now);
  }
}

void Core::conclude(Finished finished, Now now) {
  Attempt* attempt = find(finished.ref);
  if (attempt == nullptr) {
    log_error("task {}: finished, but is not held", text_of(finished.ref));
    return;
  }
  const bool wanted = attempt->end != EndReason::kAbandoned;
  if (!apply(*attempt, AttemptEvent::kFinished)) return;
  pace(*attempt, finished.outcome, now);
  // What came before the kill took effect is the outcome, whatever the kill was for.
  if (wanted) deliver(*attempt, std::move(finished.outcome), std::move(finished.data), now);
  remove(finished.ref, now);
}

void Core::on_returned(const AttemptRef& ref, Now now) {
  Attempt* attempt = find(ref);
  if (attempt == nullptr) {
    log_error("task {}: returned, but is not held", text_of(ref));
    return;
  }
  if (attempt->state == AttemptState::kEnding) return end_killed(ref, now);
  // What has begun may have had effects: the next is another attempt, and not to be made here by
  // a pilot that does not know whether there may be one.
  if (attempt->state == AttemptState::kRunning) {
    apply(*attempt, AttemptEvent::kFinished);
    hand_back_displaced_.push_back(ref);
    return remove(ref, now);
  }
  if (!apply(*attempt, AttemptEvent::kReturned)) return;
  release(*attempt);
  queue_.push_front(ref);
  if (stopping_) {
    hand_back_.push_back(ref);
    drop_queued(ref);
  }
}

void Core::on_killed(const AttemptRef& ref, Now now) { end_killed(ref, now); }

void Core::end_killed(const AttemptRef& ref, Now now) {
  Attempt* attempt = find(ref);
  if (attempt == nullptr || attempt->state != AttemptState::kEnding) {
    log_error("task {}: killed, but nobody asked for it", text_of(ref));
    return;
  }
  apply(*attempt, AttemptEvent::kReturned);
  switch (attempt->end) {
    case EndReason::kCancelled:
      deliver_own(*attempt, TaskState::kCancelled, FailureClass::kCancelled, now);
      break;
    case EndReason::kTimeExceeded:
      deliver_own(*attempt, TaskState::kFailed, FailureClass::kTimeExceeded, now);
      break;
    case EndReason::kHandedBack:
      hand_back_killed_.push_back(ref);
      break;
    case EndReason::kAbandoned:
    case EndReason::kNone:
      break;
  }
  remove(ref, now);
}

void Core::pace(const Attempt& attempt, const TaskOutcome& outcome, Now) {
  const FunctionKind kind = attempt.work.function->record.kind;
  if (kind != FunctionKind::kPythonSource && kind != FunctionKind::kPythonPickle) return;
  Pace& pace = paces_[attempt.work.function->record.id];
  const std::int64_t took_ms = outcome.ended_ms - outcome.started_ms;
  const bool is_short = outcome.state == TaskState::kSucceeded && took_ms <= kShortRun_ms;
  pace.short_runs = is_short ? std::min(pace.short_runs + 1, kShortRuns) : 0;
  // Over as many as there were so far, then over the latest.
  const double over = std::max(1.0, static_cast<double>(pace.short_runs));
  pace.mean_ms += (static_cast<double>(took_ms) - pace.mean_ms) / over;
}

void Core::deliver(Attempt& attempt, TaskOutcome outcome, Bytes data, Now now) {
  outcome.index = attempt.work.ref.index;
  outcome.attempt = attempt.work.ref.attempt;
  outcome.host = settings_.hello.node;
  outcome.data_size = data.size();
  if (outcome.started_ms == 0 && attempt.began_wall != WallTime{})
    outcome.started_ms = attempt.began_wall.milliseconds_since_epoch();
  if (outcome.ended_ms == 0) outcome.ended_ms = now.wall.milliseconds_since_epoch();
  fresh_[attempt.work.ref.submission].emplace_back(std::move(outcome), std::move(data));
  ++fresh_count_;
}

void Core::deliver_own(Attempt& attempt, TaskState state, FailureClass failure, Now now) {
  FailureText text;
  text.failure = failure;
  text.host = settings_.hello.node;
  text.attempt = attempt.work.ref.attempt;
  if (failure == FailureClass::kTimeExceeded) {
    text.type = "TaskTimeExceeded";
    text.limit = fmt::format("walltime {} s", attempt.work.header->walltime_ms / 1000.0);
    text.message = fmt::format(
        "the task ran longer than its walltime of {} s on {} and was killed; give the submission a "
        "longer walltime",
        attempt.work.header->walltime_ms / 1000.0, text.host);
  } else {
    text.type = "TaskCancelled";
    text.message =
        attempt.began_wall == WallTime{}
            ? fmt::format("the task was cancelled before it was started on {}", text.host)
            : fmt::format("the task was cancelled and killed on {}", text.host);
  }
  TaskOutcome outcome;
  outcome.state = state;
  outcome.failure = failure;
  deliver(attempt, std::move(outcome), failure_data(text), now);
}

// --- placing and time ----------------------------------------------------------------------------

bool Core::may_line_up(const Attempt& attempt) const {
  const auto& record = attempt.work.function->record;
  if (record.kind != FunctionKind::kPythonSource && record.kind != FunctionKind::kPythonPickle)
    return false;
  if (cores_of(attempt.work) != 1 || attempt.work.header->sandbox) return false;
  auto pace = paces_.find(record.id);
  return pace != paces_.end() && pace->second.short_runs >= kShortRuns &&
         lined_up_refs_.size() < static_cast<std::size_t>(slots_) * line_of(pace->second);
}

std::uint32_t Core::line_of(const Pace& pace) const {
  const double tasks = kLine_ms / std::max(pace.mean_ms, kShortestMean_ms);
  return std::clamp(static_cast<std::uint32_t>(tasks), 1U, settings_.line_up);
}

void Core::place(Now now) {
  const bool cut_off = !up_ && now.mono - silent_since_ >= settings_.lost_timeout;
  if (stopping_ || cut_off || slots_ == 0) return;
  while (!queue_.empty()) {
    Attempt& attempt = *find(queue_.front());
    const auto walltime = std::chrono::milliseconds(attempt.work.header->walltime_ms);
    if (walltime > work_end_ - now.mono) {
      hand_back_late_.push_back(attempt.work.ref);
      drop_queued(queue_.front());
      continue;
    }
    const std::uint32_t cores = cores_of(attempt.work);
    const bool fits = cores_used_ + guest_slots_ + cores <= slots_;
    if (!fits && !may_line_up(attempt)) return;
    if (!apply(attempt, AttemptEvent::kStart)) return;
    queue_.pop_front();
    if (fits) {
      held_[attempt.work.ref] = cores;
      cores_used_ += cores;
    } else {
      lined_up_refs_.insert(attempt.work.ref);
    }
    effects_.push_back(Start{attempt.work, !fits});
  }
}

void Core::expire(Now now) {
  while (!walltimes_.empty() && walltimes_.begin()->first <= now.mono) {
    const AttemptRef ref = walltimes_.begin()->second;
    walltimes_.erase(walltimes_.begin());
    if (Attempt* attempt = find(ref)) kill(*attempt, EndReason::kTimeExceeded);
  }
  if (work_end_ <= now.mono && !std::exchange(work_over_, true))
    begin_stop("its allocation ends", Duration{0}, now);
  if (stop_deadline_ > now.mono) return;
  stop_deadline_ = MonoTime::max();
  set_guests({});
  for (auto& [ref, attempt] : attempts_)
    if (attempt.state != AttemptState::kQueued) kill(attempt, EndReason::kHandedBack);
}

void Core::settle(Now now) {
  if (exited_) return;
  settle_suspects(now);
  expire(now);
  place(now);
  report_running(now);
  report_notes(now);
  send_results();
  save_in_time(now);
  send_status(now);
  maybe_exit(now);
}

std::optional<MonoTime> Core::next_deadline() const {
  if (exited_) return std::nullopt;
  MonoTime next = std::min(
      {stop_deadline_, linger_until_, suspects_until_, work_over_ ? MonoTime::max() : work_end_});
  if (!walltimes_.empty()) next = std::min(next, walltimes_.begin()->first);
  if (up_) next = std::min({next, next_status_, next_running_report_});
  if (up_ && !notes_.empty()) next = std::min(next, next_notes_);
  // What has passed already needs no timer: then only the end of what runs matters.
  if (!up_ && !cut_off_seen_) next = std::min(next, silent_since_ + settings_.lost_timeout);
  if (!up_ && !orphan_seen_) next = std::min(next, orphan_at());
  if (!up_) next = std::min(next, next_save_);
  if (next == MonoTime::max()) return std::nullopt;
  return next;
}

MonoTime Core::orphan_at() const {
  return silent_since_ + settings_.lost_timeout + settings_.orphan_timeout;
}

// --- reports -------------------------------------------------------------------------------------

void Core::report_running(Now now) {
  if (!up_ || now.mono < next_running_report_) return;
  next_running_report_ = MonoTime::max();
  std::map<SubmissionId, RangeSet> running;
  for (const auto& [ref, attempt] : attempts_) {
    if (attempt.state != AttemptState::kRunning) continue;
    if (now.mono - attempt.began >= kRunningAge)
      running[ref.submission].insert(ref.index);
    else
      next_running_report_ = now.mono + kRunningAge;
  }
  wire::Running message;
  for (const auto& [submission, ranges] : running) {
    auto reported = reported_running_.find(submission);
    if (reported == reported_running_.end() || !(reported->second == ranges))
      message.running.push_back({submission, ranges});
  }
  for (const auto& [submission, ranges] : reported_running_)
    if (!running.contains(submission)) message.running.push_back({submission, {}});
  reported_running_ = std::move(running);
  if (!message.running.empty()) send(wire::make_message(message));
}

// What was collected becomes a batch, which is kept until it is acknowledged.
void Core::make_batch() {
  wire::Results results;
  results.batch = ++last_batch_;
  std::size_t bytes = 0;
  for (const auto& [submission, outcomes] : fresh_)
    for (const auto& [outcome, data] : outcomes) bytes += data.size();
  std::string data;
  data.reserve(bytes);
  for (auto& [submission, outcomes] : fresh_) {
    wire::SubmissionOutcomes& item = results.results.emplace_back();
    item.submission = submission;
    for (auto& [outcome, one] : outcomes) {
      item.outcomes.push_back(std::move(outcome));
      data.append(one.data(), one.size());
    }
  }
  batches_.emplace(results.batch, Batch{wire::make_message(results, {Bytes(std::move(data))}),
                                        static_cast<std::uint32_t>(fresh_count_)});
  fresh_.clear();
  fresh_count_ = 0;
}

void Core::on_results_ack(const wire::ResultsAck& ack) {
  for (std::uint64_t batch : ack.batches) batches_.erase(batch);
  if (!saved_any_ || unacknowledged() > 0) return;
  saved_any_ = false;
  effects_.push_back(DropSaved{});
}

// Whoever kills this process while nobody listens should not take the results along.
void Core::save_in_time(Now now) {
  if (up_ || (fresh_count_ == 0 && saved_batch_ >= last_batch_)) return;
  if (stopping_) return save();  // the block ends: nobody knows how soon
  if (next_save_ == MonoTime::max()) {
    save_delay_ = std::min(std::max(save_delay_ * 2, settings_.save_after), kSaveDelayMax);
    next_save_ = now.mono + save_delay_;
  }
  if (now.mono >= next_save_) save();
}

void Core::save() {
  next_save_ = MonoTime::max();
  if (fresh_count_ > 0) make_batch();
  wire::Results all;
  std::string data;
  for (auto batch = batches_.upper_bound(saved_batch_); batch != batches_.end(); ++batch) {
    auto results = wire::decode<wire::Results>(batch->second.message);
    FARCALL_CHECK(results, "our own results cannot be read");
    all.batch = batch->first;
    std::move(results->results.begin(), results->results.end(), std::back_inserter(all.results));
    data += batch->second.message.payload.front().view();
  }
  saved_batch_ = last_batch_;
  if (all.results.empty()) return;
  saved_any_ = true;
  effects_.push_back(Save{wire::make_message(all, {Bytes(std::move(data))})});
}

void Core::send_results() {
  if (!up_) return;
  if (fresh_count_ > 0) {
    make_batch();
    send(batches_.rbegin()->second.message);
  }
  if (!hand_back_.empty())
    send(wire::make_message(wire::HandBack{std::exchange(hand_back_, {}), FailureClass::kNone}));
  if (!hand_back_late_.empty())
    send(wire::make_message(
        wire::HandBack{std::exchange(hand_back_late_, {}), FailureClass::kTimeExceeded}));
  if (!hand_back_killed_.empty())
    send(wire::make_message(
        wire::HandBack{std::exchange(hand_back_killed_, {}), FailureClass::kAllocationEnded}));
  if (!hand_back_displaced_.empty())
    send(wire::make_message(
        wire::HandBack{std::exchange(hand_back_displaced_, {}), FailureClass::kCrash}));
}

std::int64_t Core::remaining_s(Now now) const {
  if (!settings_.allocation_end) return -1;
  const auto left = std::chrono::duration_cast<std::chrono::seconds>(work_end_ - now.mono);
  return std::max<std::int64_t>(left.count(), 0);
}

void Core::send_status(Now now) {
  if (!up_ || now.mono < next_status_) return;
  next_status_ = now.mono + settings_.heartbeat;
  send(wire::make_message(wire::PilotStatus{running(), queued(), remaining_s(now)}));
}

void Core::exit(int code, std::string why) {
  exited_ = true;
  if (unacknowledged() > 0) save();
  effects_.push_back(Exit{code, std::move(why)});
}

void Core::maybe_exit(Now now) {
  if (!up_) {
    cut_off_seen_ = now.mono - silent_since_ >= settings_.lost_timeout;
    orphan_seen_ = now.mono >= orphan_at();
    if (orphan_seen_ && running() == 0)
      return exit(
          1, fmt::format(
                 "no interchange has answered for {} s; {} results were not taken",
                 std::chrono::duration_cast<std::chrono::seconds>(now.mono - silent_since_).count(),
                 unacknowledged()));
  }
  if (!stopping_ || !attempts_.empty() || !guests_.empty()) return;
  if (unacknowledged() == 0 && hand_back_.empty() && hand_back_late_.empty() &&
      hand_back_killed_.empty() && hand_back_displaced_.empty())
    return exit(0, stop_reason_);
  if (linger_until_ == MonoTime::max()) linger_until_ = now.mono + settings_.linger;
  if (now.mono >= linger_until_)
    exit(0, fmt::format("{}; {} results were not acknowledged", stop_reason_, unacknowledged()));
}

}  // namespace farcall::pilot
