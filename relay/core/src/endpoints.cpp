// Interchanges: who is in charge of an endpoint, what it holds, what it reports.
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "model/history.h"
#include "send.h"

namespace farcall::relay {

void Core::Impl::endpoint_hello(PeerId id, const std::string& key,
                                const wire::EndpointHello& hello) {
  if (!accept_version(id, hello.hello)) return;
  Endpoint* e = find_endpoint(hello.endpoint);
  if (e == nullptr)
    return refuse(id, ErrorCode::kNotFound,
                  fmt::format("endpoint {} is not known at this relay: configure it again",
                              hello.endpoint.string()));
  if (e->record.key != key)
    return refuse(id, ErrorCode::kDenied,
                  fmt::format("the key {} is not the one of endpoint {}", key, e->record.name));
  if (!take_charge(id, *e, hello)) return;
  Peer& peer = peers_[id];
  peer.id = id;
  peer.key = key;
  peer.user = e->record.user;
  peer.endpoint = hello.endpoint;
  after_commit([this, id, endpoint = hello.endpoint, holds = hello.holds] {
    welcome_endpoint(id, endpoint, holds);
  });
}

bool Core::Impl::take_charge(PeerId id, Endpoint& e, const wire::EndpointHello& hello) {
  EndpointRecord& record = e.record;
  const bool same = record.epoch > 0 && record.instance == hello.instance;
  if (e.peer != 0 && !same && !hello.take_over) {
    refuse(id, ErrorCode::kBusy,
           fmt::format("endpoint {} is served by another interchange, on {} with pid {}: stop that "
                       "one, or take over from it",
                       record.name, e.host, e.pid));
    return false;
  }
  if (e.peer != 0) {
    const PeerId old = e.peer;
    const std::string old_host = e.host;
    gone(old);
    if (!same)
      refuse(old, ErrorCode::kBusy,
             fmt::format("endpoint {} was taken over by the interchange on {} with pid {}",
                         record.name, hello.hello.host, hello.hello.pid));
  }
  if (!same) {
    log_info("endpoint {}: epoch {}→{}, instance {} on {}", record.name, record.epoch,
             record.epoch + 1, hello.instance.string(), hello.hello.host);
    ++record.epoch;
    record.instance = hello.instance;
  }
  record.last_seen_ms = wall_ms();
  record.host = hello.hello.host;
  if (!same) write(PutEndpoint{record});
  e.peer = id;
  e.ready = false;
  e.host = hello.hello.host;
  e.pid = hello.hello.pid;
  return true;
}

void Core::Impl::welcome_endpoint(PeerId id, EndpointId endpoint,
                                  const std::vector<wire::SubmissionRanges>& holds) {
  Endpoint* e = find_endpoint(endpoint);
  Peer* peer = find_peer(id);
  if (e == nullptr || peer == nullptr || e->peer != id) return;
  wire::EndpointWelcome welcome;
  welcome.epoch = e->record.epoch;
  welcome.generation = generation_;
  welcome.endpoint_name = e->record.name;
  welcome.forget = reconcile(*e, holds);
  peer->ready = e->ready = true;
  e->granted = e->used = {};
  e->sent_functions.clear();
  e->sent_headers.clear();
  send(id, welcome);
  send_wished_cancels(*e);
  // Whatever was told while it was away, or was lost on the way.
  std::vector<SubmissionId> over;
  for (const auto& [submission, tombstone] : tombstones_)
    if (tombstone.user == e->record.user) over.push_back(submission);
  forget_stored(*e, over);
}

// What it holds is delivered, all else is to be delivered again; wishes to cancel what it does not
// hold come true at once. Returns what it may forget.
std::vector<wire::SubmissionRanges> Core::Impl::reconcile(
    Endpoint& e, const std::vector<wire::SubmissionRanges>& holds) {
  std::map<SubmissionId, RangeSet> held;
  for (const wire::SubmissionRanges& item : holds) held[item.submission].insert(item.ranges);
  std::vector<wire::SubmissionRanges> forget;
  for (auto& [id, ranges] : held) {
    Submission* s = find_submission(id);
    RangeSet open;
    if (s != nullptr && s->record.header.endpoint == e.record.id)
      open = s->durable.difference(s->final).intersection(ranges);
    RangeSet done = ranges.difference(open);
    if (!done.empty()) forget.push_back({id, std::move(done)});
    ranges = std::move(open);
  }
  for (SubmissionId id : std::set<SubmissionId>(e.unfinished)) {
    Submission* s = find_submission(id);
    if (s == nullptr) continue;
    s->delivered = held[id];
    s->running = s->running.intersection(s->delivered);
    s->pending = s->durable.difference(s->final).difference(s->delivered);
    const RangeSet gone = s->record.cancel_wished.intersection(s->pending);
    if (!gone.empty()) record_cancelled(*s, gone, "cancelled by its owner before it ran");
    queue(*s);
  }
  return forget;
}

void Core::Impl::send_wished_cancels(Endpoint& e) {
  wire::CancelTasks cancels;
  for (SubmissionId id : e.unfinished) {
    const Submission* s = find_submission(id);
    if (s != nullptr && !s->record.cancel_wished.empty())
      cancels.items.push_back({id, s->record.cancel_wished});
  }
  if (!cancels.items.empty() && e.ready) send(e.peer, cancels);
}

void Core::Impl::running(Peer& peer, const wire::Running& m) {
  for (const wire::SubmissionRanges& item : m.running) {
    Submission* s = find_submission(item.submission);
    if (s == nullptr || s->record.header.endpoint != peer.endpoint) continue;
    s->running = item.ranges.intersection(s->durable).difference(s->final);
    progress_changed(*s);
  }
}

void Core::Impl::attempts(Peer& peer, const wire::Attempts& m) {
  for (const wire::SpentAttempts& item : m.items) {
    Submission* s = find_submission(item.submission);
    if (s == nullptr || s->record.header.endpoint != peer.endpoint) continue;
    PutHistories put{item.submission, {}};
    for (const TaskHistory& history : item.histories) {
      if (!s->received.contains(history.index)) continue;
      auto [place, added] = s->histories.try_emplace(history.index, history);
      if (!added && place->second.attempt >= history.attempt) continue;
      if (!added) place->second = merged(place->second, history);
      put.histories.push_back(place->second);
    }
    if (!put.histories.empty()) write(std::move(put));
  }
}

void Core::Impl::take_status(Endpoint& e, const Bytes& status) {
  e.status = status;
  e.record.last_seen_ms = wall_ms();
  const auto fields = nlohmann::json::parse(status.view(), nullptr, false);
  e.offer = fields.is_object() && fields.contains("offer") ? Offer::parse(fields["offer"].dump())
                                                           : std::nullopt;
}

void Core::Impl::endpoint_gone(Endpoint& e) {
  log_info("endpoint {}: {} is gone", e.record.name, e.host);
  e.peer = 0;
  e.ready = false;
  e.status = {};
  e.offer.reset();  // it may come back with another configuration
  e.granted = e.used = {};
  e.record.last_seen_ms = wall_ms();
  write(PutEndpoint{e.record});
  for (SubmissionId id : e.unfinished)
    if (Submission* s = find_submission(id); s != nullptr && !s->running.empty()) {
      s->running.clear();
      progress_changed(*s);
    }
}

void Core::Impl::call_endpoint(Endpoint& e, const std::string& method,
                               const std::string& parameters,
                               std::function<void(Result<Bytes>)> answer) {
  if (!e.ready) {
    answer(fail(ErrorCode::kUnreachable, "endpoint {} is not connected", e.record.name));
    return;
  }
  const std::uint64_t request = ++last_call_;
  calls_[request] = {e.peer, now_.mono + options_.call_timeout, std::move(answer)};
  send(e.peer, wire::Call{request, method}, {Bytes(parameters)});
}

void Core::Impl::take_reply(Peer& peer, const wire::Reply& m, const wire::Message& raw) {
  auto found = calls_.find(m.request);
  if (found == calls_.end() || found->second.peer != peer.id) return;
  auto answer = std::move(found->second.answer);
  calls_.erase(found);
  if (m.error != 0)
    answer(fail(Error{error_from_number(m.error), m.text}));
  else
    answer(raw.payload.empty() ? Bytes() : raw.payload[0]);
}

void Core::Impl::fail_calls(PeerId peer, MonoTime due_before) {
  std::vector<PendingCall> over;
  for (auto it = calls_.begin(); it != calls_.end();) {
    if ((peer == 0 || it->second.peer == peer) && it->second.due <= due_before) {
      over.push_back(std::move(it->second));
      it = calls_.erase(it);
    } else {
      ++it;
    }
  }
  for (PendingCall& call : over)
    call.answer(fail(ErrorCode::kTimeout, "the interchange did not answer in time"));
}

}  // namespace farcall::relay
