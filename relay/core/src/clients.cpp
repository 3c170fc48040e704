// Who is there: hellos of clients, invitations, functions, replies.
#include <nlohmann/json.hpp>

#include "base/keys.h"
#include "base/log.h"
#include "send.h"

namespace farcall::relay {

using nlohmann::json;

bool Core::Impl::accept_version(PeerId id, const wire::Hello& hello) {
  if (hello.magic != "farcall") {
    refuse(id, ErrorCode::kCorrupt, "that is no hello of farcall");
    return false;
  }
  if (hello.oldest_version <= wire::kProtocolVersion &&
      hello.version >= wire::kOldestProtocolVersion)
    return true;
  refuse(id, ErrorCode::kVersion,
         fmt::format("{} speaks protocol {} to {}, this relay ({}) {} to {}: install the same "
                     "version on both sides",
                     hello.software, hello.oldest_version, hello.version, options_.software,
                     wire::kOldestProtocolVersion, wire::kProtocolVersion));
  return false;
}

void Core::Impl::client_hello(PeerId id, const std::string& key, const wire::ClientHello& hello) {
  if (!accept_version(id, hello.hello)) return;
  auto known = user_keys_.find(key);
  std::string user;
  if (known != user_keys_.end()) {
    user = known->second.user;
  } else if (!hello.invitation.empty()) {
    auto enrolled = enrol(key, hello.invitation);
    if (!enrolled) return refuse(id, enrolled.error().code, enrolled.error().message);
    user = *enrolled;
  } else {
    return refuse(id, ErrorCode::kDenied,
                  fmt::format("the key {} is not known at this relay: ask its owner for an "
                              "invitation (farcall relay invite NAME), then farcall login",
                              key));
  }
  Peer& peer = peers_[id];
  peer.id = id;
  peer.key = key;
  peer.user = user;
  if (stuck_ && known != user_keys_.end()) return welcome_client(id, user);
  after_commit([this, id, user] { welcome_client(id, user); });
}

Result<std::string> Core::Impl::enrol(const std::string& key, const std::string& token) {
  auto found = invitations_.find(content_hash(token));
  if (found == invitations_.end())
    return fail(ErrorCode::kDenied,
                "the invitation is not known: it was used, or belongs to another relay; ask for a "
                "new one");
  if (found->second.expires_ms <= wall_ms())
    return fail(ErrorCode::kDenied, "the invitation of {} has expired; ask for a new one",
                found->second.user);
  UserKey record{key, found->second.user, false, wall_ms()};
  log_info("user {} enrolled with key {}", record.user, key);
  write(PutUserKey{record});
  write(DropInvitation{found->second.hash});
  invitations_.erase(found);
  user_keys_[key] = record;
  return record.user;
}

void Core::Impl::welcome_client(PeerId id, const std::string& user) {
  Peer* peer = find_peer(id);
  if (peer == nullptr) return;
  peer->ready = true;
  send(id, wire::ClientWelcome{options_.software, user, generation_, options_.inline_bytes_max});
}

void Core::Impl::gone(PeerId id) {
  Peer* peer = find_peer(id);
  if (peer == nullptr) return;
  for (const auto& [submission, watch] : peer->watches) {
    if (Submission* s = find_submission(submission)) s->watchers.erase(id);
    if (watch.load != 0) row_loads_.erase(watch.load);
  }
  if (!peer->endpoint.is_nil()) {
    Endpoint* e = find_endpoint(peer->endpoint);
    if (e != nullptr && e->peer == id) endpoint_gone(*e);
    fail_calls(id, MonoTime::max());
  }
  peers_.erase(id);
}

void Core::Impl::register_function(Peer& peer, const wire::RegisterFunction& m,
                                   const wire::Message& raw) {
  if (raw.payload.size() != 1)
    return reply_error(peer.id, m.request,
                       {ErrorCode::kInvalidArgument,
                        fmt::format("a function comes with one body, found {} payload frames",
                                    raw.payload.size())});
  const Bytes& body = raw.payload[0];
  if (body.size() > options_.function_bytes_max)
    return reply_error(peer.id, m.request,
                       {ErrorCode::kTooLarge,
                        fmt::format("function {} has {} bytes, at most {} are taken",
                                    m.function.name, body.size(), options_.function_bytes_max)});
  FunctionEntry entry{peer.user, m.function, body, wall_ms()};
  entry.record.id = function_id(m.function.kind, m.function.name, body.view());
  const FunctionId id = entry.record.id;
  if (find_function(peer.user, id) == nullptr) {
    if (stuck_) return reply_error(peer.id, m.request, *stuck_);
    auto blobs = blobs_of(peer.user, "function " + m.function.name, body.view());
    if (!blobs) return reply_error(peer.id, m.request, blobs.error());
    for (const wire::BlobRef& blob : *blobs) need_blob(peer.user, {blob.hash, blob.size});
    write(PutFunction{entry});
    functions_[{peer.user, id}].entry = std::move(entry);
  }
  reply_later(peer.id, m.request, json{{"function_id", id.string()}}.dump());
}

void Core::Impl::reply(PeerId peer, std::uint64_t request, const json& answer,
                       std::vector<Bytes> more) {
  std::vector<Bytes> payload{Bytes(answer.dump(-1, ' ', false, json::error_handler_t::replace))};
  for (Bytes& bytes : more) payload.push_back(std::move(bytes));
  send(peer, wire::Reply{request, 0, ""}, std::move(payload));
}

void Core::Impl::reply_error(PeerId peer, std::uint64_t request, const Error& error) {
  send(peer, wire::Reply{request, static_cast<std::int32_t>(error.code), error.message});
}

void Core::Impl::reply_later(PeerId peer, std::uint64_t request, std::string answer) {
  after_commit([this, peer, request, text = std::move(answer)] {
    if (find_peer(peer) != nullptr) send(peer, wire::Reply{request, 0, ""}, {Bytes(text)});
  });
}

}  // namespace farcall::relay
