// Handing tasks to interchanges, under their credit, fairly among users.
#include <algorithm>

#include "base/log.h"
#include "messages.h"
#include "relay/core/relay.h"

namespace farcall::relay {

namespace {
constexpr std::uint64_t kWorkBytesMax = 4 << 20;  // of one message
}

void Relay::start_session(Endpoint& endpoint, PeerId peer) {
  endpoint.peer = peer;
  endpoint.credit_tasks = endpoint.credit_bytes = endpoint.used_tasks = endpoint.used_bytes = 0;
  endpoint.sent_functions.clear();
  endpoint.sent_headers.clear();
  endpoint.work = {};
  endpoint.work_bodies.clear();
  endpoint.work_data.clear();
  endpoint.work_bytes = 0;
  for (auto& [id, submission] : submissions_) {
    if (submission.header.endpoint != endpoint.row.id) continue;
    submission.delivered.clear();
    submission.running.clear();
    submission.undelivered = submission.durable.difference(submission.finals()).difference(submission.cancel_wished);
    make_ready(submission);
  }
}

void Relay::make_ready(Submission& submission) {
  auto endpoint = endpoints_.find(submission.header.endpoint);
  if (endpoint == endpoints_.end()) return;
  auto& mine = endpoint->second.ready[submission.header.owner];
  const std::tuple key(submission.header.priority, submission.order, submission.header.submission);
  if (submission.undelivered.empty()) {
    mine.erase(key);
    if (mine.empty()) endpoint->second.ready.erase(submission.header.owner);
  } else {
    mine.insert(key);
  }
}

// The next user in turn, its most urgent submission.
Submission* Relay::next_submission(Endpoint& endpoint) {
  if (endpoint.ready.empty()) return nullptr;
  auto user = endpoint.ready.upper_bound(endpoint.last_user);
  if (user == endpoint.ready.end()) user = endpoint.ready.begin();
  // A user whose function is still being read lets the others pass.
  for (std::size_t i = 0; i < endpoint.ready.size(); ++i) {
    for (const auto& key : user->second) {
      Submission& submission = submissions_.at(std::get<2>(key));
      auto function = functions_.find(submission.header.function);
      if (function != functions_.end() && function->second.reading) continue;
      endpoint.last_user = user->first;
      return &submission;
    }
    if (++user == endpoint.ready.end()) user = endpoint.ready.begin();
  }
  return nullptr;
}

void Relay::deliver(Endpoint& endpoint) {
  if (!endpoint.peer) return;
  while (endpoint.used_tasks < endpoint.credit_tasks && endpoint.used_bytes < endpoint.credit_bytes) {
    Submission* submission = next_submission(endpoint);
    if (submission == nullptr || !deliver_chunk(endpoint, *submission)) break;
  }
}

bool Relay::deliver_chunk(Endpoint& endpoint, Submission& submission) {
  const FunctionId id = submission.header.function;
  Function& function = functions_.at(id);
  if (endpoint.sent_functions.count(id) == 0 && !function.body) {
    function.reading = true;
    request_read(ReadBody{id}, PendingBody{id});
    return true;
  }
  auto chunk = std::prev(submission.chunks.upper_bound(submission.undelivered.front()));
  RangeSet run = submission.undelivered.intersection(chunk->second.range());
  run = run.take_front(endpoint.credit_tasks - endpoint.used_tasks);
  submission.undelivered.erase(run);
  submission.delivered.insert(run);
  make_ready(submission);
  endpoint.used_tasks += run.count();
  endpoint.used_bytes += chunk->second.bytes;
  if (chunk->second.cached) {
    add_chunk(endpoint, submission, chunk->second, run, *chunk->second.cached);
    if (submission.undelivered.intersection(chunk->second.range()).empty()) {
      cached_bytes_ -= chunk->second.bytes;
      chunk->second.cached.reset();
    }
  } else {
    request_read(ReadChunk{submission.header.submission, chunk->first},
                 PendingChunk{endpoint.row.id, *endpoint.peer, submission.header.submission, chunk->first, run});
  }
  return true;
}

void Relay::add_chunk(Endpoint& endpoint, Submission& submission, const Chunk& chunk, RangeSet run, Bytes data) {
  // What was finished or wished away while it was read.
  run = run.intersection(submission.delivered);
  if (run.empty()) return;
  const FunctionId function = submission.header.function;
  if (endpoint.sent_functions.insert(function).second) {
    endpoint.work.functions.push_back(functions_.at(function).record);
    endpoint.work_bodies.push_back(*functions_.at(function).body);
    endpoint.work_bytes += functions_.at(function).body->size();
  }
  if (endpoint.sent_headers.insert(submission.header.submission).second)
    endpoint.work.submissions.push_back(submission.header);
  wire::ChunkDelivery delivery{submission.header.submission, chunk.meta, run, {}};
  for (auto history = submission.histories.lower_bound(chunk.range().first);
       history != submission.histories.end() && history->first < chunk.range().last; ++history)
    if (run.contains(history->first)) delivery.histories.push_back(history->second);
  endpoint.work.chunks.push_back(std::move(delivery));
  endpoint.work_bytes += data.size();
  endpoint.work_data.push_back(std::move(data));
  if (endpoint.work_bytes > kWorkBytesMax) flush_work(endpoint);
}

void Relay::flush_work(Endpoint& endpoint) {
  if (endpoint.work.chunks.empty()) return;
  std::vector<Bytes> payload = std::move(endpoint.work_bodies);
  payload.insert(payload.end(), endpoint.work_data.begin(), endpoint.work_data.end());
  if (endpoint.peer) send_body(*endpoint.peer, endpoint.work, std::move(payload));
  endpoint.work = {};
  endpoint.work_bodies.clear();
  endpoint.work_data.clear();
  endpoint.work_bytes = 0;
}

void Relay::send_cancels(Endpoint& endpoint) {
  wire::CancelTasks cancels;
  for (const auto& [id, submission] : submissions_) {
    if (submission.header.endpoint != endpoint.row.id || submission.cancel_wished.empty()) continue;
    RangeSet wished = submission.cancel_wished.intersection(submission.delivered);
    if (!wished.empty()) cancels.items.push_back({id, wished});
  }
  if (!cancels.items.empty()) send_body(*endpoint.peer, cancels);
}

}  // namespace farcall::relay
