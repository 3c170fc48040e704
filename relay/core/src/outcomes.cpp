// Recording how tasks ended: once each, whatever comes how often.
#include "base/log.h"
#include "messages.h"
#include "relay/core/relay.h"
#include "wire/failure.h"

namespace farcall::relay {

// The first success wins; a failure counts only for the newest attempt that is known.
bool Relay::accept(Submission& submission, const TaskOutcome& outcome) const {
  if (submission.is_final(outcome.index)) return false;
  if (outcome.state != TaskState::kFailed) return true;
  auto history = submission.histories.find(outcome.index);
  return history == submission.histories.end() || outcome.attempt >= history->second.attempt;
}

void Relay::take_results(PeerId peer, Endpoint& endpoint, const Message& message) {
  auto results = wire::decode<wire::Results>(message);
  if (!results) return bad_message(peer, results.error());
  const Bytes data = message.payload.empty() ? Bytes() : message.payload[0];
  std::uint64_t offset = 0, total = 0;
  for (const auto& part : results->results)
    for (const TaskOutcome& outcome : part.outcomes) total += outcome.data_size;
  if (total != data.size())
    return bad_message(peer, {ErrorCode::kCorrupt, fmt::format("results of {} bytes that say they have {}",
                                                               data.size(), total)});
  for (auto& part : results->results) {
    Submission* submission = find(part.submission);
    std::uint64_t size = 0;
    for (const TaskOutcome& outcome : part.outcomes) size += outcome.data_size;
    const Bytes own = data.slice(offset, size);
    offset += size;
    if (submission == nullptr || submission->header.endpoint != endpoint.row.id) {
      put_aside_ += part.outcomes.size();
      log_warn("{} outcomes of submission {} from endpoint {} put aside: not known here", part.outcomes.size(),
               part.submission.string(), endpoint.row.name);
      continue;
    }
    RangeSet fresh;
    for (const TaskOutcome& outcome : part.outcomes) {
      if (!submission->received.contains(outcome.index) || !is_final(outcome.state)) {
        ++put_aside_;
      } else if (fresh.contains(outcome.index) || !accept(*submission, outcome)) {
        ++superseded_;
      } else {
        fresh.insert(outcome.index);
      }
    }
    if (!fresh.empty()) record(*submission, select_outcomes({part.submission, std::move(part.outcomes), own}, fresh));
  }
  after_commit([this, peer, batch = results->batch] {
    if (endpoint_peers_.count(peer) != 0) send_body(peer, wire::ResultsAck{{batch}});
  });
}

// REQUIRES: none of them is final.
void Relay::record(Submission& submission, OutcomesRow row) {
  RangeSet tasks;
  for (const TaskOutcome& outcome : row.outcomes) {
    tasks.insert(outcome.index);
    switch (outcome.state) {
      case TaskState::kSucceeded:
        submission.succeeded.insert(outcome.index);
        break;
      case TaskState::kCancelled:
        submission.cancelled.insert(outcome.index);
        break;
      default:
        submission.failed.insert(outcome.index);
    }
    if (!submission.histories.empty()) submission.histories.erase(outcome.index);
  }
  submission.delivered.erase(tasks);
  submission.running.erase(tasks);
  submission.undelivered.erase(tasks);
  submission.changed_ms = now_ms();
  make_ready(submission);
  write(row);
  if (submission.complete()) store_row(submission);
  after_commit([this, id = submission.header.submission, row = std::move(row)] {
    Submission* s = find(id);
    if (s == nullptr) return;
    push_outcomes(*s, row);
    touch(*s);
  });
}

void Relay::record_cancelled(Submission& submission, const RangeSet& tasks) {
  if (tasks.empty()) return;
  OutcomesRow row{submission.header.submission, {}, {}};
  const Bytes failure = wire::failure_data({.type = "TaskCancelled",
                                            .message = "the task was cancelled before it was started",
                                            .failure = FailureClass::kCancelled});
  std::string data;
  tasks.for_each([&](std::uint32_t index) {
    TaskOutcome outcome;
    outcome.index = index;
    outcome.state = TaskState::kCancelled;
    outcome.failure = FailureClass::kCancelled;
    outcome.ended_ms = now_ms();
    outcome.data_size = failure.size();
    row.outcomes.push_back(outcome);
    data += failure.view();
  });
  row.data = Bytes(std::move(data));
  record(submission, std::move(row));
}

void Relay::cancel(Submission& submission, const RangeSet& tasks, bool force, CancelCounts& counts) {
  const RangeSet finals = submission.finals();
  const RangeSet open = tasks.difference(finals);
  const RangeSet present = open.intersection(submission.durable);
  counts.finished += tasks.intersection(finals).count();
  RangeSet now = force ? present : present.difference(submission.delivered);
  const RangeSet later = present.difference(now);
  counts.cancelled += now.count();
  counts.requested += later.count();
  // The wish covers what is still to come of the submission as well.
  submission.cancel_wished.insert(open);
  submission.changed_ms = now_ms();
  store_row(submission);
  record_cancelled(submission, now);
  auto endpoint = endpoints_.find(submission.header.endpoint);
  if (endpoint == endpoints_.end()) return;
  const SubmissionId id = submission.header.submission;
  after_commit([this, endpoint_id = endpoint->first, id, wished = force ? present : later] {
    auto found = endpoints_.find(endpoint_id);
    if (found == endpoints_.end() || !found->second.peer || wished.empty()) return;
    send_body(*found->second.peer, wire::CancelTasks{{{id, wished}}});
  });
}

void Relay::take_attempts(Endpoint& endpoint, const Message& message) {
  auto attempts = wire::decode<wire::Attempts>(message);
  if (!attempts) return log_warn("endpoint {}: {}", endpoint.row.name, attempts.error().message);
  for (const auto& spent : attempts->items) {
    Submission* submission = find(spent.submission);
    if (submission == nullptr || submission->header.endpoint != endpoint.row.id) continue;
    HistoriesRow row{spent.submission, {}};
    for (const TaskHistory& history : spent.histories) {
      if (!submission->received.contains(history.index) || submission->is_final(history.index)) continue;
      auto& known = submission->histories[history.index];
      if (history.attempt < known.attempt) continue;
      known = history;
      row.histories.push_back(history);
    }
    if (!row.histories.empty()) write(std::move(row));
  }
}

void Relay::take_running(Endpoint& endpoint, const Message& message) {
  auto running = wire::decode<wire::Running>(message);
  if (!running) return log_warn("endpoint {}: {}", endpoint.row.name, running.error().message);
  for (const auto& item : running->running) {
    Submission* submission = find(item.submission);
    if (submission == nullptr || submission->header.endpoint != endpoint.row.id) continue;
    submission->running = item.ranges.intersection(submission->delivered);
    touch(*submission);
  }
}

}  // namespace farcall::relay
