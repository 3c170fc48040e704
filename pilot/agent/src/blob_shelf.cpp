#include "blob_shelf.h"

#include "base/log.h"
#include "wire/codec.h"

namespace farcall::pilot {

namespace {
constexpr blobs::Depot::Source kInterchange = 1;
// What is not needed at the moment and was fetched stays on the node up to this.
constexpr std::uint64_t kKeptBytes = 4ULL << 30;
}  // namespace

BlobShelf::BlobShelf(std::filesystem::path directory, blobs::Depot::Post post, Send send,
                     Ready ready)
    : directory_(std::move(directory)),
      post_(std::move(post)),
      send_(std::move(send)),
      ready_(std::move(ready)) {
  auto depot = blobs::Depot::open({directory_, kKeptBytes}, post_);
  if (depot)
    depot_ = std::move(*depot);
  else
    no_depot_ = depot.error();
  if (depot_ == nullptr) log_warn("no blobs can be fetched to this node: {}", no_depot_.message);
}

void BlobShelf::up() {
  up_ = true;
  if (depot_ != nullptr)
    depot_->connect(kInterchange, "", [this](const wire::Message& message) { send_(message); });
  for (const auto& [hash, wanted] : wanted_) ask(wanted.blob, wanted.damaged);
}

void BlobShelf::down() {
  up_ = false;
  if (depot_ != nullptr) depot_->disconnect(kInterchange);
}

bool BlobShelf::on_message(const wire::Message& message) {
  if (message.type == wire::MessageType::kBlobChunk) {
    auto chunk = wire::decode<wire::BlobChunk>(message);
    if (chunk && depot_ != nullptr)
      depot_->take(kInterchange, *chunk, message.payload.empty() ? Bytes() : message.payload[0]);
    return true;
  }
  if (message.type != wire::MessageType::kBlobState) return false;
  if (auto state = wire::decode<wire::BlobState>(message)) {
    if (state->error != 0)
      end(state->blob.hash, fail(Error{error_from_number(state->error), state->text}));
    else if (wanted_.contains(state->blob.hash))
      told(wanted_.at(state->blob.hash).blob, state->file);
  }
  return true;
}

void BlobShelf::get(const wire::BlobRef& blob) {
  if (depot_ != nullptr) depot_->pin("", blob.hash);
  wanted_[blob.hash] = {blob, false};
  if (up_) ask(blob, false);
}

void BlobShelf::drop(const std::string& hash) {
  if (depot_ != nullptr) depot_->unpin("", hash);
  wanted_.erase(hash);
}

void BlobShelf::ask(const wire::BlobRef& blob, bool damaged) {
  send_(wire::make_message(wire::BlobWant{{blob}, damaged}));
}

// The endpoint has it. A file that can be seen from here is read once, all of it: what is not what
// it should be must not become an argument.
void BlobShelf::told(wire::BlobRef blob, const std::string& file) {
  std::error_code error;
  const bool visible = std::filesystem::file_size(file, error) == blob.size && !error;
  if (!visible) return fetch(blob);
  if (verified_.contains(blob.hash)) return end(blob.hash, file);
  if (depot_ == nullptr) return end(blob.hash, fail(no_depot_));
  depot_->verify(file, blob, [this, blob, file](const Result<void>& good) {
    auto wanted = wanted_.find(blob.hash);
    if (good) verified_.insert(blob.hash);
    if (good || wanted == wanted_.end()) return end(blob.hash, file);
    if (std::exchange(wanted->second.damaged, true)) return fetch(blob);
    log_warn("{}", good.error().message);
    if (up_) ask(blob, true);
  });
}

void BlobShelf::fetch(const wire::BlobRef& blob) {
  if (depot_ == nullptr) return end(blob.hash, fail(no_depot_));
  depot_->fetch(kInterchange, blob, [this, blob](const Result<void>& outcome) {
    if (outcome)
      end(blob.hash, depot_->file("", blob.hash).string());
    else
      end(blob.hash, fail(outcome.error()));
  });
}

void BlobShelf::end(const std::string& hash, const Result<std::string>& file) {
  if (wanted_.erase(hash) > 0) ready_(hash, file);
}

}  // namespace farcall::pilot
