// Which blobs are here, who needs them, and when nobody does any more. Their bytes are the
// server's.
#include <nlohmann/json.hpp>
#include <utility>

#include "base/keys.h"
#include "base/log.h"
#include "send.h"

namespace farcall::relay {

namespace {
// What was answered "it is here" stays so long, whether a submission names it or not.
constexpr Duration kPinned = std::chrono::hours(1);

// Of a result only its endpoint has the bytes; these came from there twice.
Error lost_if_damaged(const Error& error) {
  if (error.code != ErrorCode::kCorrupt) return error;
  return {ErrorCode::kResultLost,
          fmt::format("it is damaged at its endpoint: {}; run the task again", error.message)};
}
}  // namespace

std::string Core::Impl::scope_of(const std::string& user) {
  return content_hash(user).substr(0, 16);
}

void Core::Impl::blob_found(const std::string& scope, const wire::BlobRef& blob) {
  Blob& entry = blobs_[{scope, blob.hash}];
  entry.size = blob.size;
  entry.here = true;
  entry.keep_until = now_.mono + kPinned;
}

// Whether it is really here, only the server can say.
void Core::Impl::blob_offer(Peer& peer, const wire::BlobOffer& m) {
  for (const wire::BlobRef& blob : m.blobs) {
    if (!wire::is_blob_hash(blob.hash)) {
      send(peer.id, wire::BlobState{blob, static_cast<std::int32_t>(ErrorCode::kInvalidArgument),
                                    "a blob is offered under a name that is no hash", ""});
      continue;
    }
    effects_.blobs.emplace_back(PullBlob{peer.id, scope_of(peer.user), blob});
  }
}

void Core::Impl::blob_pulled(const PullBlob& pull, const Result<void>& outcome) {
  wire::BlobState state{pull.blob, 0, "", ""};
  Blob& coming = blobs_[{pull.scope, pull.blob.hash}];
  coming.brought = std::exchange(coming.coming, false);
  coming.last = std::nullopt;
  if (coming.brought && !outcome) coming.last = lost_if_damaged(outcome.error());
  if (outcome) {
    blob_found(pull.scope, pull.blob);
  } else {
    state.error = static_cast<std::int32_t>(outcome.error().code);
    state.text = outcome.error().message;
    // An entry that submissions need stays: it may be sent again.
    auto entry = blobs_.find({pull.scope, pull.blob.hash});
    if (entry != blobs_.end()) entry->second.here = false;
  }
  const Peer* peer = find_peer(pull.peer);
  if (peer != nullptr && peer->endpoint.is_nil()) send(pull.peer, state);
}

// A large result stays at its endpoint until somebody wants it. Whoever does asks again and again:
// nothing is kept for one who went away, and what has come stays for an hour.
Result<nlohmann::json> Core::Impl::task_bring(const Peer& peer, const nlohmann::json& p) {
  auto task = task_param(peer.user, p);
  if (!task) return fail(task.error());
  const wire::BlobRef blob{p.value("hash", ""), p.value("size", std::uint64_t{0})};
  if (!wire::is_blob_hash(blob.hash))
    return fail(ErrorCode::kInvalidArgument, "task.bring: \"hash\" is no hash");
  const std::string scope = scope_of(peer.user);
  Blob& entry = blobs_[{scope, blob.hash}];
  entry.keep_until = std::max(entry.keep_until, now_.mono + kPinned);
  if (entry.here) return nlohmann::json{{"here", true}};
  if (entry.last) return fail(*std::exchange(entry.last, std::nullopt));
  Endpoint* e = find_endpoint(task->first->record.header.endpoint);
  if (e == nullptr || !e->ready)
    return fail(
        ErrorCode::kUnreachable,
        "the result of task {} is on endpoint {}, which is not connected: ask again when it "
        "is",
        p.value("task", ""), e == nullptr ? "that was deleted" : e->record.name);
  if (!std::exchange(entry.coming, true)) {
    entry.size = blob.size;
    effects_.blobs.emplace_back(PullBlob{e->peer, scope, blob});
  }
  return nlohmann::json{{"here", false}};
}

void Core::Impl::blob_get(Peer& peer, const wire::BlobGet& m) {
  effects_.blobs.emplace_back(ServeBlob{peer.id, scope_of(peer.user), m});
}

// Those that a payload needs, all of which are here.
Result<std::vector<wire::BlobRef>> Core::Impl::blobs_of(const std::string& user,
                                                        const std::string& what,
                                                        std::string_view payload) const {
  auto refs = wire::blob_refs(payload);
  if (!refs) return fail(ErrorCode::kInvalidArgument, "{}: {}", what, refs.error().message);
  for (const wire::BlobRef& ref : *refs) {
    auto entry = blobs_.find({scope_of(user), ref.hash});
    if (entry == blobs_.end() || !entry->second.here || entry->second.size != ref.size)
      return fail(
          ErrorCode::kNotFound,
          "{} needs blob {} of {} bytes, which is not at this relay: send it, and then this "
          "again",
          what, ref.hash, ref.size);
  }
  return *refs;
}

void Core::Impl::need_blob(const std::string& user, const BlobUse& blob) {
  Blob& entry = blobs_[{scope_of(user), blob.hash}];
  entry.size = blob.size;
  ++entry.holders;
}

void Core::Impl::release_blob(const std::string& user, const std::string& hash) {
  auto entry = blobs_.find({scope_of(user), hash});
  if (entry == blobs_.end() || entry->second.holders == 0) return;
  --entry->second.holders;
  entry->second.keep_until = std::max(entry->second.keep_until, now_.mono + kPinned);
}

// Of chunks that have just been taken: noted once for the submission.
void Core::Impl::note_blobs(Submission& s, const std::vector<wire::BlobRef>& blobs) {
  PutBlobs put{s.id(), {}};
  for (const wire::BlobRef& blob : blobs) {
    if (!s.blobs.insert(blob.hash).second) continue;
    put.blobs.push_back({blob.hash, blob.size});
    need_blob(s.user(), put.blobs.back());
  }
  if (!put.blobs.empty()) write(std::move(put));
}

void Core::Impl::release_blobs(Submission& s) {
  for (const std::string& hash : std::exchange(s.blobs, {})) release_blob(s.user(), hash);
}

void Core::Impl::collect_blobs() {
  for (auto entry = blobs_.begin(); entry != blobs_.end();) {
    if (entry->second.holders > 0 || now_.mono < entry->second.keep_until) {
      ++entry;
      continue;
    }
    log_debug("blob {}: nobody needs it any more", entry->first.second);
    if (entry->second.here)
      effects_.blobs.emplace_back(DropBlob{entry->first.first, entry->first.second});
    entry = blobs_.erase(entry);
  }
}

Effects Core::blob_found(const std::string& scope, const wire::BlobRef& blob, Now now) {
  impl_->begin(now);
  impl_->blob_found(scope, blob);
  return impl_->finish();
}
Effects Core::blob_pulled(const PullBlob& pull, const Result<void>& outcome, Now now) {
  impl_->begin(now);
  impl_->blob_pulled(pull, outcome);
  return impl_->finish();
}

}  // namespace farcall::relay
