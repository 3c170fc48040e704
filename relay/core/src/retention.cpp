// What is done once in a while: unsealed submissions, results whose time is over, and the check of
// everything that must always hold.
#include "base/log.h"
#include "send.h"

namespace farcall::relay {

namespace {
constexpr Duration kJump = std::chrono::minutes(5);
std::int64_t ms(Duration d) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
}
}  // namespace

void Core::Impl::housekeeping() {
  const Duration mono = now_.mono - last_housekeeping_.mono;
  const Duration wall = now_.wall - last_housekeeping_.wall;
  last_housekeeping_ = now_;
  if (wall - mono > kJump || mono - wall > kJump) {
    log_warn("the clock jumped by {} s: nothing is removed for an hour", ms(wall - mono) / 1000);
    purge_not_before_ = now_.mono + std::chrono::hours(1);
  }
  close_unsealed();
  if (now_.mono >= purge_not_before_) purge();
  collect_blobs();
}

void Core::Impl::close_unsealed() {
  for (auto& [id, s] : submissions_) {
    if (s->is_closed() || now_.mono - s->last_part < options_.unsealed_limit) continue;
    log_info("submission {} was not completed in time: cancelled", id.string());
    cancel_whole(*s, false, "cancelled because its submission was not sealed in time");
  }
}

std::int64_t Core::Impl::over_at_ms(const Submission& s) const {
  const bool all = s.record.collected.count() == s.final.count();
  return all ? std::max(s.record.collected_ms, s.record.finished_ms) + ms(options_.result_ttl)
             : s.record.finished_ms + ms(options_.uncollected_ttl);
}

void Core::Impl::purge() {
  std::vector<SubmissionId> over;
  for (const auto& [id, s] : submissions_)
    if (s->record.finished_ms != 0 && wall_ms() >= over_at_ms(*s) &&
        s->committed_seq == s->last_seq)
      over.push_back(id);
  std::map<EndpointId, std::vector<SubmissionId>> by_endpoint;
  for (SubmissionId id : over) {
    Submission& s = *find_submission(id);
    by_endpoint[s.record.header.endpoint].push_back(id);
    purge_submission(s);
  }
  // Not before it is durable: after a crash the submissions would be here without their results.
  if (!over.empty())
    after_commit([this, by_endpoint] {
      for (const auto& [id, submissions] : by_endpoint)
        if (Endpoint* e = find_endpoint(id)) forget_stored(*e, submissions);
    });
  for (auto it = tombstones_.begin(); it != tombstones_.end();) {
    if (it->second.until_ms > wall_ms()) {
      ++it;
      continue;
    }
    write(DropTombstone{it->first});
    it = tombstones_.erase(it);
  }
  for (auto it = invitations_.begin(); it != invitations_.end();) {
    if (it->second.expires_ms > wall_ms()) {
      ++it;
      continue;
    }
    write(DropInvitation{it->first});
    it = invitations_.erase(it);
  }
}

void Core::Impl::purge_submission(Submission& s) {
  const SubmissionId id = s.id();
  const Tombstone tombstone{id, s.user(), wall_ms() + ms(options_.tombstone_ttl)};
  log_info("submission {} of {}: its time is over, results removed", id.string(), s.user());
  write(DropSubmission{tombstone});
  tombstones_[id] = tombstone;
  for (PeerId watcher : s.watchers)
    if (Peer* peer = find_peer(watcher)) {
      peer->watches.erase(id);
      peer->behind.erase(id);
      peer->progress_dirty.insert(id);
      progress_to_.insert(watcher);
    }
  for (const auto& [first, chunk] : s.chunks) chunk_cache_.drop({id, first});
  for (std::uint64_t seq = 1; seq <= s.last_seq; ++seq) row_cache_.drop({id, seq});
  by_user_[s.user()].erase(id);
  submissions_.erase(id);
}

std::string Core::Impl::broken_submission(const Submission& s) const {
  RangeSet all;
  std::uint64_t in_chunks = 0;
  for (const auto& [first, chunk] : s.chunks) {
    all.insert({first, first + static_cast<std::uint32_t>(chunk.sizes.size())});
    in_chunks += chunk.sizes.size();
  }
  if (all != s.received || in_chunks != s.received.count())
    return "chunks are not what is received";
  if (!s.durable.difference(s.received).empty()) return "durable but not received";
  RangeSet final;
  std::uint64_t ended = 0;
  for (const RangeSet& set : s.by_state) {
    final.insert(set);
    ended += set.count();
  }
  if (final != s.final || ended != s.final.count()) return "a task ended in two ways";
  if (!s.final.difference(s.received).empty()) return "final but not received";
  const std::uint64_t parts =
      s.pending.count() + s.delivered.count() + s.final.intersection(s.durable).count();
  RangeSet together = s.pending;
  together.insert(s.delivered);
  together.insert(s.final.intersection(s.durable));
  if (together != s.durable || parts != s.durable.count())
    return "a durable task is not in exactly one of pending, delivered, final";
  if (!s.record.cancel_wished.difference(s.delivered).empty())
    return "a cancel is wished for a task that is not delivered";
  if (!s.running.intersection(s.final).empty()) return "a final task is running";
  if (!s.record.collected.difference(s.final).empty()) return "collected but not final";
  if (s.committed_seq > s.last_seq) return "more rows committed than written";
  for (std::size_t slot = 0; slot < 3; ++slot)
    if (s.counts[slot] > s.by_state[slot].count() ||
        (s.committed_seq == s.last_seq && s.counts[slot] != s.by_state[slot].count()))
      return "counts are not those of the committed rows";
  if (s.record.sealed && !s.received.empty() && s.received.back_end() > s.record.count)
    return "a task beyond the seal";
  if ((s.record.finished_ms != 0) != s.is_finished()) return "finished is not noted";
  return "";
}

std::string Core::Impl::broken_invariant() const {
  for (const auto& [id, s] : submissions_) {
    const std::string text = broken_submission(*s);
    if (!text.empty()) return "submission " + id.string() + ": " + text;
    auto e = endpoints_.find(s->record.header.endpoint);
    if (e == endpoints_.end()) continue;
    const Endpoint::Place place{s->record.header.priority, s->record.received_ms, id};
    auto user = e->second.queue.find(s->user());
    const bool queued = user != e->second.queue.end() && user->second.contains(place);
    if (queued == s->pending.empty())
      return "submission " + id.string() + ": its place in the queue is wrong";
    if (e->second.unfinished.contains(id) == (s->record.finished_ms != 0))
      return "submission " + id.string() + ": the endpoint's list of unfinished ones is wrong";
  }
  for (const auto& [id, peer] : peers_)
    for (const auto& [submission, w] : peer.watches) {
      auto s = submissions_.find(submission);
      if (s == submissions_.end() || !s->second->watchers.contains(id))
        return "a watch is not known to its submission";
      if (w.outcomes && w.cursor > s->second->committed_seq)
        return "a watch is ahead of what is committed";
    }
  for (const auto& [id, e] : endpoints_) {
    if (e.peer != 0 && !peers_.contains(e.peer)) return "an endpoint is served by nobody";
    // One argument set may exceed the credit in bytes, none that in tasks.
    if (e.used.tasks > e.granted.tasks) return "more was delivered than was granted";
  }
  return "";
}

}  // namespace farcall::relay
