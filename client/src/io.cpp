// The I/O thread of a client: one session after the other with the relay.
#include <unistd.h>

#include "base/files.h"
#include "base/log.h"
#include "client_impl.h"
#include "wire/codec.h"

namespace farcall {

namespace {
constexpr std::size_t kPartBytes = 2 << 20;     // of one submission in one message
constexpr std::size_t kMessageBytes = 4 << 20;  // of all submissions in one message
}  // namespace

void Client::Impl::run() {
  io_thread = std::this_thread::get_id();
  wire::DialerHandlers handlers;
  handlers.make_hello = [this] { return hello(); };
  handlers.on_message = [this](const wire::Message& message) { on_message(message); };
  handlers.on_down = [this](const Error& error) { on_down(error); };
  handlers.on_refused = [this](const Error& error) { on_refused(error); };
  wire::DialerOptions dial;
  dial.addresses = {address};
  dial.server_key = identity.server_key;
  dial.keys = identity.keys;
  dialer = std::make_unique<wire::Dialer>(loop, std::move(dial), std::move(handlers));
  loop.after_each_turn([this] { pump(); });
  loop.run();
  {
    std::lock_guard lock(mutex);
    phase = Phase::kStopped;
  }
  loop.run_once(Duration(0));  // what was posted before it stopped
  fail_everything();
  close_depot();
  dialer.reset();
  changed.notify_all();
}

wire::Message Client::Impl::hello() const {
  wire::ClientHello hello;
  hello.hello.software = "farcall 0.1.0";
  hello.hello.host = host_name();
  hello.hello.pid = ::getpid();
  hello.invitation = options.invitation;
  return wire::make_message(hello);
}

void Client::Impl::on_message(const wire::Message& message) {
  switch (message.type) {
    case wire::MessageType::kClientWelcome:
      return on_welcome(message);
    case wire::MessageType::kReply:
      return on_reply(message);
    case wire::MessageType::kSubmitAck:
      return on_submit_ack(message);
    case wire::MessageType::kTaskResults:
      return on_results(message);
    case wire::MessageType::kProgress:
      return on_progress(message);
    case wire::MessageType::kBlobGet:
      return on_blob_get(message);
    case wire::MessageType::kBlobChunk:
      return on_blob_chunk(message);
    case wire::MessageType::kBlobState:
      return on_blob_state(message);
    default:
      log_debug("a message of type {} is not for clients", static_cast<int>(message.type));
  }
}

void Client::Impl::on_welcome(const wire::Message& message) {
  auto welcome = wire::decode<wire::ClientWelcome>(message);
  if (!welcome) return damaged(welcome.error());
  {
    std::lock_guard lock(mutex);
    phase = Phase::kUp;
    if (info.generation != welcome->generation) registered.clear();
    info = {address, welcome->relay, welcome->user, welcome->generation, welcome->inline_bytes_max};
  }
  changed.notify_all();
  welcomed = true;
  credit.restart();
  for (auto& [id, writer] : uploads) {
    std::lock_guard lock(writer->mutex);
    writer->upload.restart();
    uploads_to_send.insert(id);
  }
  for (auto& [id, entry] : watched) {
    entry.sent = false;
    watches_to_send.insert(id);
  }
  for (auto& [id, indices] : std::exchange(collected_sent, {}))
    collected_to_send[id].insert(indices);
  pump_credit();
  offer_blobs_again();
  depot_up();
  for (auto& [number, call] : calls)
    if (!dialer->send(call.message)) return;
  if (options.on_connection) options.on_connection(std::nullopt);
}

void Client::Impl::on_down(const Error& error) {
  welcomed = false;
  depot_down();
  bool was_up = false;
  {
    std::lock_guard lock(mutex);
    was_up = phase == Phase::kUp;
    if (phase != Phase::kStopped) phase = Phase::kDown;
    last_error = error;
  }
  changed.notify_all();
  if (was_up && options.on_connection) options.on_connection(explain(error));
}

void Client::Impl::on_refused(const Error& error) {
  {
    std::lock_guard lock(mutex);
    phase = Phase::kRefused;
    last_error = error;
  }
  changed.notify_all();
  fail_everything();
  if (options.on_connection) options.on_connection(explain(error));
}

void Client::Impl::damaged(const Error& error) {
  log_warn("the relay at {} sent something damaged: {}", address, error.message);
  dialer->restart(error.message);
}

void Client::Impl::on_reply(const wire::Message& message) {
  auto reply = wire::decode<wire::Reply>(message);
  if (!reply) return damaged(reply.error());
  if (reply->request >= collected_mark) collected_sent.clear();
  if (reply->error != 0)
    return finish_call(reply->request, fail(Error{error_from_number(reply->error), reply->text}));
  CallAnswer answer;
  if (!message.payload.empty()) {
    answer.json = message.payload[0].string();
    answer.payload.assign(message.payload.begin() + 1, message.payload.end());
  }
  finish_call(reply->request, std::move(answer));
}

void Client::Impl::finish_call(std::uint64_t number, Result<CallAnswer> answer) {
  auto found = calls.find(number);
  if (found == calls.end()) return;  // timed out before
  PendingCall call = std::move(found->second);
  calls.erase(found);
  if (call.timer) loop.cancel_timer(call.timer);
  call.done(std::move(answer));
}

void Client::Impl::on_submit_ack(const wire::Message& message) {
  auto ack = wire::decode<wire::SubmitAck>(message);
  if (!ack) return damaged(ack.error());
  for (const wire::SubmitResult& result : ack->results) {
    auto found = uploads.find(result.submission);
    if (found == uploads.end()) continue;
    const std::shared_ptr<SubmissionWriter::Impl> writer = found->second;
    SubmissionState state;
    bool over = false;
    {
      std::lock_guard lock(writer->mutex);
      writer->upload.acknowledge(result);
      ++writer->progress;
      state = writer->state_locked();
      over = writer->over_locked();
    }
    writer->changed.notify_all();
    if (over) uploads.erase(result.submission);
    if (watched.contains(result.submission)) watches_to_send.insert(result.submission);
    if (writer->on_state) writer->on_state(state);
  }
}

namespace {
// Gives the credit back when the last holder of a batch lets go.
struct Lease {
  std::weak_ptr<Client::Impl> client;
  std::uint64_t tasks = 0, bytes = 0;
  ~Lease() {
    if (auto alive = client.lock()) alive->release(tasks, bytes);
  }
};
}  // namespace

void Client::Impl::on_results(const wire::Message& message) {
  auto results = wire::decode<wire::TaskResults>(message);
  if (!results) return damaged(results.error());
  const Bytes data = message.payload.empty() ? Bytes() : message.payload[0];
  std::uint64_t tasks = 0, bytes = 0;
  for (const auto& group : results->results) {
    tasks += group.outcomes.size();
    for (const auto& outcome : group.outcomes) bytes += outcome.data_size;
  }
  if (bytes != data.size())
    return damaged(
        {ErrorCode::kCorrupt, fmt::format("results of {} bytes came with {}", bytes, data.size())});
  credit.receive(tasks, bytes);
  auto lease = std::make_shared<Lease>();
  lease->client = weak_from_this();
  lease->tasks = tasks;
  lease->bytes = bytes;
  std::size_t offset = 0;
  for (auto& group : results->results) deliver(group, data, offset, lease);
}

void Client::Impl::deliver(wire::SubmissionOutcomes& group, const Bytes& data, std::size_t& offset,
                           const std::shared_ptr<const void>& lease) {
  auto found = watched.find(group.submission);
  OutcomeBatch batch{group.submission, {}, lease};
  for (TaskOutcome& outcome : group.outcomes) {
    const std::size_t begin = offset;
    offset += outcome.data_size;
    if (found == watched.end() || found->second.have.contains(outcome.index)) continue;
    found->second.have.insert(outcome.index);
    Bytes value = data.slice(begin, outcome.data_size);
    batch.outcomes.push_back({std::move(outcome), std::move(value)});
  }
  if (batch.outcomes.empty()) return;
  const auto handlers = found->second.handlers;  // the callback may end the watch
  if (handlers->on_outcomes) handlers->on_outcomes(std::move(batch));
}

void Client::Impl::on_progress(const wire::Message& message) {
  auto progress = wire::decode<wire::Progress>(message);
  if (!progress) return damaged(progress.error());
  for (wire::ProgressItem& item : progress->items) {
    auto found = watched.find(item.submission);
    if (found == watched.end()) continue;
    SubmissionProgress state{item.submission,         item.received, item.sealed,
                             item.succeeded,          item.failed,   item.cancelled,
                             std::move(item.running), std::nullopt};
    if (item.error != 0)
      state.error =
          Error{error_from_number(item.error),
                fmt::format("the relay knows no submission {} of yours", item.submission.string())};
    const auto handlers = found->second.handlers;
    if (handlers->on_progress) handlers->on_progress(state);
  }
}

void Client::Impl::pump() {
  if (!welcomed) return;
  pump_uploads();
  pump_watches();
  pump_collected();
  pump_credit();
}

namespace {
bool over(SubmissionWriter::Impl& writer) {
  std::lock_guard lock(writer.mutex);
  return writer.over_locked();
}
}  // namespace

void Client::Impl::pump_uploads() {
  while (welcomed && !uploads_to_send.empty()) {
    wire::Submit submit;
    std::vector<Bytes> payload;
    std::size_t bytes = 0;
    while (!uploads_to_send.empty() && bytes < kMessageBytes) {
      const SubmissionId id = *uploads_to_send.begin();
      auto found = uploads.find(id);
      std::optional<client::Upload::Part> part;
      if (found != uploads.end()) {
        std::lock_guard lock(found->second->mutex);
        found->second->poked = false;
        part = found->second->upload.next_part(kPartBytes);
      }
      if (!part) {
        uploads_to_send.erase(id);
        if (found != uploads.end() && over(*found->second)) uploads.erase(found);
        continue;
      }
      bytes += part->bytes + 64;
      submit.parts.push_back(std::move(part->part));
      std::move(part->payload.begin(), part->payload.end(), std::back_inserter(payload));
    }
    if (!submit.parts.empty()) dialer->send(wire::make_message(submit, std::move(payload)));
  }
}

// A submission that is still on its way to the relay is no submission there yet.
bool Client::Impl::relay_knows(const SubmissionId& id) const {
  auto found = uploads.find(id);
  if (found == uploads.end()) return true;
  std::lock_guard lock(found->second->mutex);
  return found->second->upload.known_to_relay();
}

void Client::Impl::pump_watches() {
  if (!welcomed || watches_to_send.empty()) return;
  wire::Watch watch;
  for (const SubmissionId& id : std::exchange(watches_to_send, {})) {
    auto found = watched.find(id);
    if (found == watched.end()) {
      watch.items.push_back({id, {}, false, true});
      continue;
    }
    if (found->second.sent || !relay_knows(id)) continue;
    found->second.sent = true;
    watch.items.push_back({id, found->second.have, found->second.outcomes, false});
  }
  if (!watch.items.empty()) dialer->send(wire::make_message(watch));
}

void Client::Impl::pump_collected() {
  if (!welcomed || collected_to_send.empty()) return;
  wire::Collected collected;
  for (auto& [id, indices] : std::exchange(collected_to_send, {})) {
    collected.items.push_back({id, indices});
    collected_sent[id].insert(indices);
  }
  collected_mark = last_request + 1;
  dialer->send(wire::make_message(collected));
}

void Client::Impl::pump_credit() {
  {
    std::lock_guard lock(mutex);
    credit.release(std::exchange(released_tasks, 0), std::exchange(released_bytes, 0));
    release_posted = false;
  }
  if (!welcomed) return;
  if (auto grant = credit.take_grant()) dialer->send(wire::make_message(*grant));
}

void Client::Impl::fail_everything() {
  Error why{ErrorCode::kCancelled, "the client was closed"};
  {
    std::lock_guard lock(mutex);
    if (phase == Phase::kRefused) why = explain(last_error);
  }
  while (!calls.empty()) finish_call(calls.begin()->first, fail(why));
  while (!blob_uploads.empty()) end_blob(std::string(blob_uploads.begin()->first), fail(why));
  for (auto& [id, writer] : std::exchange(uploads, {})) {
    SubmissionState state;
    {
      std::lock_guard lock(writer->mutex);
      writer->client_gone = true;
      state = writer->state_locked();
    }
    writer->changed.notify_all();
    state.error = why;
    if (writer->on_state) writer->on_state(state);
  }
}

}  // namespace farcall
