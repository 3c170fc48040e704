// Bringing blobs to the relay: they are offered, and the relay asks for what it has not got.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/hasher.h"
#include "base/log.h"
#include "client_impl.h"
#include "wire/codec.h"

namespace farcall {

namespace {

// Bytes that lie in several places, as one.
class Memory {
 public:
  explicit Memory(std::vector<std::string_view> parts) : parts_(std::move(parts)) {}

  StoredBlob blob() const {
    StoredBlob blob;
    ContentHasher hasher;
    for (std::string_view part : parts_) {
      hasher.add(part);
      blob.size += part.size();
    }
    blob.hash = hasher.finish();
    return blob;
  }
  // A copy: what is sent may lie in a socket's queue after its owner has gone on.
  Result<Bytes> read(std::uint64_t offset, std::size_t size) const {
    std::string out;
    out.reserve(size);
    for (std::string_view part : parts_) {
      if (offset >= part.size()) {
        offset -= part.size();
        continue;
      }
      out += part.substr(offset, size - out.size());
      offset = 0;
      if (out.size() == size) break;
    }
    return Bytes(std::move(out));
  }

 private:
  std::vector<std::string_view> parts_;
};

class File {
 public:
  static Result<std::shared_ptr<File>> open(const std::filesystem::path& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
      return fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "cannot open {}: {}",
                  path.string(), std::strerror(errno));
    return std::make_shared<File>(fd, path);
  }
  File(int fd, std::filesystem::path path) : fd_(fd), path_(std::move(path)) {}
  ~File() { ::close(fd_); }
  File(const File&) = delete;

  Result<StoredBlob> blob() const {
    struct stat status {};
    if (::fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode))
      return fail(ErrorCode::kInvalidArgument, "{} is no regular file", path_.string());
    StoredBlob blob;
    ContentHasher hasher;
    const auto size = static_cast<std::uint64_t>(status.st_size);
    while (blob.size < size) {
      auto piece =
          read(blob.size, std::min<std::uint64_t>(size - blob.size, wire::kBlobChunkBytes));
      if (!piece) return fail(piece.error());
      hasher.add(piece->view());
      blob.size += piece->size();
    }
    blob.hash = hasher.finish();
    return blob;
  }
  Result<Bytes> read(std::uint64_t offset, std::size_t size) const {
    std::string out(size, '\0');
    std::size_t done = 0;
    while (done < size) {
      const ssize_t got =
          ::pread(fd_, out.data() + done, size - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0)
        return fail(ErrorCode::kIo, "cannot read {}: {}", path_.string(), std::strerror(errno));
      if (got == 0)
        return fail(ErrorCode::kIo, "{} became shorter while it was read", path_.string());
      done += static_cast<std::size_t>(got);
    }
    return Bytes(std::move(out));
  }

 private:
  int fd_;
  std::filesystem::path path_;
};

}  // namespace

// --- the I/O thread ------------------------------------------------------------------------------

void Client::Impl::offer_blob(const wire::BlobRef& blob, BlobUpload upload) {
  auto [entry, is_new] = blob_uploads.try_emplace(blob.hash);
  entry->second.push_back(std::move(upload));
  if (!is_new) return;  // the same bytes are on their way
  if (welcomed) dialer->send(wire::make_message(wire::BlobOffer{{blob}}));
}

void Client::Impl::offer_blobs_again() {
  wire::BlobOffer offer;
  for (const auto& [hash, uploads_of] : blob_uploads)
    offer.blobs.push_back({hash, uploads_of.front().size});
  if (!offer.blobs.empty()) dialer->send(wire::make_message(offer));
}

void Client::Impl::on_blob_get(const wire::Message& message) {
  auto get = wire::decode<wire::BlobGet>(message);
  if (!get) return damaged(get.error());
  wire::BlobChunk chunk{get->blob, get->offset, 0, ""};
  auto found = blob_uploads.find(get->blob.hash);
  Result<Bytes> bytes = fail(ErrorCode::kNotFound, "the client has given it up");
  if (found != blob_uploads.end() && get->size <= wire::kBlobChunkBytes &&
      get->offset + get->size <= found->second.front().size) {
    for (const BlobUpload& upload : found->second) ++*upload.progress;
    bytes = found->second.front().read(get->offset, get->size);
  }
  std::vector<Bytes> payload;
  if (bytes) {
    payload.push_back(std::move(*bytes));
  } else {
    chunk.error = static_cast<std::int32_t>(bytes.error().code);
    chunk.text = bytes.error().message;
  }
  dialer->send(wire::make_message(chunk, std::move(payload)));
}

void Client::Impl::on_blob_state(const wire::Message& message) {
  auto state = wire::decode<wire::BlobState>(message);
  if (!state) return damaged(state.error());
  Result<void> outcome;
  if (state->error != 0) outcome = fail(Error{error_from_number(state->error), state->text});
  end_blob(state->blob.hash, outcome);
}

void Client::Impl::end_blob(const std::string& hash, const Result<void>& outcome) {
  auto found = blob_uploads.find(hash);
  if (found == blob_uploads.end()) return;
  auto over = std::move(found->second);
  blob_uploads.erase(found);
  for (BlobUpload& upload : over) upload.done(outcome);
}

void Client::Impl::drop_blob_upload(const std::string& hash, const void* owner) {
  auto found = blob_uploads.find(hash);
  if (found == blob_uploads.end()) return;
  std::erase_if(found->second,
                [owner](const BlobUpload& upload) { return upload.progress.get() == owner; });
  if (found->second.empty()) blob_uploads.erase(found);
}

// --- any thread ----------------------------------------------------------------------------------

Result<StoredBlob> Client::Impl::store(const StoredBlob& blob, BlobReader read) {
  FARCALL_CHECK(!on_io_thread(), "a callback of a Client waits for the relay");
  struct Wait {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<Result<void>> outcome;
  };
  auto wait = std::make_shared<Wait>();
  auto progress = std::make_shared<std::atomic<std::uint64_t>>(0);
  BlobUpload upload{blob.size, std::move(read), progress, [wait](const Result<void>& outcome) {
                      std::lock_guard lock(wait->mutex);
                      wait->outcome = outcome;
                      wait->changed.notify_all();
                    }};
  const wire::BlobRef ref{blob.hash, blob.size};
  if (!post([this, ref, upload] { offer_blob(ref, upload); }))
    return fail(ErrorCode::kCancelled, "the client was closed");
  std::unique_lock lock(wait->mutex);
  std::uint64_t seen = 0;
  while (
      !wait->changed.wait_for(lock, options.timeout, [&] { return wait->outcome.has_value(); })) {
    const std::uint64_t now = *progress;
    if (std::exchange(seen, now) != now) continue;
    // The caller's bytes must not be read any more when this returns.
    lock.unlock();
    auto dropped = std::make_shared<std::promise<void>>();
    if (post([this, ref, progress, dropped] {
          drop_blob_upload(ref.hash, progress.get());
          dropped->set_value();
        }))
      dropped->get_future().wait();
    lock.lock();
    if (wait->outcome) break;
    return fail(ErrorCode::kTimeout, "the relay at {} took nothing of blob {} of {} bytes for {} s",
                address, blob.hash, blob.size,
                std::chrono::duration<double>(options.timeout).count());
  }
  if (!*wait->outcome) {
    const Error& error = wait->outcome->error();
    return fail(error.code, "the relay at {} could not keep {} bytes: {}", address, blob.size,
                error.message);
  }
  return blob;
}

Result<StoredBlob> Client::store_bytes(const std::vector<std::string_view>& parts) {
  const Memory memory(parts);
  return impl_->store(memory.blob(), [memory](std::uint64_t offset, std::size_t size) {
    return memory.read(offset, size);
  });
}

Result<StoredBlob> Client::store_file(const std::filesystem::path& path) {
  auto file = File::open(path);
  if (!file) return fail(file.error());
  auto blob = (*file)->blob();
  if (!blob) return fail(blob.error());
  return impl_->store(*blob, [kept = *file](std::uint64_t offset, std::size_t size) {
    return kept->read(offset, size);
  });
}

}  // namespace farcall
