// Writing a submission from any thread.
#include "base/files.h"
#include "client_impl.h"

namespace farcall {

SubmissionWriter::Impl::Impl(SubmissionHeader header, SubmissionOptions options,
                             std::weak_ptr<Client::Impl> owner, const ClientOptions& limits,
                             std::uint64_t size_max)
    : id(header.submission),
      on_state(std::move(options.on_state)),
      client(std::move(owner)),
      window_bytes(limits.unacknowledged_bytes_max),
      argument_bytes_max(size_max),
      timeout(limits.timeout),
      upload(std::move(header), std::move(options.durable)) {}

void SubmissionWriter::Impl::poke() {
  {
    std::lock_guard lock(mutex);
    if (std::exchange(poked, true)) return;
  }
  auto alive = client.lock();
  const bool posted = alive && alive->post([impl = alive.get(), submission = id] {
    impl->uploads_to_send.insert(submission);
  });
  if (posted) return;
  std::lock_guard lock(mutex);
  client_gone = true;
  changed.notify_all();
}

SubmissionState SubmissionWriter::Impl::state_locked() const {
  return {id, upload.durable(), upload.sealed(), upload.error()};
}

bool SubmissionWriter::Impl::over_locked() const {
  if (upload.error()) return true;
  return upload.all_durable() && (upload.sealing() || abandoned);
}

Result<void> SubmissionWriter::Impl::wait_for_room(std::unique_lock<std::mutex>& lock) {
  while (upload.unacknowledged_bytes() >= window_bytes) {
    const std::uint64_t before = progress;
    const bool moved = changed.wait_for(
        lock, timeout, [&] { return progress != before || client_gone || upload.error(); });
    if (client_gone || upload.error()) break;
    if (!moved)
      return fail(ErrorCode::kTimeout,
                  "submission {}: the relay has acknowledged nothing for {} s; {} of {} tasks are "
                  "durable there",
                  id.string(), std::chrono::duration<double>(timeout).count(),
                  upload.durable().count(), upload.added());
  }
  if (upload.error()) return fail(*upload.error());
  if (client_gone)
    return fail(ErrorCode::kCancelled, "submission {}: the client was closed", id.string());
  return {};
}

SubmissionWriter::SubmissionWriter(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
SubmissionWriter::~SubmissionWriter() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->abandoned = true;
    impl_->upload.cut();
  }
  impl_->poke();
}

const SubmissionId& SubmissionWriter::id() const { return impl_->id; }

Result<std::uint32_t> SubmissionWriter::add(Bytes argument_set) {
  if (impl_->argument_bytes_max != 0 && argument_set.size() > impl_->argument_bytes_max)
    return fail(ErrorCode::kTooLarge,
                "the arguments of a task have {} bytes; in a message this relay takes {}: a "
                "command can have what is large as a file (farcall.File, `farcall run --input`)",
                argument_set.size(), impl_->argument_bytes_max);
  std::uint32_t index = 0;
  bool cut = false;
  {
    std::unique_lock lock(impl_->mutex);
    if (auto room = impl_->wait_for_room(lock); !room) return fail(room.error());
    if (impl_->upload.sealing())
      return fail(ErrorCode::kInvalidArgument, "submission {} is sealed: no task can be added",
                  impl_->id.string());
    const std::size_t before = impl_->upload.unacknowledged_bytes();
    index = impl_->upload.add(argument_set);
    cut = impl_->upload.unacknowledged_bytes() != before;
  }
  if (cut) impl_->poke();
  return index;
}

void SubmissionWriter::flush() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->upload.cut();
  }
  impl_->poke();
}

void SubmissionWriter::seal() {
  {
    std::lock_guard lock(impl_->mutex);
    if (!impl_->upload.sealing()) impl_->upload.seal();
  }
  impl_->poke();
}

Result<void> SubmissionWriter::wait_durable(Duration timeout) {
  std::unique_lock lock(impl_->mutex);
  auto decided = [this] {
    return impl_->upload.all_durable() || impl_->client_gone || impl_->upload.error();
  };
  const auto limit = std::min(timeout, Duration(std::chrono::hours(24 * 365)));
  const bool in_time = impl_->changed.wait_for(lock, limit, decided);
  if (impl_->upload.error()) return fail(*impl_->upload.error());
  if (impl_->upload.all_durable()) return {};
  const std::string state =
      fmt::format("{} of {} tasks of submission {} are durable at the relay",
                  impl_->upload.durable().count(), impl_->upload.added(), impl_->id.string());
  if (!in_time) return fail(ErrorCode::kTimeout, "{} so far", state);
  return fail(ErrorCode::kCancelled, "{} and the client was closed", state);
}

SubmissionState SubmissionWriter::state() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->state_locked();
}

std::uint32_t SubmissionWriter::added() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->upload.added();
}

std::unique_ptr<SubmissionWriter> Client::open_submission(SubmissionHeader header,
                                                          SubmissionOptions options) {
  if (header.submission.is_nil()) header.submission = new_submission_id();
  if (header.created_ms == 0) header.created_ms = read_clock().wall.milliseconds_since_epoch();
  auto writer = std::make_shared<SubmissionWriter::Impl>(
      std::move(header), std::move(options), impl_, impl_->options, relay().inline_bytes_max);
  impl_->add_upload(writer);
  return std::make_unique<SubmissionWriter>(std::move(writer));
}

Result<SubmissionId> Client::submit(SubmissionHeader header, std::vector<Bytes> argument_sets) {
  auto writer = open_submission(std::move(header));
  for (Bytes& argument_set : argument_sets)
    if (auto added = writer->add(std::exchange(argument_set, {})); !added)
      return fail(added.error());
  writer->seal();
  if (auto durable = writer->wait_durable(impl_->options.timeout); !durable)
    return fail(durable.error());
  return writer->id();
}

}  // namespace farcall
