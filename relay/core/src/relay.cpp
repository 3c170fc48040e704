#include "relay/core/relay.h"

#include <algorithm>

#include "base/keys.h"
#include "base/log.h"
#include "messages.h"

namespace farcall::relay {

using wire::MessageType;

namespace {

// Whether we understand each other at all.
std::optional<Error> check_hello(const wire::Hello& hello) {
  if (hello.magic != "farcall") return Error{ErrorCode::kVersion, "not a farcall peer"};
  if (hello.version < wire::kOldestProtocolVersion || hello.oldest_version > wire::kProtocolVersion)
    return Error{ErrorCode::kVersion,
                 fmt::format("{} speaks protocol {} to {}, this relay {} to {}: bring both to the same release",
                             hello.software, hello.oldest_version, hello.version, wire::kOldestProtocolVersion,
                             wire::kProtocolVersion)};
  return std::nullopt;
}

}  // namespace

Relay::Relay(Settings settings, Contents contents, Rng rng) : settings_(std::move(settings)), rng_(rng) {
  restore(std::move(contents));
}
Relay::~Relay() = default;

void Relay::send(PeerId peer, Message message) { effects_.send.emplace_back(peer, std::move(message)); }

void Relay::write(Write write) { effects_.writes.push_back(std::move(write)); }

void Relay::after_commit(std::function<void()> action) {
  const std::uint64_t needed = effects_.writes.empty() ? next_commit_ - 1 : next_commit_;
  if (needed <= committed_) {
    action();
  } else {
    waiting_.emplace_back(needed, std::move(action));
  }
}

Effects Relay::take_effects() {
  for (auto& [id, endpoint] : endpoints_) flush_work(endpoint);
  if (!effects_.writes.empty()) effects_.commit = next_commit_++;
  return std::exchange(effects_, {});
}

void Relay::committed(const Now& now, std::uint64_t commit) {
  now_ = now;
  committed_ = std::max(committed_, commit);
  while (!waiting_.empty() && waiting_.front().first <= committed_) {
    auto action = std::move(waiting_.front().second);
    waiting_.pop_front();
    action();
  }
  flush_progress();
}

void Relay::bad_message(PeerId peer, const Error& error) {
  log_warn("peer {}: {}", peer, error.message);
  effects_.reset.emplace_back(peer, error.message);
}

void Relay::hello(const Now& now, PeerId peer, const std::string& key, const Message& message) {
  now_ = now;
  switch (message.type) {
    case MessageType::kClientHello:
      return client_hello(peer, key, message);
    case MessageType::kEndpointHello:
      return endpoint_hello(peer, key, message);
    default:
      effects_.refuse.emplace_back(
          peer, Error{ErrorCode::kVersion, fmt::format("message {} is no hello that a relay answers: is this the "
                                                       "address of an interchange?",
                                                       static_cast<int>(message.type))});
  }
}

void Relay::client_hello(PeerId peer, const std::string& key, const Message& message) {
  auto hello = wire::decode<wire::ClientHello>(message);
  if (!hello) {
    effects_.refuse.emplace_back(peer, hello.error());
    return;
  }
  if (auto problem = check_hello(hello->hello)) {
    effects_.refuse.emplace_back(peer, *problem);
    return;
  }
  auto user = users_.find(key);
  if (user == users_.end() && !hello->invitation.empty()) {
    auto invitation = invitations_.find(content_hash(hello->invitation));
    if (invitation == invitations_.end() || invitation->second.expires_ms < now_ms()) {
      effects_.refuse.emplace_back(
          peer, Error{ErrorCode::kDenied, "the invitation is not known, was used already or has expired: ask the "
                                          "relay's owner for a new one (`farcall relay invite NAME`)"});
      return;
    }
    user = users_.emplace(key, invitation->second.user).first;
    write(UserRow{key, invitation->second.user});
    write(UsedInvitation{invitation->first});
    invitations_.erase(invitation);
    log_info("enrolled a key of user {}", user->second);
  }
  if (user == users_.end()) {
    effects_.refuse.emplace_back(
        peer, Error{ErrorCode::kDenied,
                    fmt::format("the key {} is not known at the relay {}: ask its owner for an invitation and run "
                                "`farcall login INVITATION`",
                                key, settings_.address)});
    return;
  }
  Client& client = clients_[peer];
  client.user = user->second;
  client.key = key;
  wire::ClientWelcome welcome{settings_.software, client.user, generation_, settings_.inline_bytes_max};
  after_commit([this, peer, welcome] { send(peer, wire::make_message(welcome)); });
}

void Relay::endpoint_hello(PeerId peer, const std::string& key, const Message& message) {
  auto refuse = [&](Error error) { effects_.refuse.emplace_back(peer, std::move(error)); };
  auto hello = wire::decode<wire::EndpointHello>(message);
  if (!hello) return refuse(hello.error());
  if (auto problem = check_hello(hello->hello)) return refuse(*problem);
  auto found = endpoints_.find(hello->endpoint);
  if (found == endpoints_.end() || found->second.row.key != key)
    return refuse({ErrorCode::kDenied,
                   fmt::format("the relay {} does not know endpoint {} with this key: `farcall endpoint start` "
                               "registers it",
                               settings_.address, hello->endpoint.string())});
  Endpoint& endpoint = found->second;
  const bool same = endpoint.row.instance == hello->instance;
  if (endpoint.peer && !same && !hello->take_over)
    return refuse({ErrorCode::kBusy,
                   fmt::format("endpoint {} is served already, by process {} on {}: stop that one, or start this one "
                               "with --take-over",
                               endpoint.row.name, endpoint.pid, endpoint.host)});
  if (endpoint.peer && *endpoint.peer != peer) {
    const PeerId old = *endpoint.peer;
    endpoint_peers_.erase(old);
    if (same) {
      effects_.reset.emplace_back(old, "replaced by a newer session");
    } else {
      effects_.refuse.emplace_back(old, Error{ErrorCode::kBusy, "another interchange has taken over"});
    }
  }
  if (!same) {
    endpoint.row.instance = hello->instance;
    ++endpoint.row.epoch;
    write(endpoint.row);
  }
  welcome_endpoint(peer, endpoint, *hello);
}

void Relay::welcome_endpoint(PeerId peer, Endpoint& endpoint, const wire::EndpointHello& hello) {
  endpoint.instance = hello.instance;
  endpoint.host = hello.hello.host;
  endpoint.pid = hello.hello.pid;
  endpoint.last_seen_ms = now_ms();
  endpoint_peers_[peer] = endpoint.row.id;
  start_session(endpoint, peer);
  wire::EndpointWelcome welcome{endpoint.row.epoch, generation_, {}, endpoint.row.name};
  for (const auto& held : hello.holds) {
    Submission* submission = find(held.submission);
    if (submission == nullptr || submission->header.endpoint != endpoint.row.id) {
      welcome.forget.push_back(held);
      continue;
    }
    RangeSet wanted = held.ranges.intersection(submission->durable).difference(submission->finals());
    RangeSet forget = held.ranges.difference(wanted);
    submission->delivered.insert(wanted);
    submission->undelivered.erase(wanted);
    if (!forget.empty()) welcome.forget.push_back({held.submission, forget});
  }
  // A wish for a task that nobody holds is fulfilled.
  for (auto& [id, submission] : submissions_) {
    if (submission.header.endpoint != endpoint.row.id || submission.cancel_wished.empty()) continue;
    RangeSet gone = submission.cancel_wished.intersection(submission.durable)
                        .difference(submission.delivered)
                        .difference(submission.finals());
    record_cancelled(submission, gone);
  }
  log_info("endpoint {}: session of {} on {}, epoch {}", endpoint.row.name, hello.hello.pid, hello.hello.host,
           endpoint.row.epoch);
  const EndpointId id = endpoint.row.id;
  after_commit([this, peer, id, welcome] {
    auto found = endpoints_.find(id);
    if (found == endpoints_.end() || found->second.peer != peer) return;
    send(peer, wire::make_message(welcome));
    send_cancels(found->second);
    deliver(found->second);
  });
}

void Relay::message(const Now& now, PeerId peer, const Message& message) {
  now_ = now;
  if (auto client = clients_.find(peer); client != clients_.end()) {
    client_message(peer, client->second, message);
  } else if (auto endpoint = endpoint_peers_.find(peer); endpoint != endpoint_peers_.end()) {
    endpoint_message(peer, endpoints_.at(endpoint->second), message);
  }
  flush_progress();
}

void Relay::client_message(PeerId peer, Client& client, const Message& message) {
  switch (message.type) {
    case MessageType::kCredit: {
      auto credit = wire::decode<wire::Credit>(message);
      if (!credit) return bad_message(peer, credit.error());
      client.credit_tasks = std::max(client.credit_tasks, credit->tasks);
      client.credit_bytes = std::max(client.credit_bytes, credit->bytes);
      return pump(peer, client);
    }
    case MessageType::kRegisterFunction:
      return register_function(peer, client, message);
    case MessageType::kSubmit:
      return submit(peer, client, message);
    case MessageType::kWatch:
      return watch(peer, client, message);
    case MessageType::kCollected:
      return collected(client, message);
    case MessageType::kCall:
      return call(peer, client, message);
    default:
      bad_message(peer, {ErrorCode::kCorrupt, fmt::format("a client may not send message {}",
                                                          static_cast<int>(message.type))});
  }
}

void Relay::endpoint_message(PeerId peer, Endpoint& endpoint, const Message& message) {
  endpoint.last_seen_ms = now_ms();
  switch (message.type) {
    case MessageType::kCredit: {
      auto credit = wire::decode<wire::Credit>(message);
      if (!credit) return bad_message(peer, credit.error());
      endpoint.credit_tasks = std::max(endpoint.credit_tasks, credit->tasks);
      endpoint.credit_bytes = std::max(endpoint.credit_bytes, credit->bytes);
      return deliver(endpoint);
    }
    case MessageType::kResults:
      return take_results(peer, endpoint, message);
    case MessageType::kAttempts:
      return take_attempts(endpoint, message);
    case MessageType::kRunning:
      return take_running(endpoint, message);
    case MessageType::kEndpointStatus: {
      if (message.payload.empty()) return;
      auto status = Json::parse(message.payload[0].view(), nullptr, false);
      if (!status.is_discarded()) endpoint.status = std::move(status);
      return;
    }
    case MessageType::kReply:
      return endpoint_reply(endpoint, message);
    default:
      bad_message(peer, {ErrorCode::kCorrupt, fmt::format("an interchange may not send message {}",
                                                          static_cast<int>(message.type))});
  }
}

void Relay::gone(const Now& now, PeerId peer) {
  now_ = now;
  if (auto client = clients_.find(peer); client != clients_.end()) {
    for (const auto& [id, watch] : client->second.watches)
      if (Submission* submission = find(id)) submission->watchers.erase(peer);
    clients_.erase(client);
  }
  if (auto found = endpoint_peers_.find(peer); found != endpoint_peers_.end()) {
    Endpoint& endpoint = endpoints_.at(found->second);
    endpoint_peers_.erase(found);
    if (endpoint.peer == peer) {
      log_info("endpoint {}: session of {} on {} is over", endpoint.row.name, endpoint.pid, endpoint.host);
      endpoint.peer.reset();
    }
  }
}

std::uint64_t Relay::request_read(std::variant<ReadBody, ReadChunk, ReadOutcomes> what,
                                  std::variant<PendingChunk, PendingOutcomes, PendingBody> why) {
  const std::uint64_t id = ++last_read_;
  effects_.reads.push_back({id, std::move(what)});
  reads_.emplace(id, std::move(why));
  return id;
}

void Relay::answered(const Now& now, ReadAnswer answer) {
  now_ = now;
  auto found = reads_.find(answer.id);
  if (found == reads_.end()) return;
  auto why = std::move(found->second);
  reads_.erase(found);
  if (auto* chunk = std::get_if<PendingChunk>(&why)) {
    auto endpoint = endpoints_.find(chunk->endpoint);
    if (endpoint == endpoints_.end() || endpoint->second.peer != chunk->peer) return;
    Submission* submission = find(chunk->submission);
    if (submission == nullptr) return;
    if (!answer.bytes) {
      log_error("{}", answer.bytes.error().message);
      return;
    }
    add_chunk(endpoint->second, *submission, submission->chunks.at(chunk->first), chunk->run, *answer.bytes);
  } else if (auto* outcomes = std::get_if<PendingOutcomes>(&why)) {
    auto client = clients_.find(outcomes->peer);
    if (client == clients_.end()) return;
    client->second.reading = false;
    if (!answer.rows) {
      log_error("{}", answer.rows.error().message);
      return;
    }
    auto watch = client->second.watches.find(outcomes->submission);
    if (watch != client->second.watches.end())
      for (const OutcomesRow& row : *answer.rows)
        if (!send_outcomes(outcomes->peer, client->second, watch->second, row)) break;
    pump(outcomes->peer, client->second);
  } else {
    auto& body = std::get<PendingBody>(why);
    auto function = functions_.find(body.function);
    if (function != functions_.end()) {
      function->second.reading = false;
      if (answer.bytes) function->second.body = *answer.bytes;
    }
    if (body.peer != 0) {
      if (!answer.bytes) return reply(body.peer, body.request, fail(answer.bytes.error()));
      Json row = {{"function_id", body.function.string()}};
      if (function != functions_.end()) {
        row["name"] = function->second.record.name;
        row["kind"] = name_of(function->second.record.kind);
        row["meta"] = Json::parse(function->second.record.meta, nullptr, false);
      }
      return reply(body.peer, body.request, row, {*answer.bytes});
    }
    if (!answer.bytes) log_error("{}", answer.bytes.error().message);
    if (answer.bytes)
      for (auto& [id, endpoint] : endpoints_) deliver(endpoint);
  }
}

void Relay::tick(const Now& now) {
  now_ = now;
  flush_progress();
  std::vector<std::uint64_t> late;
  for (const auto& [request, explain] : explains_)
    if (explain.deadline <= now.mono) late.push_back(request);
  for (std::uint64_t request : late)
    finish_explain(request, {"the interchange did not answer within 2 s: its log says more (`farcall endpoint logs`)"});
  if (now.mono >= retention_due_) {
    retention_due_ = now.mono + std::chrono::minutes(1);
    expire_unsealed();
    purge();
  }
}

MonoTime Relay::next_tick() const {
  MonoTime next = retention_due_;
  if (!changed_.empty()) next = std::min(next, progress_due_);
  for (const auto& [request, explain] : explains_) next = std::min(next, explain.deadline);
  return next;
}

void Relay::sanity_check() const {
  for (const auto& [id, s] : submissions_) {
    const std::string name = id.string();
    FARCALL_CHECK(s.durable.difference(s.received).empty(), name);
    FARCALL_CHECK(s.finals().count() == s.final_count(), name + ": a task has two final states");
    FARCALL_CHECK(s.finals().difference(s.received).empty(), name + ": a final task never came");
    FARCALL_CHECK(s.delivered.intersection(s.finals()).empty(), name + ": a final task is held");
    FARCALL_CHECK(s.undelivered.intersection(s.delivered).empty(), name);
    FARCALL_CHECK(s.undelivered.intersection(s.finals()).empty(), name);
    FARCALL_CHECK(s.undelivered.difference(s.durable).empty(), name);
    RangeSet all = s.undelivered;
    all.insert(s.delivered);
    all.insert(s.finals());
    all.insert(s.cancel_wished.intersection(s.durable));
    FARCALL_CHECK(s.durable.difference(all).empty(), name + ": a durable task is nowhere");
  }
  for (const auto& [peer, client] : clients_)
    for (const auto& [id, watch] : client.watches)
      FARCALL_CHECK(submissions_.count(id) == 0 || submissions_.at(id).watchers.count(peer) == 1, id.string());
}

}  // namespace farcall::relay
