// Outcomes and progress go to the clients that watch, under their credit.
#include "base/log.h"
#include "send.h"

namespace farcall::relay {

namespace {
constexpr Duration kProgressInterval = std::chrono::milliseconds(100);
constexpr std::uint64_t kRowLoadBytes = 4 << 20;
constexpr Duration kWriteSoon = std::chrono::seconds(1);
}  // namespace

void Core::Impl::watch(Peer& peer, const wire::Watch& m) {
  for (const wire::WatchItem& item : m.items) {
    auto old = peer.watches.find(item.submission);
    if (old != peer.watches.end()) {
      if (old->second.load != 0) row_loads_.erase(old->second.load);
      peer.watches.erase(old);
    }
    peer.behind.erase(item.submission);
    Submission* s = find_submission(peer.user, item.submission);
    if (s != nullptr) s->watchers.erase(peer.id);
    if (item.stop) {
      peer.progress_dirty.erase(item.submission);
      continue;
    }
    // A submission that does not exist is answered as well, in flush_progress().
    peer.progress_dirty.insert(item.submission);
    peer.last_progress.reset();
    progress_to_.insert(peer.id);
    if (s == nullptr) continue;
    WatchState state;
    state.have = item.have;
    state.outcomes = item.outcomes;
    peer.watches[item.submission] = std::move(state);
    s->watchers.insert(peer.id);
    if (!s->progress.empty()) {  // what was said before somebody listened
      wire::SubmissionNotes said{s->id(), {}};
      for (const auto& [index, note] : s->progress) {
        said.notes.push_back(note);
        said.notes.back().out_size = said.notes.back().err_size = 0;
      }
      send(peer.id, wire::Notes{{std::move(said)}}, {Bytes()});
    }
    if (item.outcomes) peer.behind.insert(item.submission);
    push_to_.insert(peer.id);
  }
}

void Core::Impl::push(Peer& peer) {
  bool moved = true;
  while (moved && !peer.behind.empty()) {
    moved = false;
    for (SubmissionId id : std::set<SubmissionId>(peer.behind)) {
      Submission* s = find_submission(id);
      auto w = peer.watches.find(id);
      if (s == nullptr || w == peer.watches.end() || !w->second.outcomes) {
        peer.behind.erase(id);
        continue;
      }
      moved |= push_one(peer, *s, w->second);
      if (w->second.cursor >= s->committed_seq && w->second.load == 0) peer.behind.erase(id);
    }
  }
}

bool Core::Impl::push_one(Peer& peer, Submission& s, WatchState& w) {
  if (w.load != 0) return false;
  while (!w.fetched.empty() && w.fetched.front()->seq <= w.cursor) w.fetched.pop_front();
  if (w.fetched.empty()) w.cursor = std::max(w.cursor, w.fetched_to);
  if (w.cursor >= s.committed_seq) return false;
  if (peer.used.tasks >= peer.granted.tasks || peer.used.bytes >= peer.granted.bytes) return false;
  OutcomeRowPtr row;
  if (!w.fetched.empty())
    row = w.fetched.front();
  else if (const OutcomeRowPtr* cached = row_cache_.get({s.id(), w.cursor + 1}))
    row = *cached;
  if (row != nullptr) {
    if (!send_row(peer, w, *row)) return false;
    w.cursor = row->seq;
    return true;
  }
  const RangeSet wanted = s.final.difference(w.have);
  if (wanted.empty()) {
    w.cursor = s.committed_seq;
    return false;
  }
  load_rows(
      s.id(), wanted, w.cursor, kRowLoadBytes,
      [this, id = peer.id, submission = s.id()](LoadedRows rows) {
        Peer* p = find_peer(id);
        if (p == nullptr) return;
        auto found = p->watches.find(submission);
        if (found == p->watches.end()) return;
        found->second.load = 0;
        found->second.fetched.assign(rows.rows.begin(), rows.rows.end());
        found->second.fetched_to = rows.scanned_to;
        push_to_.insert(id);
      },
      &w.load);
  return false;
}

// False: the credit ended before the row did.
bool Core::Impl::send_row(Peer& peer, WatchState& w, const OutcomeRow& row) {
  wire::SubmissionOutcomes out{row.submission, {}};
  std::string data;
  bool whole = true;
  RangeSet sent;
  auto add = [&](const TaskOutcome& outcome, std::string_view bytes) {
    if (!whole || w.have.contains(outcome.index)) return;
    // One outcome may exceed the credit in bytes: else a larger one would never go.
    if (peer.used.tasks >= peer.granted.tasks || peer.used.bytes >= peer.granted.bytes) {
      whole = false;
      return;
    }
    ++peer.used.tasks;
    peer.used.bytes += bytes.size();
    out.outcomes.push_back(outcome);
    data += bytes;
    sent.insert(outcome.index);
  };
  if (row.outcomes.empty()) {
    TaskOutcome outcome;
    outcome.state = TaskState::kCancelled;
    outcome.failure = FailureClass::kCancelled;
    outcome.data_size = row.data.size();
    row.by_state[2].for_each([&](std::uint32_t index) {
      outcome.index = index;
      add(outcome, row.data.view());
    });
  } else {
    std::size_t offset = 0;
    for (const TaskOutcome& outcome : row.outcomes) {
      add(outcome, row.data.view().substr(offset, outcome.data_size));
      offset += outcome.data_size;
    }
  }
  w.have.insert(sent);
  counters_.outcomes_sent += out.outcomes.size();
  if (!out.outcomes.empty()) {
    const bool all = out.outcomes.size() == row.outcomes.size();
    send(peer.id, wire::TaskResults{{std::move(out)}}, {all ? row.data : Bytes(std::move(data))});
  }
  return whole;
}

void Core::Impl::collected(Peer& peer, const wire::Collected& m) {
  for (const wire::SubmissionRanges& item : m.items) {
    Submission* s = find_submission(peer.user, item.submission);
    if (s == nullptr) continue;
    const RangeSet fresh = item.ranges.intersection(s->final).difference(s->record.collected);
    if (fresh.empty()) continue;
    s->record.collected.insert(fresh);
    s->record.collected_ms = wall_ms();
    write_soon(s->id());
  }
}

// With the next commit that somebody waits for, or one of its own before long: a crash before that
// only makes results stay longer.
void Core::Impl::write_soon(SubmissionId id) {
  if (soon_.empty()) soon_due_ = now_.mono + kWriteSoon;
  soon_.insert(id);
}
void Core::Impl::write_what_waits() {
  for (SubmissionId id : std::exchange(soon_, {}))
    if (const Submission* s = find_submission(id)) write(PutSubmission{s->record});
}

void Core::Impl::progress_changed(Submission& s) {
  for (PeerId watcher : s.watchers)
    if (Peer* peer = find_peer(watcher)) {
      peer->progress_dirty.insert(s.id());
      progress_to_.insert(watcher);
    }
}

void Core::Impl::flush_progress(Peer& peer) {
  if (peer.progress_dirty.empty()) return;
  if (peer.last_progress && now_.mono < *peer.last_progress + kProgressInterval) {
    const MonoTime due = *peer.last_progress + kProgressInterval;
    progress_due_ = progress_due_ ? std::min(*progress_due_, due) : due;
    return;
  }
  peer.last_progress = now_.mono;
  wire::Progress progress;
  for (SubmissionId id : std::exchange(peer.progress_dirty, {})) {
    wire::ProgressItem item;
    item.submission = id;
    if (const Submission* s = find_submission(peer.user, id)) {
      item.received = static_cast<std::uint32_t>(s->durable.count());
      // Not before all that `received` leaves out is durable too: it would seem not to exist.
      item.sealed = s->is_closed() && s->durable.count() == s->received.count();
      item.succeeded = s->counts[0];
      item.failed = s->counts[1];
      item.cancelled = s->counts[2];
      item.running = s->running;
    } else {
      item.error = static_cast<std::int32_t>(ErrorCode::kNotFound);
    }
    progress.items.push_back(std::move(item));
  }
  send(peer.id, progress);
}

void Core::Impl::flush_acks(Peer& peer) {
  if (!peer.submit_acks.empty())
    send(peer.id, wire::SubmitAck{std::exchange(peer.submit_acks, {})});
  if (!peer.result_acks.empty())
    send(peer.id, wire::ResultsAck{std::exchange(peer.result_acks, {})});
}

void Core::Impl::load_rows(SubmissionId id, RangeSet wanted, std::uint64_t after,
                           std::uint64_t bytes_max, std::function<void(LoadedRows)> then,
                           std::uint64_t* token) {
  const std::uint64_t number = ++last_token_;
  if (token != nullptr) *token = number;
  row_loads_[number] = std::move(then);
  ++counters_.row_loads;
  effects_.loads.emplace_back(LoadRows{number, id, std::move(wanted), after, bytes_max});
}

}  // namespace farcall::relay
