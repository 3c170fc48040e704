// Submissions: parts come in, are checked against what is known, and become durable.
#include "base/keys.h"
#include "base/log.h"
#include "send.h"

namespace farcall::relay {

namespace {
RangeSet ranges_of(const std::vector<wire::ChunkMeta>& chunks) {
  RangeSet ranges;
  for (const wire::ChunkMeta& c : chunks)
    ranges.insert({c.first, c.first + static_cast<std::uint32_t>(c.sizes.size())});
  return ranges;
}
}  // namespace

void Core::Impl::submit(Peer& peer, const wire::Submit& m, const wire::Message& raw) {
  std::size_t frame = 0;
  for (const wire::SubmitPart& part : m.parts) {
    wire::SubmitResult result{part.submission, {}, false, 0, ""};
    std::vector<Bytes> payload;
    for (std::size_t i = 0; i < part.chunks.size() && frame < raw.payload.size(); ++i)
      payload.push_back(raw.payload[frame++]);
    if (stuck_ && !has_all_of(part)) {
      peer.submit_acks.push_back(
          {part.submission, {}, false, static_cast<std::int32_t>(stuck_->code), stuck_->message});
      ack_to_.insert(peer.id);
      continue;
    }
    Result<Submission*> s = submission_for(peer, part);
    Result<void> done;
    if (!s) {
      done = fail(s.error());
    } else if (payload.size() != part.chunks.size()) {
      done = fail(ErrorCode::kCorrupt, "submission {}: {} chunks came with {} payload frames",
                  part.submission.string(), part.chunks.size(), payload.size());
    } else {
      RangeSet taken;
      done = take_chunks(**s, part, payload, taken);
      if (done && part.seal) done = seal(**s, part.count);
      if (!taken.empty())
        after_commit([this, id = part.submission, taken] { chunks_durable(id, taken); });
    }
    if (!done) {
      log_info("{}: part of {} refused: {}", peer.user, part.submission.string(),
               done.error().message);
      result.error = static_cast<std::int32_t>(done.error().code);
      result.text = done.error().message;
    } else {
      result.received = ranges_of(part.chunks);
      result.sealed = (*s)->record.sealed;
    }
    after_commit([this, id = peer.id, result] {
      if (Peer* p = find_peer(id)) {
        p->submit_acks.push_back(result);
        ack_to_.insert(id);
      }
    });
  }
}

// It has been here before, and waits for its commit or is durable.
bool Core::Impl::has_all_of(const wire::SubmitPart& part) {
  const Submission* s = find_submission(part.submission);
  return s != nullptr &&
         std::all_of(part.chunks.begin(), part.chunks.end(),
                     [s](const auto& chunk) { return s->chunks.contains(chunk.first); });
}

Result<Submission*> Core::Impl::submission_for(const Peer& peer, const wire::SubmitPart& part) {
  Submission* s = find_submission(part.submission);
  if (s == nullptr) return make_submission(peer, part);
  if (s->user() != peer.user)
    return fail(ErrorCode::kExists, "submission id {} is taken", part.submission.string());
  if (part.header) {
    SubmissionHeader header = *part.header;
    header.owner = peer.user;
    if (header != s->record.header)
      return fail(ErrorCode::kExists,
                  "submission {} exists with other options: choose a new id for other work",
                  part.submission.string());
  }
  return s;
}

Result<Submission*> Core::Impl::make_submission(const Peer& peer, const wire::SubmitPart& part) {
  const SubmissionId id = part.submission;
  if (tombstones_.contains(id))
    return fail(ErrorCode::kExists,
                "submission {} has been here and its results were removed when their time was "
                "over: choose a new id",
                id.string());
  if (!part.header)
    return fail(ErrorCode::kNotFound,
                "submission {} is not known here and the part has no header: send it with one",
                id.string());
  if (part.header->submission != id || id.is_nil() ||
      std::any_of(id.bytes.begin() + 12, id.bytes.end(), [](std::uint8_t b) { return b != 0; }))
    return fail(ErrorCode::kInvalidArgument, "{} is no submission id", id.string());
  SubmissionHeader header = *part.header;
  header.owner = peer.user;
  Endpoint* e = find_endpoint(header.endpoint);
  if (e == nullptr || e->record.user != peer.user)
    return fail(ErrorCode::kNotFound, "no endpoint {} of {}: see farcall endpoint list",
                header.endpoint.string(), peer.user);
  Function* function = find_function(peer.user, header.function);
  if (function == nullptr)
    return fail(ErrorCode::kNotFound, "no function {} of {}: register it first",
                header.function.string(), peer.user);
  if (e->offer)
    if (const std::string why = why_impossible(*e->offer, header.resources, header.walltime_ms);
        !why.empty())
      return fail(ErrorCode::kInvalidArgument, "endpoint {} can never run this: {}", e->record.name,
                  why);
  auto made = std::make_unique<Submission>();
  Submission& s = *made;
  s.record.header = std::move(header);
  s.record.received_ms = wall_ms();
  s.last_part = now_.mono;
  submissions_[id] = std::move(made);
  by_user_[peer.user].insert(id);
  e->unfinished.insert(id);
  ++function->unfinished;
  write(PutSubmission{s.record});
  log_debug("submission {} of {} for endpoint {}", id.string(), peer.user, e->record.name);
  return &s;
}

Result<void> Core::Impl::check_chunk(const Submission& s, const wire::ChunkMeta& meta,
                                     const Bytes& data, const IdBytes& hash, bool& known) const {
  const std::string id = s.id().string();
  const std::uint64_t count = meta.sizes.size();
  std::uint64_t bytes = 0;
  for (std::uint32_t size : meta.sizes) {
    if (size > options_.inline_bytes_max)
      return fail(ErrorCode::kTooLarge,
                  "submission {}: an argument set has {} bytes, at most {} are taken", id, size,
                  options_.inline_bytes_max);
    bytes += size;
  }
  if (count == 0 || count > wire::kChunkTasksMax || meta.first + count > 0xffffffffULL)
    return fail(ErrorCode::kInvalidArgument, "submission {}: a chunk of {} tasks at {}", id, count,
                meta.first);
  if (bytes != data.size())
    return fail(ErrorCode::kCorrupt, "submission {}: the chunk at {} has {} bytes, expected {}", id,
                meta.first, data.size(), bytes);
  const Range range{meta.first, meta.first + static_cast<std::uint32_t>(count)};
  known = !s.received.intersection(range).empty();
  if (known) {
    auto found = s.chunks.find(meta.first);
    if (found != s.chunks.end() && found->second.sizes == meta.sizes && found->second.hash == hash)
      return {};
    return fail(ErrorCode::kExists,
                "submission {}: tasks {} to {} have been sent before with other arguments or cut "
                "otherwise: choose a new id for other work",
                id, range.first, range.last - 1);
  }
  if (s.record.aborted)
    return fail(ErrorCode::kCancelled, "submission {} was cancelled: it takes no more tasks", id);
  if (s.record.sealed && range.last > s.record.count)
    return fail(ErrorCode::kExists, "submission {} was sealed at {} tasks: no task {} can come", id,
                s.record.count, range.last - 1);
  return {};
}

Result<void> Core::Impl::take_chunks(Submission& s, const wire::SubmitPart& part,
                                     const std::vector<Bytes>& payload, RangeSet& taken) {
  for (std::size_t i = 0; i < part.chunks.size(); ++i) {
    const wire::ChunkMeta& meta = part.chunks[i];
    const IdBytes hash = content_id(payload[i].view());
    bool known = false;
    if (auto fine = check_chunk(s, meta, payload[i], hash, known); !fine) return fine;
    if (known) continue;
    auto blobs = blobs_of_chunk(s, meta, payload[i]);
    if (!blobs) return fail(blobs.error());
    add_chunk(s, meta, payload[i], hash);
    note_blobs(s, *blobs);
    taken.insert({meta.first, meta.first + static_cast<std::uint32_t>(meta.sizes.size())});
  }
  if (!taken.empty()) s.last_part = now_.mono;
  return {};
}

Result<std::vector<wire::BlobRef>> Core::Impl::blobs_of_chunk(const Submission& s,
                                                              const wire::ChunkMeta& meta,
                                                              const Bytes& data) const {
  std::vector<wire::BlobRef> all;
  std::size_t offset = 0;
  for (std::size_t i = 0; i < meta.sizes.size(); ++i) {
    const std::string_view set = data.view().substr(offset, meta.sizes[i]);
    offset += meta.sizes[i];
    if (set.empty() || set[0] != 'B') continue;
    auto blobs = blobs_of(
        s.user(), fmt::format("submission {}: task {}", s.id().string(), meta.first + i), set);
    if (!blobs) return fail(blobs.error());
    all.insert(all.end(), blobs->begin(), blobs->end());
  }
  return all;
}

void Core::Impl::add_chunk(Submission& s, const wire::ChunkMeta& meta, const Bytes& data,
                           IdBytes hash) {
  s.received.insert({meta.first, meta.first + static_cast<std::uint32_t>(meta.sizes.size())});
  s.chunks[meta.first] = Chunk{meta.sizes, hash, data.size()};
  chunk_cache_.put({s.id(), meta.first}, data, data.size() + 64);
  counters_.tasks_received += meta.sizes.size();
  write(PutChunk{s.id(), ChunkRecord{meta.first, meta.sizes, hash}, data});
}

Result<void> Core::Impl::seal(Submission& s, std::uint32_t count) {
  if (s.record.sealed && s.record.count != count)
    return fail(ErrorCode::kExists, "submission {} was sealed at {} tasks, not at {}",
                s.id().string(), s.record.count, count);
  if (!s.received.empty() && s.received.back_end() > count)
    return fail(ErrorCode::kInvalidArgument,
                "submission {} cannot be sealed at {} tasks: task {} is here", s.id().string(),
                count, s.received.back_end() - 1);
  if (s.record.sealed) return {};
  s.record.sealed = true;
  s.record.count = count;
  write(PutSubmission{s.record});
  progress_changed(s);
  note_if_finished(s);
  return {};
}

void Core::Impl::chunks_durable(SubmissionId id, const RangeSet& ranges) {
  Submission* s = find_submission(id);
  if (s == nullptr) return;
  s->durable.insert(ranges);
  RangeSet open = ranges;
  open.erase(s->final);
  s->pending.insert(open);
  queue(*s);
  progress_changed(*s);
}

void Core::Impl::note_if_finished(Submission& s) {
  if (s.record.finished_ms != 0 || !s.is_finished()) return;
  s.record.finished_ms = wall_ms();
  s.record.cancel_wished.clear();
  write(PutSubmission{s.record});
  log_info("submission {} of {} is finished: {} succeeded, {} failed, {} cancelled",
           s.id().string(), s.user(), s.by_state[0].count(), s.by_state[1].count(),
           s.by_state[2].count());
  if (Endpoint* e = find_endpoint(s.record.header.endpoint)) e->unfinished.erase(s.id());
  Function* function = find_function(s.user(), s.record.header.function);
  if (function != nullptr && function->unfinished > 0) --function->unfinished;
  release_blobs(s);
}

void Core::Impl::queue(Submission& s) {
  Endpoint* e = find_endpoint(s.record.header.endpoint);
  if (e == nullptr) return;
  const Endpoint::Place place{s.record.header.priority, s.record.received_ms, s.id()};
  if (!s.pending.empty()) {
    e->queue[s.user()].insert(place);
    deliver_to_.insert(e->record.id);
  } else if (auto found = e->queue.find(s.user()); found != e->queue.end()) {
    found->second.erase(place);
    if (found->second.empty()) e->queue.erase(found);
  }
}

}  // namespace farcall::relay
