// Telling clients: outcomes under their credit, progress at most ten times a second.
#include "messages.h"
#include "relay/core/relay.h"

namespace farcall::relay {

namespace {
constexpr Duration kProgressInterval = std::chrono::milliseconds(100);
constexpr std::uint64_t kReadBytesMax = 4 << 20;
}  // namespace

wire::ProgressItem Relay::progress_of(const Submission& s) const {
  wire::ProgressItem item;
  item.submission = s.header.submission;
  item.received = static_cast<std::uint32_t>(s.durable.count());
  item.sealed = s.sealed;
  item.succeeded = static_cast<std::uint32_t>(s.succeeded.count());
  item.failed = static_cast<std::uint32_t>(s.failed.count());
  item.cancelled = static_cast<std::uint32_t>(s.cancelled.count());
  item.running = s.running;
  return item;
}

void Relay::watch(PeerId peer, Client& client, const Message& message) {
  auto request = wire::decode<wire::Watch>(message);
  if (!request) return bad_message(peer, request.error());
  std::vector<SubmissionId> started;
  for (auto& item : request->items) {
    Submission* submission = find(item.submission);
    if (submission != nullptr && submission->header.owner != client.user) submission = nullptr;
    if (item.stop) {
      client.watches.erase(item.submission);
      if (submission != nullptr) submission->watchers.erase(peer);
      continue;
    }
    if (submission == nullptr) {
      wire::ProgressItem unknown;
      unknown.submission = item.submission;
      unknown.error = static_cast<std::int32_t>(ErrorCode::kNotFound);
      send_body(peer, wire::Progress{{unknown}});
      continue;
    }
    client.watches[item.submission] = Watch{item.submission, std::move(item.have), item.outcomes};
    submission->watchers.insert(peer);
    started.push_back(item.submission);
  }
  // What is on its way to the store is told when it is there.
  after_commit([this, peer, started] {
    auto found = clients_.find(peer);
    if (found == clients_.end()) return;
    wire::Progress progress;
    for (const SubmissionId& id : started)
      if (const Submission* submission = find(id)) progress.items.push_back(progress_of(*submission));
    if (!progress.items.empty()) send_body(peer, progress);
    pump(peer, found->second);
  });
}

void Relay::touch(const Submission& submission) {
  if (!submission.watchers.empty()) changed_.insert(submission.header.submission);
}

void Relay::flush_progress() {
  if (changed_.empty() || now_.mono < progress_due_) return;
  std::map<PeerId, wire::Progress> messages;
  for (const SubmissionId& id : changed_) {
    const Submission* submission = find(id);
    if (submission == nullptr) continue;
    for (PeerId peer : submission->watchers) messages[peer].items.push_back(progress_of(*submission));
  }
  for (const auto& [peer, progress] : messages) send_body(peer, progress);
  changed_.clear();
  progress_due_ = now_.mono + kProgressInterval;
}

// False: credit has run out, or the row was sent in part.
bool Relay::send_outcomes(PeerId peer, Client& client, Watch& watch, const OutcomesRow& row) {
  RangeSet wanted;
  std::uint64_t bytes = 0;
  bool all = true;
  for (const TaskOutcome& outcome : row.outcomes) {
    if (watch.have.contains(outcome.index)) continue;
    // One outcome may overshoot the bytes: else one that is larger than the credit never comes.
    if (client.used_tasks + wanted.count() >= client.credit_tasks || client.used_bytes + bytes >= client.credit_bytes) {
      all = false;
      break;
    }
    wanted.insert(outcome.index);
    bytes += outcome.data_size;
  }
  if (wanted.empty()) return all;
  OutcomesRow part = select_outcomes(row, wanted);
  client.used_tasks += part.outcomes.size();
  client.used_bytes += bytes;
  watch.have.insert(wanted);
  send_body(peer, wire::TaskResults{{{row.submission, std::move(part.outcomes)}}}, {part.data});
  return all;
}

void Relay::push_outcomes(const Submission& submission, const OutcomesRow& row) {
  for (PeerId peer : submission.watchers) {
    Client& client = clients_.at(peer);
    auto watch = client.watches.find(row.submission);
    // While older ones are being read, these wait for their turn and are read as well.
    if (watch == client.watches.end() || !watch->second.outcomes || client.reading) continue;
    send_outcomes(peer, client, watch->second, row);
  }
}

void Relay::pump(PeerId peer, Client& client) {
  if (client.reading || !client.has_credit()) return;
  for (auto& [id, watch] : client.watches) {
    if (!watch.outcomes) continue;
    Submission* submission = find(id);
    if (submission == nullptr) continue;
    RangeSet missing = submission->finals().difference(watch.have);
    if (missing.empty()) continue;
    client.reading = true;
    missing = missing.take_front(client.credit_tasks - client.used_tasks);
    after_commit([this, peer, id = id, missing] {
      request_read(ReadOutcomes{id, missing, kReadBytesMax}, PendingOutcomes{peer, id});
    });
    return;
  }
}

void Relay::collected(Client& client, const Message& message) {
  auto request = wire::decode<wire::Collected>(message);
  if (!request) return;
  for (const auto& item : request->items) {
    Submission* submission = find(item.submission);
    if (submission == nullptr || submission->header.owner != client.user) continue;
    submission->collected.insert(item.ranges.intersection(submission->finals()));
    submission->changed_ms = now_ms();
    // The time to live starts when the last one is collected; steps on the way need no commit.
    if (submission->complete() && submission->collected.count() == submission->count) store_row(*submission);
  }
}

}  // namespace farcall::relay
