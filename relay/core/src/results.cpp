// Outcomes come from interchanges and are recorded once for each task.
#include "base/log.h"
#include "send.h"

namespace farcall::relay {

void Core::Impl::results(Peer& peer, const wire::Results& m, const wire::Message& raw) {
  Endpoint* e = find_endpoint(peer.endpoint);
  const Bytes data = raw.payload.empty() ? Bytes() : raw.payload[0];
  std::uint64_t claimed = 0;
  for (const auto& part : m.results)
    for (const TaskOutcome& outcome : part.outcomes) claimed += outcome.data_size;
  if (e != nullptr && claimed == data.size()) {
    std::size_t offset = 0;
    for (const auto& part : m.results) {
      std::size_t size = 0;
      for (const TaskOutcome& outcome : part.outcomes) size += outcome.data_size;
      record(*e, part, data.slice(offset, size));
      offset += size;
    }
  } else if (e != nullptr) {
    log_warn("endpoint {}: batch {} has {} bytes of data, its outcomes claim {}: put aside",
             e->record.name, m.batch, data.size(), claimed);
    for (const auto& part : m.results) put_aside(*e, part.submission, part.outcomes, data);
  }
  after_commit([this, id = peer.id, batch = m.batch] {
    if (Peer* p = find_peer(id)) {
      p->result_acks.push_back(batch);
      ack_to_.insert(id);
    }
  });
}

// First success wins; a failure counts only from the newest attempt that is known.
Core::Impl::Verdict Core::Impl::judge(const Submission& s, const TaskOutcome& outcome,
                                      const RangeSet& in_row) const {
  if (!s.durable.contains(outcome.index) || !is_final(outcome.state)) return Verdict::kUnknown;
  if (s.final.contains(outcome.index) || in_row.contains(outcome.index))
    return Verdict::kSuperseded;
  if (outcome.state == TaskState::kSucceeded) return Verdict::kAccept;
  if (outcome.state == TaskState::kCancelled && s.record.cancel_wished.contains(outcome.index))
    return Verdict::kAccept;
  auto history = s.histories.find(outcome.index);
  const std::uint16_t newest = history == s.histories.end() ? 1 : history->second.attempt;
  return outcome.attempt >= newest ? Verdict::kAccept : Verdict::kSuperseded;
}

void Core::Impl::record(Endpoint& e, const wire::SubmissionOutcomes& part, const Bytes& data) {
  Submission* s = find_submission(part.submission);
  if (s == nullptr || s->record.header.endpoint != e.record.id)
    return put_aside(e, part.submission, part.outcomes, data);
  auto row = std::make_shared<OutcomeRow>();
  RangeSet in_row, again;
  std::vector<TaskOutcome> unknown;
  std::string kept, lost;
  std::size_t offset = 0;
  const bool superseded_before = s->superseded != 0;
  for (const TaskOutcome& outcome : part.outcomes) {
    const std::string_view bytes = data.view().substr(offset, outcome.data_size);
    offset += outcome.data_size;
    switch (judge(*s, outcome, in_row)) {
      case Verdict::kAccept:
        in_row.insert(outcome.index);
        row->by_state[state_slot(outcome.state)].insert(outcome.index);
        row->outcomes.push_back(outcome);
        kept += bytes;
        break;
      case Verdict::kSuperseded:
        if (!s->final.contains(outcome.index) && !in_row.contains(outcome.index))
          again.insert(outcome.index);
        ++s->superseded;
        ++counters_.outcomes_superseded;
        break;
      case Verdict::kUnknown:
        unknown.push_back(outcome);
        lost += bytes;
        break;
    }
  }
  if (!superseded_before && s->superseded != 0)
    log_info("submission {}: an outcome came for a task that has one: superseded",
             s->id().string());
  if (!unknown.empty()) put_aside(e, s->id(), std::move(unknown), Bytes(std::move(lost)));
  if (!again.empty()) deliver_again(s->id(), std::move(again));
  if (row->outcomes.empty()) return;
  for (const TaskOutcome& outcome : row->outcomes)
    if (outcome.attempt > 1) {
      auto [history, added] = s->histories.try_emplace(outcome.index);
      history->second.index = outcome.index;
      history->second.attempt = std::max(history->second.attempt, outcome.attempt);
    }
  // A copy: the frame it came in may be much larger and must not be kept alive by it.
  row->data = Bytes(std::move(kept));
  row->submission = s->id();
  commit_row(*s, std::move(row));
}

// The interchange takes the acknowledgement of a failure for the end of the task. When the failure
// was that of an older attempt, the task has not ended, and nobody but the relay holds it now. The
// acknowledgement leaves before the delivery, see finish().
void Core::Impl::deliver_again(SubmissionId id, RangeSet tasks) {
  after_commit([this, id, tasks = std::move(tasks)] {
    Submission* s = find_submission(id);
    if (s == nullptr) return;
    RangeSet open = tasks.intersection(s->delivered);
    open.erase(s->final);
    open.erase(s->record.cancel_wished);
    s->delivered.erase(open);
    s->pending.insert(open);
    queue(*s);
  });
}

void Core::Impl::put_aside(Endpoint& e, SubmissionId id, std::vector<TaskOutcome> outcomes,
                           Bytes data) {
  if (outcomes.empty()) return;
  log_warn(
      "endpoint {}: {} outcomes of submission {} belong to tasks that are not known here: put "
      "aside",
      e.record.name, outcomes.size(), id.string());
  counters_.outcomes_aside += outcomes.size();
  write(PutAside{e.record.id, id, std::move(outcomes), std::move(data), wall_ms()});
}

// From here on these tasks are final.
void Core::Impl::commit_row(Submission& s, std::shared_ptr<OutcomeRow> row) {
  row->seq = ++s.last_seq;
  bool wished = false;
  for (std::size_t slot = 0; slot < 3; ++slot) {
    const RangeSet& tasks = row->by_state[slot];
    s.by_state[slot].insert(tasks);
    s.final.insert(tasks);
    s.pending.erase(tasks);
    s.delivered.erase(tasks);
    s.running.erase(tasks);
    std::erase_if(s.progress, [&](const auto& item) { return tasks.contains(item.first); });
    wished |= !s.record.cancel_wished.intersection(tasks).empty();
    s.record.cancel_wished.erase(tasks);
    counters_.outcomes_recorded += tasks.count();
  }
  OutcomeRowPtr kept = std::move(row);
  write(PutOutcomes{kept});
  queue(s);
  const bool finished_before = s.record.finished_ms != 0;
  note_if_finished(s);
  if (wished && (finished_before || s.record.finished_ms == 0)) write(PutSubmission{s.record});
  after_commit([this, kept] { row_durable(kept); });
}

void Core::Impl::row_durable(const OutcomeRowPtr& row) {
  Submission* s = find_submission(row->submission);
  if (s == nullptr) return;
  s->committed_seq = row->seq;
  for (std::size_t slot = 0; slot < 3; ++slot)
    s->counts[slot] += static_cast<std::uint32_t>(row->by_state[slot].count());
  row_cache_.put({row->submission, row->seq}, row,
                 row->data.size() + row->outcomes.size() * sizeof(TaskOutcome) + 256);
  for (PeerId watcher : s->watchers)
    if (Peer* peer = find_peer(watcher)) {
      peer->behind.insert(s->id());
      push_to_.insert(watcher);
    }
  progress_changed(*s);
}

}  // namespace farcall::relay
