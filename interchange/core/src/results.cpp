// Outcomes: which count, which are tried again, and how they get to the relay.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "interchange/core/core.h"
#include "wire/failure.h"

namespace farcall::interchange {
namespace {

constexpr std::uint64_t kSpoolBatchBytes = 4 << 20;
// A failure of a task that the relay has not delivered (again): it is for the relay to judge then.
constexpr Duration kUnjudgedLimit = seconds(60);

// The scheduler's id of the batch job that the pilot is of; empty: not known.
std::string job_of(const Blocks& blocks, const Pilot* pilot) {
  const BlockRecord* block = pilot == nullptr ? nullptr : blocks.find(pilot->block);
  return block == nullptr ? "" : block->job_id;
}

}  // namespace

void Core::on_results(Pilot& pilot, const wire::Message& message, Now now) {
  const auto taken = take_results(pilot.id, std::nullopt, message, now);
  if (!taken) {
    effects_.push_back(effect::ResetPilot{pilot.peer, taken.error().message});
    return;
  }
  pilots_.update_open(pilot, settings_.prefetch);
  if (pilot.outcomes_awaited > 0 && pilot.batches_seen.insert(taken->batch).second)
    pilot.outcomes_awaited -= std::min(pilot.outcomes_awaited, taken->count);
  if (pilot.outcomes_awaited == 0 && !pilot.missing.empty()) return_missing(pilot, now);
}

void Core::results_left(BlockId block, PilotId pilot, const std::string& file,
                        const wire::Message& results, Now now) {
  const LeftFile left{block, file};
  if (std::any_of(left_files_.begin(), left_files_.end(),
                  [&](const auto& item) { return item.second == left; }))
    return;
  left_files_[++last_left_] = left;
  const auto taken = take_results(pilot, last_left_, results, now);
  if (!taken) {
    log_warn("results that a pilot left in {} of block {} are not taken: {}", file, block.string(),
             taken.error().message);
    return;
  }
  log_info("took {} results that pilot {} had left in {}", taken->count, pilot.string(), file);
}

Result<Core::Taken> Core::take_results(PilotId id, std::optional<std::uint64_t> left,
                                       const wire::Message& message, Now now) {
  const auto results = wire::decode<wire::Results>(message);
  if (!results) return fail(results.error());
  std::uint64_t total = 0;
  for (const auto& each : results->results)
    for (const TaskOutcome& outcome : each.outcomes) total += outcome.data_size;
  const Bytes data = message.payload.empty() ? Bytes() : message.payload.front();
  if (total != data.size())
    return fail(ErrorCode::kCorrupt, "the data of the results do not add up");
  const PilotBatch owed{left ? PilotId{} : id, left.value_or(results->batch)};
  Taken taken{results->batch, 0};
  std::size_t offset = 0;
  bool all_judged = true;
  for (const auto& each : results->results) {
    for (const TaskOutcome& outcome : each.outcomes) {
      const Bytes piece = data.slice(offset, outcome.data_size);
      offset += outcome.data_size;
      ++taken.count;
      if (judge(id, each.submission, outcome, piece.view(), now)) continue;
      all_judged = false;
      unjudged_[{each.submission, outcome.index}] =
          Unjudged{id, {each.submission, {outcome}}, piece, owed, alive_};
    }
  }
  if (all_judged) outbox_owed_.push_back(owed);
  return taken;
}

bool Core::judge(PilotId pilot, const SubmissionId& id, const TaskOutcome& outcome,
                 std::string_view data, Now now) {
  const std::uint32_t index = outcome.index;
  Submission* known = queue_.find(id);
  if (known != nullptr && known->done.contains(index)) {
    ++counters_.superseded;
    return true;
  }
  const bool here =
      known != nullptr && (known->pending.contains(index) || known->placed.contains(index));
  if (outcome.state == TaskState::kSucceeded || (outcome.state == TaskState::kCancelled && here)) {
    if (outcome.state == TaskState::kCancelled && known->attempt_of(index) != outcome.attempt) {
      ++counters_.superseded;
      return true;
    }
    Submission& submission = queue_.submission(id);
    if (outcome.state == TaskState::kSucceeded) pace(submission, outcome);
    if (here) {
      take_off_pilot(submission, index, true, pilot);
      queue_.finish(submission, index);
    } else {
      queue_.mark_done(submission, index);
    }
    learn(submission, outcome);
    if (outcome.state == TaskState::kSucceeded)
      emit(id, outcome, data);
    else
      emit(id, outcome, wire::with_job_id(data, job_of(blocks_, pilots_.find(pilot))));
    return true;
  }
  if (!here || !known->header) return false;
  judge_failure(pilot, *known, outcome, data, now);
  return true;
}

void Core::judge_failure(PilotId pilot_id, Submission& submission, const TaskOutcome& outcome,
                         std::string_view data, Now now) {
  const std::uint32_t index = outcome.index;
  Pilot* pilot = pilots_.find(pilot_id);
  Placement* placement = pilot == nullptr ? nullptr : pilot->holder_of(submission, index);
  if (placement == nullptr || placement->attempt != outcome.attempt) {
    ++counters_.superseded;  // another attempt is under way
    return;
  }
  watch_node(pilot, {submission.id, index}, submission.header->function, outcome, data, now);
  take_off_pilot(submission, index, false);
  if (!submission.cancelled.contains(index) && try_again(submission, index, outcome.failure))
    return;
  if (outcome.failure == FailureClass::kAllocationEnded) {
    emit_failure(
        submission, index, TaskState::kFailed, outcome.failure, "AllocationTooShort",
        fmt::format("the task was cut off by the end of its allocation {} times; "
                    "blocks last {} s: ask for a longer walltime",
                    submission.histories[index]
                        .failures[static_cast<std::size_t>(FailureClass::kAllocationEnded)],
                    settings_.scaling.walltime_s),
        pilot, now);
    return;
  }
  queue_.finish(submission, index);
  emit(submission.id, outcome, wire::with_job_id(data, job_of(blocks_, pilot)));
}

void Core::learn(const Submission& submission, const TaskOutcome& outcome) {
  if (outcome.state != TaskState::kSucceeded) return;
  nodes_.succeeded(outcome.host);
  if (submission.header && outcome.started_ms > 0 && outcome.ended_ms >= outcome.started_ms)
    durations_.add(submission.header->function,
                   milliseconds(outcome.ended_ms - outcome.started_ms));
}

// A worker that dies at once is the node's fault only where the function is known to work: one that
// crashes everywhere must not cost the endpoint its nodes.
void Core::watch_node(const Pilot* pilot, const TaskId& task, FunctionId function,
                      const TaskOutcome& outcome, std::string_view data, Now now) {
  const bool at_once = outcome.started_ms == 0 || outcome.ended_ms - outcome.started_ms < 1000;
  const bool environment = outcome.failure == FailureClass::kEnvironment;
  const bool crash =
      outcome.failure == FailureClass::kCrash && at_once && durations_.succeeded(function);
  // This host is the only one that there is.
  if ((!environment && !crash) || settings_.scheduler_is_local) return;
  // 'E', the length of the JSON, the JSON: docs/payloads.md.
  constexpr std::size_t kBeforeJson = 5;
  const auto text =
      nlohmann::json::parse(data.substr(std::min(data.size(), kBeforeJson)), nullptr, false);
  const std::string why = text.is_object() ? text.value("message", "") : "";
  if (!nodes_.failed(pilot->node, task, why.empty() ? std::string(name_of(outcome.failure)) : why,
                     now))
    return;
  const std::string node = pilot->node;
  for (auto& [id, each] : pilots_.all())
    if (each.node == node) tell_to_stop(each, "this node is bad: " + why, kDrainGrace);
}

bool Core::try_again(Submission& submission, std::uint32_t index, FailureClass failure) {
  TaskHistory& history = submission.histories[index];
  history.index = index;
  // Without its header nobody knows the budget; the relay does and will say so.
  const RetryPolicy policy = submission.header
                                 ? submission.header->retry
                                 : RetryPolicy{.lost = 1000, .never = submission.never_on_disk};
  if (!history.charge(failure, policy)) return false;
  ++counters_.retries;
  log_debug("task {}: {}, attempt {} follows", TaskId{submission.id, index}.string(),
            name_of(failure), history.attempt);
  attempts_to_report_[submission.id][index] = history;
  queue_.pend(submission, RangeSet{{index, index + 1}});
  if (!submission.delivered.contains(index)) submission.histories.erase(index);
  return true;
}

void Core::charge(Submission& submission, std::uint32_t index, FailureClass failure,
                  const std::string& why, const Pilot* pilot, Now now) {
  if (submission.cancelled.contains(index)) {
    emit_failure(submission, index, TaskState::kCancelled, FailureClass::kCancelled,
                 "TaskCancelled", "the task was cancelled", pilot, now);
    return;
  }
  if (try_again(submission, index, failure)) return;
  const auto& failures = submission.histories[index].failures;
  const int times = failures[static_cast<std::size_t>(failure)];
  if (failure == FailureClass::kAllocationEnded)
    emit_failure(
        submission, index, TaskState::kFailed, failure, "AllocationTooShort",
        fmt::format("the task was cut off by the end of its allocation {} times ({}); blocks "
                    "last {} s: ask for a longer walltime",
                    times, why, settings_.scaling.walltime_s),
        pilot, now);
  else
    emit_failure(submission, index, TaskState::kFailed,
                 failure == FailureClass::kNone ? FailureClass::kLost : failure, "TaskLost",
                 times == 1
                     ? "the task was lost because " + why
                     : fmt::format("the task was lost {} times, at last because {}", times, why),
                 pilot, now);
}

void Core::take_off_pilot(Submission& submission, std::uint32_t index, bool cancel_there,
                          PilotId except) {
  if (!submission.placed.contains(index)) return;
  Placement* placement = nullptr;
  // Nearly always it is the one that delivers.
  Pilot* pilot = pilots_.find(except);
  if (pilot != nullptr) placement = pilot->holder_of(submission, index);
  if (placement == nullptr) pilot = pilots_.holder_of(submission, index, placement);
  FARCALL_CHECK(pilot != nullptr, "a placed task is at no pilot");
  const wire::AttemptRef ref{submission.id, index, placement->attempt};
  pilots_.take_off(*pilot, *placement, index, dropped_now_);
  pilots_.update_open(*pilot, settings_.prefetch);
  if (cancel_there && pilot->id != except) cancel_now_[pilot->id].push_back(ref);
}

void Core::emit(const SubmissionId& submission, TaskOutcome outcome, std::string_view data) {
  outcome.data_size = data.size();
  outbox_[submission].push_back(std::move(outcome));
  outbox_data_[submission] += data;
  outbox_bytes_ += data.size();
  ++counters_.finished;
  if (outbox_bytes_ > kSpoolBatchBytes) flush_outcomes();
}

void Core::emit_failure(Submission& submission, std::uint32_t index, TaskState state,
                        FailureClass failure, const std::string& type, const std::string& text,
                        const Pilot* pilot, Now now) {
  TaskOutcome outcome;
  outcome.index = index;
  outcome.attempt = submission.attempt_of(index);
  outcome.state = state;
  outcome.failure = failure;
  outcome.ended_ms = now.wall.milliseconds_since_epoch();
  if (pilot != nullptr) outcome.host = pilot->node;
  const SubmissionId id = submission.id;
  const Bytes data = wire::failure_data({.type = type,
                                         .message = text,
                                         .failure = failure,
                                         .host = outcome.host,
                                         .limit = "",
                                         .attempt = outcome.attempt,
                                         .job_id = job_of(blocks_, pilot)});
  if (submission.pending.contains(index) || submission.placed.contains(index))
    queue_.finish(submission, index);
  else
    queue_.mark_done(submission, index);
  emit(id, std::move(outcome), data.view());
}

void Core::flush_outcomes() {
  if (outbox_.empty()) {
    if (outbox_owed_.empty()) return;
    // Nothing new in them; but what they repeat may not be safe yet.
    if (!spool_.empty() && spool_.rbegin()->first > durable_batch_) {
      auto& owed = spool_.rbegin()->second.owed;
      owed.insert(owed.end(), outbox_owed_.begin(), outbox_owed_.end());
    } else {
      acknowledge(outbox_owed_);
    }
    outbox_owed_.clear();
    return;
  }
  wire::Results results;
  results.batch = next_batch_++;
  std::string data;
  data.reserve(outbox_bytes_);
  Spooled entry;
  for (auto& [submission, outcomes] : outbox_) {
    RangeSet tasks;
    for (const TaskOutcome& outcome : outcomes) tasks.insert(outcome.index);
    entry.tasks.push_back({submission, std::move(tasks)});
    data += outbox_data_[submission];
    results.results.push_back({submission, std::move(outcomes)});
  }
  outbox_.clear();
  outbox_data_.clear();
  outbox_bytes_ = 0;
  entry.owed = std::exchange(outbox_owed_, {});
  entry.dropped = std::exchange(dropped_now_, {});
  entry.since = alive_;
  entry.message = wire::make_message(results, {Bytes(std::move(data))});
  spool_bytes_ += entry.message.payload.front().size() + entry.message.body.size();
  send_relay(entry.message);
  spool_.emplace(results.batch, std::move(entry));
  if (!welcomed_) spool_older_than(Duration{0});
}

// To disk goes what the relay has not taken in time. Until then the pilots keep it.
void Core::spool_older_than(Duration age) {
  for (auto next = spool_.upper_bound(spooled_batch_); next != spool_.end(); ++next) {
    auto& [batch, entry] = *next;
    if (alive_ - entry.since < age) return;
    entry.on_disk = true;
    spooled_batch_ = batch;
    effects_.push_back(effect::Spool{{batch, entry.message.body, entry.message.payload.front()}});
    if (!entry.dropped.empty())
      effects_.push_back(effect::SavePlacements{{}, std::exchange(entry.dropped, {})});
  }
}

void Core::acknowledge(const std::vector<PilotBatch>& batches) {
  std::map<PilotId, wire::ResultsAck> acks;
  for (const PilotBatch& each : batches) {
    if (!each.pilot.is_nil()) {
      acks[each.pilot].batches.push_back(each.batch);
      continue;
    }
    const auto left = left_files_.find(each.batch);
    if (left == left_files_.end()) continue;
    effects_.push_back(effect::DropLeft{left->second.block, left->second.name});
    left_files_.erase(left);
  }
  for (auto& [id, ack] : acks)
    if (Pilot* pilot = pilots_.find(id); pilot != nullptr && pilot->peer != 0)
      send_pilot(*pilot, wire::make_message(ack));
}

void Core::spooled(std::uint64_t batch) {
  std::vector<PilotBatch> owed;
  for (auto entry = spool_.upper_bound(durable_batch_);
       entry != spool_.end() && entry->first <= batch; ++entry) {
    auto& waiting = entry->second.owed;
    entry->second.durable = true;
    owed.insert(owed.end(), waiting.begin(), waiting.end());
    waiting.clear();
  }
  durable_batch_ = std::max(durable_batch_, batch);
  acknowledge(owed);
}

void Core::on_results_ack(const wire::ResultsAck& ack) {
  std::vector<PilotBatch> owed;
  effect::DropSpooled dropped;
  for (std::uint64_t batch : ack.batches) {
    const auto entry = spool_.find(batch);
    if (entry == spool_.end()) continue;
    for (const auto& tasks : entry->second.tasks) queue_.acknowledge(tasks);
    auto& waiting = entry->second.owed;
    // Repeats among them may rest on an earlier batch that is neither on disk nor committed.
    const bool earlier = entry != spool_.begin() && !std::prev(entry)->second.durable;
    auto& target = earlier ? std::prev(entry)->second.owed : owed;
    target.insert(target.end(), waiting.begin(), waiting.end());
    spool_bytes_ -=
        entry->second.message.payload.front().size() + entry->second.message.body.size();
    const auto& ended = entry->second.dropped;
    dropped_now_.insert(dropped_now_.end(), ended.begin(), ended.end());
    if (entry->second.on_disk) dropped.batches.push_back(batch);
    spool_.erase(entry);
  }
  acknowledge(owed);
  if (!dropped.batches.empty()) effects_.push_back(std::move(dropped));
}

void Core::judge_waiting(Now now) {
  for (auto each = unjudged_.begin(); each != unjudged_.end();) {
    const Unjudged waiting = each->second;
    const TaskOutcome& outcome = waiting.outcome.outcomes.front();
    const SubmissionId id = waiting.outcome.submission;
    if (!judge(waiting.pilot, id, outcome, waiting.data.view(), now)) {
      if (!welcomed_ || alive_ - waiting.since < kUnjudgedLimit) {
        ++each;
        continue;
      }
      Submission& submission = queue_.submission(id);
      if (submission.placed.contains(outcome.index)) {
        take_off_pilot(submission, outcome.index, true, waiting.pilot);
        queue_.finish(submission, outcome.index);
      } else {
        queue_.mark_done(submission, outcome.index);
      }
      emit(id, outcome,
           wire::with_job_id(waiting.data.view(), job_of(blocks_, pilots_.find(waiting.pilot))));
    }
    each = unjudged_.erase(each);
    const bool last = std::none_of(unjudged_.begin(), unjudged_.end(), [&](const auto& item) {
      return item.second.owed.pilot == waiting.owed.pilot &&
             item.second.owed.batch == waiting.owed.batch;
    });
    if (last) outbox_owed_.push_back(waiting.owed);
  }
}

}  // namespace farcall::interchange
