// Large results: they stay at their endpoint until they are wanted, come to the relay then, and
// from there into a file here.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <future>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/keys.h"
#include "base/log.h"
#include "client_impl.h"
#include "farcall/files.h"
#include "wire/codec.h"

namespace farcall {

namespace {

constexpr blobs::Depot::Source kRelay = 1;
constexpr Duration kAskAgainMin = std::chrono::milliseconds(20);
constexpr Duration kAskAgainMax = std::chrono::milliseconds(500);

// The content of a file for as long as somebody holds it; the file itself can go.
Result<Bytes> map_file(const std::filesystem::path& path, std::size_t size) {
  if (size == 0) return Bytes();
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  void* memory = fd < 0 ? MAP_FAILED : ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  const int number = errno;
  if (fd >= 0) ::close(fd);
  if (memory == MAP_FAILED)
    return fail(ErrorCode::kIo, "cannot map {}: {}", path.string(), std::strerror(number));
  std::shared_ptr<const void> owner(memory, [size](void* mapped) { ::munmap(mapped, size); });
  return Bytes(std::move(owner), static_cast<const char*>(memory), size);
}

}  // namespace

// --- the I/O thread ------------------------------------------------------------------------------

// Made when the first large result is wanted. A folder of this process alone, which goes with it.
Result<void> Client::Impl::open_depot() {
  if (depot) return {};
  const std::filesystem::path home = options.home.empty() ? farcall_home() : options.home;
  cache = home / "cache" / fmt::format("{}-{}", ::getpid(), random_token(6));
  auto opened = blobs::Depot::open(
      {cache, 0}, [this](std::function<void()> action) { loop.post(std::move(action)); });
  if (!opened) return fail(opened.error());
  depot = std::move(*opened);
  depot->connect(kRelay, "", [this](const wire::Message& message) { dialer->send(message); });
  if (!welcomed) depot->disconnect(kRelay);
  return {};
}

void Client::Impl::depot_up() {
  if (depot)
    depot->connect(kRelay, "", [this](const wire::Message& message) { dialer->send(message); });
}
void Client::Impl::depot_down() {
  if (depot) depot->disconnect(kRelay);
}

void Client::Impl::on_blob_chunk(const wire::Message& message) {
  auto chunk = wire::decode<wire::BlobChunk>(message);
  if (!chunk) return damaged(chunk.error());
  if (depot) depot->take(kRelay, *chunk, message.payload.empty() ? Bytes() : message.payload[0]);
}

void Client::Impl::close_depot() {
  depot.reset();
  for (auto& [number, waiting] : std::exchange(fetches, {}))
    waiting->set_value(fail(ErrorCode::kCancelled, "the client was closed"));
  std::error_code error;
  if (!cache.empty()) std::filesystem::remove_all(cache, error);
}

// --- any thread ----------------------------------------------------------------------------------

Result<void> Client::Impl::fetch_from_relay(const wire::BlobRef& blob) {
  auto promise = std::make_shared<std::promise<Result<void>>>();
  auto outcome = promise->get_future();
  const bool posted = post([this, blob, promise] {
    if (auto opened = open_depot(); !opened) return promise->set_value(opened);
    const std::uint64_t number = ++last_fetch;
    fetches[number] = promise;
    depot->fetch(kRelay, blob, [this, number](const Result<void>& result) {
      if (auto found = fetches.extract(number)) found.mapped()->set_value(result);
    });
  });
  if (!posted) return fail(ErrorCode::kCancelled, "the client was closed");
  return outcome.get();
}

Result<std::filesystem::path> Client::fetch_blob(const TaskId& task, const StoredBlob& blob) {
  FARCALL_CHECK(!impl_->on_io_thread(), "a callback of a Client waits for the relay");
  const std::string parameters =
      nlohmann::json{{"task", task.string()}, {"hash", blob.hash}, {"size", blob.size}}.dump();
  Duration pause = kAskAgainMin;
  auto reached = std::chrono::steady_clock::now();
  for (;;) {
    auto answer = call("task.bring", parameters);
    const auto now = std::chrono::steady_clock::now();
    if (answer) reached = now;
    // An endpoint that is cut off comes back, and it goes on where it was.
    const bool patient = !answer && answer.error().code == ErrorCode::kUnreachable &&
                         now - reached < impl_->options.timeout;
    if (!answer && !patient)
      return fail(answer.error().code, "the result of task {}, {} bytes, cannot be had: {}",
                  task.string(), blob.size, answer.error().message);
    const auto reply =
        answer ? nlohmann::json::parse(answer->json, nullptr, false) : nlohmann::json::object();
    if (reply.is_object() && reply.value("here", false)) break;
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, kAskAgainMax);
  }
  if (auto fetched = impl_->fetch_from_relay({blob.hash, blob.size}); !fetched)
    return fail(fetched.error().code, "the result of task {}, {} bytes, cannot be had: {}",
                task.string(), blob.size, fetched.error().message);
  return impl_->cache / blob.hash;
}

Result<Bytes> Client::whole_value(const TaskId& task, const Bytes& data) {
  auto parts = result_parts(data.view());
  if (!parts) return fail(parts.error());
  if (!parts->value) return parts->rest.size() == data.size() ? data : Bytes::copy_of(parts->rest);
  auto file = fetch_blob(task, {parts->value->hash, parts->value->size});
  if (!file) return fail(file.error());
  return map_file(*file, parts->value->size);
}

}  // namespace farcall
