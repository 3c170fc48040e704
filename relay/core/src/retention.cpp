// What was there at the start, and what goes.
#include "base/log.h"
#include "messages.h"
#include "relay/core/relay.h"

namespace farcall::relay {

namespace {
std::int64_t milliseconds(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}
}  // namespace

void Relay::restore(Contents contents) {
  generation_ = contents.generation;
  for (auto& row : contents.users) users_[row.key] = row.user;
  for (auto& row : contents.invitations) invitations_[row.token_hash] = row;
  for (auto& row : contents.endpoints) endpoints_[row.id].row = row;
  for (auto& row : contents.functions) {
    Function& function = functions_[row.function.id];
    function.record = row.function;
    function.owners.insert(row.owner);
    function.size = row.size;
    function.created_ms = row.created_ms;
  }
  for (auto& row : contents.submissions) {
    Submission& s = submissions_[row.header.submission];
    s.header = row.header;
    s.sealed = row.sealed;
    s.count = row.count;
    s.cancel_wished = row.cancel_wished;
    s.collected = row.collected;
    s.changed_ms = row.changed_ms;
  }
  for (auto& row : contents.chunks) {
    auto found = submissions_.find(row.submission);
    if (found == submissions_.end()) continue;
    std::uint64_t bytes = 0;
    for (std::uint32_t size : row.chunk.sizes) bytes += size;
    Chunk chunk{row.chunk, row.hash, bytes, std::nullopt};
    found->second.received.insert(chunk.range());
    found->second.chunks.emplace(row.chunk.first, std::move(chunk));
  }
  for (auto& row : contents.outcomes) {
    auto found = submissions_.find(row.submission);
    if (found == submissions_.end()) continue;
    for (const TaskOutcome& outcome : row.outcomes) {
      auto& finals = outcome.state == TaskState::kSucceeded   ? found->second.succeeded
                     : outcome.state == TaskState::kCancelled ? found->second.cancelled
                                                              : found->second.failed;
      finals.insert(outcome.index);
    }
  }
  for (auto& row : contents.histories) {
    auto found = submissions_.find(row.submission);
    if (found == submissions_.end()) continue;
    for (const TaskHistory& history : row.histories)
      if (!found->second.is_final(history.index)) found->second.histories[history.index] = history;
  }
  for (const auto& row : contents.tombstones) tombstones_[row.submission] = row.until_ms;
  // Ids are ordered by time, so this is their age.
  std::set<SubmissionId> by_age;
  for (const auto& [id, submission] : submissions_) by_age.insert(id);
  for (const SubmissionId& id : by_age) {
    Submission& s = submissions_.at(id);
    s.order = ++last_order_;
    s.durable = s.received;
    s.undelivered = s.durable.difference(s.finals()).difference(s.cancel_wished);
    make_ready(s);
  }
}

void Relay::expire_unsealed() {
  for (auto& [id, submission] : submissions_) {
    if (submission.sealed || now_ms() - submission.changed_ms < milliseconds(settings_.unsealed_limit)) continue;
    if (!submission.watchers.empty() && submission.final_count() < submission.durable.count()) continue;
    log_info("submission {} of {} was not sealed in time: sealed with {} tasks, those not finished are cancelled",
             id.string(), submission.header.owner, submission.durable.count());
    CancelCounts counts;
    cancel(submission, RangeSet{{0, UINT32_MAX}}, false, counts);
    // A gap in the middle can not be sealed; it is then left to the time to live.
    const auto count = static_cast<std::uint32_t>(submission.received.count());
    if (submission.received == RangeSet{{0, count}}) {
      submission.sealed = true;
      submission.count = count;
      store_row(submission);
    }
  }
}

void Relay::purge() {
  std::vector<SubmissionId> gone;
  for (const auto& [id, s] : submissions_) {
    const bool open = s.final_count() < s.received.count();
    const bool all_collected = s.complete() && s.collected.count() == s.count;
    const Duration ttl = all_collected ? settings_.result_ttl : settings_.uncollected_ttl;
    if (!open && now_ms() - s.changed_ms > milliseconds(ttl)) gone.push_back(id);
  }
  for (const SubmissionId& id : gone) {
    Submission& s = submissions_.at(id);
    log_info("submission {} of {} with {} tasks has expired", id.string(), s.header.owner, s.received.count());
    for (const auto& [first, chunk] : s.chunks)
      if (chunk.cached) cached_bytes_ -= chunk.bytes;
    for (PeerId peer : s.watchers) clients_.at(peer).watches.erase(id);
    const std::int64_t until = now_ms() + milliseconds(settings_.tombstone_ttl);
    tombstones_[id] = until;
    write(PurgedSubmission{id, until});
    submissions_.erase(id);
  }
  std::erase_if(tombstones_, [this](const auto& entry) { return entry.second < now_ms(); });
}

}  // namespace farcall::relay
