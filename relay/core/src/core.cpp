#include "relay/core/core.h"

#include <utility>

#include "base/log.h"
#include "impl.h"
#include "send.h"

namespace farcall::relay {

namespace {
constexpr Duration kHousekeeping = std::chrono::seconds(20);
}

Core::Impl::Impl(Options o, LoadedState state, Now now)
    : options_(std::move(o)),
      now_(now),
      rng_(options_.seed),
      chunk_cache_(options_.chunk_cache_bytes),
      row_cache_(options_.row_cache_bytes),
      next_housekeeping_(now.mono + kHousekeeping),
      last_housekeeping_(now),
      purge_not_before_(now.mono) {
  FARCALL_CHECK(options_.make_token != nullptr, "Options::make_token is needed");
  load(std::move(state));
}

void Core::Impl::load(LoadedState state) {
  generation_ = state.generation;
  for (UserKey& record : state.user_keys) user_keys_[record.key] = record;
  for (Invitation& record : state.invitations) invitations_[record.hash] = record;
  for (Tombstone& record : state.tombstones) tombstones_[record.submission] = record;
  for (EndpointRecord& record : state.endpoints) endpoints_[record.id].record = record;
  for (FunctionEntry& entry : state.functions) {
    std::pair<std::string, FunctionId> key{entry.user, entry.record.id};
    if (auto blobs = wire::blob_refs(entry.body.view()))
      for (const wire::BlobRef& blob : *blobs) need_blob(entry.user, {blob.hash, blob.size});
    functions_[key].entry = std::move(entry);
  }
  for (LoadedSubmission& loaded : state.submissions) load_submission(std::move(loaded));
}

void Core::Impl::load_submission(LoadedSubmission loaded) {
  auto made = std::make_unique<Submission>();
  Submission& s = *made;
  s.record = std::move(loaded.record);
  for (ChunkRecord& record : loaded.chunks) {
    Chunk chunk{std::move(record.sizes), record.hash, 0};
    for (std::uint32_t size : chunk.sizes) chunk.bytes += size;
    s.received.insert(
        {record.first, record.first + static_cast<std::uint32_t>(chunk.sizes.size())});
    s.chunks[record.first] = std::move(chunk);
  }
  s.durable = s.received;
  s.by_state = std::move(loaded.by_state);
  for (std::size_t slot = 0; slot < 3; ++slot) {
    s.final.insert(s.by_state[slot]);
    s.counts[slot] = static_cast<std::uint32_t>(s.by_state[slot].count());
  }
  s.last_seq = s.committed_seq = loaded.last_seq;
  for (const TaskHistory& history : loaded.histories) s.histories[history.index] = history;
  s.last_part = now_.mono;
  s.record.cancel_wished.erase(s.final);
  const SubmissionId id = s.id();
  by_user_[s.user()].insert(id);
  submissions_[id] = std::move(made);
  if (s.is_finished()) return;
  if (Function* function = find_function(s.user(), s.record.header.function))
    ++function->unfinished;
  for (const BlobUse& blob : loaded.blobs) {
    s.blobs.insert(blob.hash);
    need_blob(s.user(), blob);
  }
  Endpoint* e = find_endpoint(s.record.header.endpoint);
  if (e == nullptr) return;
  e->unfinished.insert(id);
  // Nobody remembers what the endpoint was given: until it says what it holds, it may have all.
  RangeSet open = s.durable.difference(s.final);
  (e->record.epoch > 0 ? s.delivered : s.pending) = std::move(open);
  queue(s);
}

void Core::Impl::begin(Now now) {
  now_ = now;
  effects_ = {};
}

Effects Core::Impl::finish() {
  std::uint64_t ticket = 0;
  if (!soon_.empty() && (!effects_.writes.empty() || now_.mono >= soon_due_)) write_what_waits();
  while (true) {
    if (ticket == 0 && !effects_.writes.empty()) ticket = ++last_ticket_;
    if (fresh_.empty()) break;
    auto actions = std::exchange(fresh_, {});
    for (auto& action : actions) {
      if (last_ticket_ <= committed_)
        action();
      else
        waiting_.emplace_back(last_ticket_, std::move(action));
    }
  }
  effects_.ticket = ticket;
  for (PeerId id : std::exchange(ack_to_, {}))
    if (Peer* peer = find_peer(id)) flush_acks(*peer);
  for (PeerId id : std::exchange(push_to_, {}))
    if (Peer* peer = find_peer(id)) push(*peer);
  for (EndpointId id : std::exchange(deliver_to_, {}))
    if (Endpoint* e = find_endpoint(id)) deliver(*e);
  for (PeerId id : std::exchange(progress_to_, {}))
    if (Peer* peer = find_peer(id)) flush_progress(*peer);
  for (const auto& [id, call] : calls_) wake_by(call.due);
  wake_by(next_housekeeping_);
  if (progress_due_) wake_by(*progress_due_);
  if (!soon_.empty()) wake_by(soon_due_);
  FARCALL_CHECK(fresh_.empty(), "an action was left over");
  FARCALL_CHECK(ticket != 0 || effects_.writes.empty(), "a write has no ticket");
  return std::move(effects_);
}

void Core::Impl::on_committed(std::uint64_t ticket) {
  if (std::exchange(stuck_, std::nullopt)) log_info("the store takes what it is given again");
  committed_ = std::max(committed_, ticket);
  while (!waiting_.empty() && waiting_.front().first <= committed_) {
    auto action = std::move(waiting_.front().second);
    waiting_.pop_front();
    action();
  }
}

void Core::Impl::wake_by(MonoTime at) {
  if (!effects_.wake_at || at < *effects_.wake_at) effects_.wake_at = at;
}

void Core::Impl::send_message(PeerId peer, wire::Message message) {
  effects_.messages.emplace_back(Send{peer, std::move(message)});
}

void Core::Impl::refuse(PeerId peer, ErrorCode code, std::string text) {
  log_info("refused peer {}: {}", peer, text);
  effects_.messages.emplace_back(Refuse{peer, Error{code, std::move(text)}});
  peers_.erase(peer);
}

Peer* Core::Impl::find_peer(PeerId id) {
  auto found = peers_.find(id);
  return found == peers_.end() ? nullptr : &found->second;
}
Submission* Core::Impl::find_submission(SubmissionId id) {
  auto found = submissions_.find(id);
  return found == submissions_.end() ? nullptr : found->second.get();
}
Submission* Core::Impl::find_submission(const std::string& user, SubmissionId id) {
  Submission* s = find_submission(id);
  return s != nullptr && s->user() == user ? s : nullptr;
}
Endpoint* Core::Impl::find_endpoint(EndpointId id) {
  auto found = endpoints_.find(id);
  return found == endpoints_.end() ? nullptr : &found->second;
}
Function* Core::Impl::find_function(const std::string& user, FunctionId id) {
  auto found = functions_.find({user, id});
  return found == functions_.end() ? nullptr : &found->second;
}

template <class Body, class F>
void Core::Impl::with(Peer& peer, const wire::Message& message, F&& f) {
  auto body = wire::decode<Body>(message);
  if (body) {
    f(*body);
    return;
  }
  log_warn("peer {} of {} sent what cannot be read: {}", peer.id, peer.user, body.error().message);
  const PeerId id = peer.id;
  gone(id);
  refuse(id, ErrorCode::kCorrupt, body.error().message);
}

void Core::Impl::dispatch(Peer& peer, const wire::Message& m) {
  using wire::MessageType;
  const bool client = peer.endpoint.is_nil();
  auto credit = [&](const wire::Credit& c) {
    Endpoint* e = client ? nullptr : find_endpoint(peer.endpoint);
    wire::Credit& granted = e != nullptr ? e->granted : peer.granted;
    granted.tasks = std::max(granted.tasks, c.tasks);
    granted.bytes = std::max(granted.bytes, c.bytes);
    if (e != nullptr) deliver_to_.insert(peer.endpoint);
    push_to_.insert(peer.id);
  };
  if (m.type == MessageType::kCredit) return with<wire::Credit>(peer, m, credit);
  if (m.type == MessageType::kBlobGet)
    return with<wire::BlobGet>(peer, m, [&](auto& b) { blob_get(peer, b); });
  if (client) {
    switch (m.type) {
      case MessageType::kRegisterFunction:
        return with<wire::RegisterFunction>(peer, m,
                                            [&](auto& b) { register_function(peer, b, m); });
      case MessageType::kSubmit:
        return with<wire::Submit>(peer, m, [&](auto& b) { submit(peer, b, m); });
      case MessageType::kBlobOffer:
        return with<wire::BlobOffer>(peer, m, [&](auto& b) { blob_offer(peer, b); });
      case MessageType::kWatch:
        return with<wire::Watch>(peer, m, [&](auto& b) { watch(peer, b); });
      case MessageType::kCollected:
        return with<wire::Collected>(peer, m, [&](auto& b) { collected(peer, b); });
      case MessageType::kCall:
        return with<wire::Call>(peer, m, [&](auto& b) { call(peer, b, m); });
      default:
        break;
    }
  } else if (m.type == wire::kNotesType) {
    return with<wire::Notes>(peer, m, [&](auto& b) { notes(peer, b, m); });
  } else {
    switch (m.type) {
      case MessageType::kResults:
        return with<wire::Results>(peer, m, [&](auto& b) { results(peer, b, m); });
      case MessageType::kRunning:
        return with<wire::Running>(peer, m, [&](auto& b) { running(peer, b); });
      case MessageType::kAttempts:
        return with<wire::Attempts>(peer, m, [&](auto& b) { attempts(peer, b); });
      case MessageType::kReply:
        return with<wire::Reply>(peer, m, [&](auto& b) { take_reply(peer, b, m); });
      case MessageType::kEndpointStatus:
        if (Endpoint* e = find_endpoint(peer.endpoint); e != nullptr && !m.payload.empty())
          take_status(*e, m.payload[0]);
        return;
      default:
        break;
    }
  }
  log_warn("peer {} of {} sent message type {}, which has no place here: dropped", peer.id,
           peer.user, static_cast<int>(m.type));
}

Core::Core(Options options, LoadedState state, Now now)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(state), now)) {}
Core::~Core() = default;

Effects Core::enrol_owner(const std::string& key, const std::string& user, Now now) {
  impl_->begin(now);
  if (!impl_->user_keys_.contains(key)) {
    UserKey record{key, user, true, impl_->wall_ms()};
    impl_->user_keys_[key] = record;
    impl_->write(PutUserKey{record});
  }
  return impl_->finish();
}

Effects Core::hello(PeerId peer, const std::string& key, const wire::Message& message, Now now) {
  impl_->begin(now);
  if (message.type == wire::MessageType::kClientHello) {
    if (auto body = wire::decode<wire::ClientHello>(message))
      impl_->client_hello(peer, key, *body);
    else
      impl_->refuse(peer, ErrorCode::kCorrupt, body.error().message);
  } else if (message.type == wire::MessageType::kEndpointHello) {
    if (auto body = wire::decode<wire::EndpointHello>(message))
      impl_->endpoint_hello(peer, key, *body);
    else
      impl_->refuse(peer, ErrorCode::kCorrupt, body.error().message);
  } else {
    impl_->refuse(peer, ErrorCode::kInvalidArgument,
                  fmt::format("a relay is greeted with a client's or an endpoint's hello, not with "
                              "message type {}",
                              static_cast<int>(message.type)));
  }
  return impl_->finish();
}

Effects Core::message(PeerId id, const wire::Message& message, Now now) {
  impl_->begin(now);
  Peer* peer = impl_->find_peer(id);
  if (peer != nullptr && peer->ready) impl_->dispatch(*peer, message);
  return impl_->finish();
}
Effects Core::gone(PeerId peer, Now now) {
  impl_->begin(now);
  impl_->gone(peer);
  return impl_->finish();
}
Effects Core::committed(std::uint64_t ticket, Now now) {
  impl_->begin(now);
  impl_->on_committed(ticket);
  return impl_->finish();
}
Effects Core::store_stuck(const Error& why, Now now) {
  impl_->begin(now);
  if (!impl_->stuck_)
    log_error("nothing new is kept or acknowledged until there is room: {}", why.message);
  impl_->stuck_ =
      Error{why.code, "the relay cannot keep anything new: " + why.message +
                          "; what it has acknowledged is safe, send this again when it has room"};
  return impl_->finish();
}
Effects Core::chunk_loaded(SubmissionId id, std::uint32_t first, std::optional<Bytes> data,
                           Now now) {
  impl_->begin(now);
  impl_->chunk_loads_.erase({id, first});
  Submission* s = impl_->find_submission(id);
  if (s != nullptr && data) {
    impl_->chunk_cache_.put({id, first}, *data, data->size() + 64);
    impl_->deliver_to_.insert(s->record.header.endpoint);
  }
  const auto [waiter, end] = impl_->chunk_waiters_.equal_range({id, first});
  for (auto each = waiter; each != end; ++each) each->second(data ? &*data : nullptr);
  impl_->chunk_waiters_.erase(waiter, end);
  return impl_->finish();
}
Effects Core::rows_loaded(std::uint64_t token, LoadedRows rows, Now now) {
  impl_->begin(now);
  auto found = impl_->row_loads_.find(token);
  if (found != impl_->row_loads_.end()) {
    auto then = std::move(found->second);
    impl_->row_loads_.erase(found);
    then(std::move(rows));
  }
  return impl_->finish();
}
Effects Core::tick(Now now) {
  impl_->begin(now);
  impl_->fail_calls(0, now.mono);
  if (now.mono >= impl_->next_housekeeping_) {
    impl_->housekeeping();
    impl_->next_housekeeping_ = now.mono + kHousekeeping;
  }
  if (impl_->progress_due_ && now.mono >= *impl_->progress_due_) {
    impl_->progress_due_.reset();
    for (auto& [id, peer] : impl_->peers_)
      if (!peer.progress_dirty.empty()) impl_->progress_to_.insert(id);
  }
  return impl_->finish();
}

std::string Core::broken_invariant() const { return impl_->broken_invariant(); }
const Core::Counters& Core::counters() const { return impl_->counters_; }

}  // namespace farcall::relay
