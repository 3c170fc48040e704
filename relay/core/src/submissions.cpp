// Taking in functions and submissions.
#include "base/keys.h"
#include "base/log.h"
#include "messages.h"
#include "relay/core/relay.h"

namespace farcall::relay {

namespace {
std::uint64_t total(const wire::ChunkMeta& chunk) {
  std::uint64_t bytes = 0;
  for (std::uint32_t size : chunk.sizes) bytes += size;
  return bytes;
}
}  // namespace

Submission* Relay::find(const SubmissionId& id) {
  auto found = submissions_.find(id);
  return found == submissions_.end() ? nullptr : &found->second;
}

void Relay::store_row(const Submission& s) {
  write(SubmissionRow{s.header, s.sealed, s.count, s.cancel_wished, s.collected, s.changed_ms});
}

void Relay::register_function(PeerId peer, const Client& client, const Message& message) {
  auto request = wire::decode<wire::RegisterFunction>(message);
  if (!request) return bad_message(peer, request.error());
  if (message.payload.size() != 1)
    return reply(peer, request->request, fail(ErrorCode::kInvalidArgument, "a function needs one body"));
  const Bytes& body = message.payload[0];
  FunctionRecord& record = request->function;
  record.id = function_id(record.kind, record.name, body.view());
  Function& function = functions_[record.id];
  if (function.owners.empty()) {
    function.record = record;
    function.created_ms = now_ms();
    function.size = body.size();
  }
  function.body = body;
  if (function.owners.insert(client.user).second)
    write(FunctionRow{client.user, function.record, body, body.size(), function.created_ms});
  after_commit([this, peer, id = record.id, number = request->request] {
    reply(peer, number, Json{{"function_id", id.string()}});
  });
}

void Relay::submit(PeerId peer, Client& client, const Message& message) {
  auto request = wire::decode<wire::Submit>(message);
  if (!request) return bad_message(peer, request.error());
  std::size_t frames = 0;
  for (const auto& part : request->parts) frames += part.chunks.size();
  if (frames != message.payload.size())
    return bad_message(peer, {ErrorCode::kCorrupt, "a submission with another number of chunks than it says"});
  wire::SubmitAck ack;
  const Bytes* data = message.payload.data();
  for (auto& part : request->parts) {
    wire::SubmitResult result{part.submission, {}, false, 0, ""};
    const std::size_t count = part.chunks.size();
    const Error error = take_part(client, part, data, result.received);
    data += count;
    if (!error.message.empty()) {
      result.error = static_cast<std::int32_t>(error.code);
      result.text = error.message;
    } else {
      result.sealed = find(part.submission)->sealed;
    }
    ack.results.push_back(std::move(result));
  }
  after_commit([this, peer, ack] {
    for (const auto& result : ack.results) {
      Submission* submission = find(result.submission);
      if (submission == nullptr || result.error != 0) continue;
      RangeSet fresh = result.received.difference(submission->durable);
      submission->durable.insert(fresh);
      RangeSet unwanted = fresh.intersection(submission->cancel_wished).difference(submission->finals());
      submission->undelivered.insert(fresh.difference(unwanted).difference(submission->finals()));
      record_cancelled(*submission, unwanted);
      make_ready(*submission);
      touch(*submission);
    }
    if (clients_.count(peer) != 0) send_body(peer, ack);
    for (auto& [id, endpoint] : endpoints_) deliver(endpoint);
  });
}

// An empty message: fine. `received` holds what was new or known already.
Error Relay::take_part(Client& client, wire::SubmitPart& part, const Bytes* data, RangeSet& received) {
  auto opened = open_submission(client, part);
  if (!opened) return opened.error();
  Submission& submission = **opened;
  for (std::size_t i = 0; i < part.chunks.size(); ++i) {
    const Range range{part.chunks[i].first,
                      part.chunks[i].first + static_cast<std::uint32_t>(part.chunks[i].sizes.size())};
    if (auto taken = take_chunk(submission, part.chunks[i], data[i]); !taken) return taken.error();
    received.insert(range);
  }
  if (!part.seal) return {ErrorCode::kInternal, ""};
  if (submission.sealed && submission.count != part.count)
    return {ErrorCode::kExists, fmt::format("submission {} was sealed with {} tasks, not with {}",
                                            part.submission.string(), submission.count, part.count)};
  const RangeSet all{{0, part.count}};
  if (submission.received != all)
    return {ErrorCode::kInvalidArgument,
            fmt::format("submission {} cannot be sealed with {} tasks: those that have come are {}",
                        part.submission.string(), part.count, submission.received.string())};
  if (!submission.sealed) {
    submission.sealed = true;
    submission.count = part.count;
    store_row(submission);
  }
  return {ErrorCode::kInternal, ""};
}

Result<Submission*> Relay::open_submission(Client& client, wire::SubmitPart& part) {
  const std::string name = part.submission.string();
  if (Submission* known = find(part.submission)) {
    if (known->header.owner != client.user)
      return fail(ErrorCode::kExists, "submission id {} is taken", name);
    if (part.header) {
      part.header->owner = client.user;
      if (*part.header != known->header)
        return fail(ErrorCode::kExists, "submission {} is here already with another function, endpoint or options",
                    name);
    }
    return known;
  }
  if (tombstones_.count(part.submission) != 0)
    return fail(ErrorCode::kExists, "submission {} was here, was collected and has expired", name);
  if (!part.header) return fail(ErrorCode::kNotFound, "submission {} is not known and came without its header", name);
  SubmissionHeader& header = *part.header;
  auto function = functions_.find(header.function);
  if (function == functions_.end() || function->second.owners.count(client.user) == 0)
    return fail(ErrorCode::kNotFound, "function {} is not registered", header.function.string());
  auto endpoint = endpoints_.find(header.endpoint);
  if (endpoint == endpoints_.end() || endpoint->second.row.owner != client.user)
    return fail(ErrorCode::kNotFound, "endpoint {} is not registered: `farcall endpoint list` shows those that are",
                header.endpoint.string());
  if (header.submission != part.submission)
    return fail(ErrorCode::kInvalidArgument, "submission {} comes with the header of {}", name,
                header.submission.string());
  header.owner = client.user;
  Submission& submission = submissions_[part.submission];
  submission.header = header;
  submission.order = ++last_order_;
  submission.changed_ms = now_ms();
  store_row(submission);
  return &submission;
}

Result<void> Relay::take_chunk(Submission& submission, wire::ChunkMeta& meta, const Bytes& data) {
  const std::string name = submission.header.submission.string();
  const std::uint64_t bytes = total(meta);
  if (meta.sizes.empty() || meta.sizes.size() > wire::kChunkTasksMax || bytes != data.size() ||
      meta.first > UINT32_MAX - wire::kChunkTasksMax)
    return fail(ErrorCode::kCorrupt, "submission {}: a chunk from task {} on with {} tasks and {} bytes is not well "
                                     "formed",
                name, meta.first, meta.sizes.size(), data.size());
  for (std::size_t i = 0; i < meta.sizes.size(); ++i)
    if (meta.sizes[i] > settings_.inline_bytes_max)
      return fail(ErrorCode::kTooLarge,
                  "the arguments of task {} of submission {} have {} bytes, the relay takes up to {}: write them to a "
                  "file that the endpoint can read and send its path",
                  meta.first + i, name, meta.sizes[i], settings_.inline_bytes_max);
  const std::string hash = chunk_hash(meta, data);
  const Range range{meta.first, meta.first + static_cast<std::uint32_t>(meta.sizes.size())};
  if (auto known = submission.chunks.find(meta.first);
      known != submission.chunks.end() && known->second.hash == hash)
    return {};
  if (!submission.received.intersection(range).empty())
    return fail(ErrorCode::kExists, "submission {} already has other arguments for tasks {} to {}", name, range.first,
                range.last - 1);
  if (submission.sealed)
    return fail(ErrorCode::kInvalidArgument, "submission {} is sealed with {} tasks; task {} comes too late", name,
                submission.count, range.first);
  Chunk chunk{meta, hash, bytes, std::nullopt};
  if (cached_bytes_ + bytes <= settings_.cache_bytes_max) {
    chunk.cached = data;
    cached_bytes_ += bytes;
  }
  write(ChunkRow{submission.header.submission, meta, hash, data});
  submission.chunks.emplace(meta.first, std::move(chunk));
  submission.received.insert(range);
  submission.changed_ms = now_ms();
  return {};
}

}  // namespace farcall::relay
