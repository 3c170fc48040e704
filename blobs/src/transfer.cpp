#include "blobs/transfer.h"

#include <algorithm>
#include <utility>

namespace farcall::blobs {

Transfer::Blob* Transfer::find(const std::string& hash, Stage stage) {
  auto found = wanted_.find(hash);
  return found != wanted_.end() && found->second.stage == stage ? &found->second : nullptr;
}

void Transfer::want(const wire::BlobRef& ref) {
  if (!wanted_.try_emplace(ref.hash, Blob{ref}).second) return;
  waiting_.push_back(ref.hash);
  pump();
}

void Transfer::up() {
  up_ = true;
  pump();
}

void Transfer::down() {
  up_ = false;
  for (auto& [hash, blob] : wanted_) {
    blob.asked = blob.received;
    blob.asks = 0;
  }
}

void Transfer::opened(const std::string& hash, std::uint64_t have) {
  Blob* blob = find(hash, Stage::kOpening);
  if (blob == nullptr) return;
  blob->stage = Stage::kMoving;
  blob->asked = blob->received = blob->written = have;
  close_if_whole(*blob);
  pump();
}

void Transfer::chunk(const wire::BlobChunk& chunk, Bytes data) {
  Blob* blob = find(chunk.blob.hash, Stage::kMoving);
  // An answer to a question of an earlier life of it.
  if (blob == nullptr || blob->asks == 0 || chunk.offset != blob->received) return;
  if (chunk.error != 0)
    return end(chunk.blob.hash, fail(Error{error_from_number(chunk.error), chunk.text}));
  const std::uint64_t expected =
      std::min<std::uint64_t>(limits_.chunk_bytes, blob->ref.size - chunk.offset);
  if (data.size() != expected)
    return end(chunk.blob.hash,
               fail(ErrorCode::kCorrupt, "blob {}: {} bytes came from offset {} on, asked for {}",
                    chunk.blob.hash, data.size(), chunk.offset, expected));
  blob->received += data.size();
  --blob->asks;
  ++blob->writes;
  effects_.push_back(Write{blob->ref, chunk.offset, std::move(data)});
}

void Transfer::written(const std::string& hash, std::uint64_t bytes) {
  Blob* blob = find(hash, Stage::kMoving);
  if (blob == nullptr || blob->writes == 0) return;
  --blob->writes;
  blob->written += bytes;
  close_if_whole(*blob);
  pump();
}

void Transfer::close_if_whole(Blob& blob) {
  if (blob.written != blob.ref.size) return;
  blob.stage = Stage::kClosing;
  effects_.push_back(Close{blob.ref});
}

void Transfer::closed(const std::string& hash) {
  if (find(hash, Stage::kClosing) != nullptr) end(hash, {});
}

void Transfer::broken(const std::string& hash, Error error) {
  auto found = wanted_.find(hash);
  if (found == wanted_.end() || found->second.stage == Stage::kWaiting) return;
  Blob& blob = found->second;
  // What lay there from an earlier life may have been damaged: once more, from the start.
  if (blob.stage == Stage::kClosing && error.code == ErrorCode::kCorrupt && !blob.tried_again) {
    blob = Blob{blob.ref, Stage::kOpening};
    blob.tried_again = true;
    effects_.push_back(Open{blob.ref});
    return;
  }
  end(hash, fail(std::move(error)));
}

void Transfer::end(const std::string& hash, Result<void> outcome) {
  auto found = wanted_.find(hash);
  effects_.push_back(Ended{found->second.ref, std::move(outcome)});
  std::erase(found->second.stage == Stage::kWaiting ? waiting_ : active_, hash);
  wanted_.erase(found);
  pump();
}

void Transfer::abandon(const Error& why) {
  while (!wanted_.empty()) end(std::string(wanted_.begin()->first), fail(Error(why)));
}

// Everybody in turn, so that a small blob does not wait for the end of a large one.
void Transfer::pump() {
  while (active_.size() < limits_.blobs_at_once && !waiting_.empty()) {
    Blob& blob = wanted_.at(waiting_.front());
    waiting_.pop_front();
    blob.stage = Stage::kOpening;
    active_.push_back(blob.ref.hash);
    effects_.push_back(Open{blob.ref});
  }
  if (!up_) return;
  std::uint32_t under_way = 0;
  for (const std::string& hash : active_)
    under_way += wanted_.at(hash).asks + wanted_.at(hash).writes;
  std::size_t nothing_left = 0;
  while (under_way < limits_.chunks_under_way && nothing_left < active_.size()) {
    active_.push_back(std::move(active_.front()));
    active_.pop_front();
    Blob& blob = wanted_.at(active_.back());
    if (blob.stage != Stage::kMoving || blob.asked == blob.ref.size) {
      ++nothing_left;
      continue;
    }
    nothing_left = 0;
    const auto size = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(limits_.chunk_bytes, blob.ref.size - blob.asked));
    effects_.push_back(Ask{{blob.ref, blob.asked, size}});
    blob.asked += size;
    ++blob.asks;
    ++under_way;
  }
}

std::vector<Transfer::Effect> Transfer::take_effects() { return std::exchange(effects_, {}); }

std::string Transfer::sanity_check() const {
  std::uint32_t under_way = 0;
  for (const auto& [hash, blob] : wanted_) {
    if (blob.written > blob.received || blob.received > blob.asked || blob.asked > blob.ref.size)
      return "blob " + hash + ": more is written than came, or more came than was asked for";
    const bool waits = std::find(waiting_.begin(), waiting_.end(), hash) != waiting_.end();
    const bool active = std::find(active_.begin(), active_.end(), hash) != active_.end();
    if (waits == active || waits != (blob.stage == Stage::kWaiting))
      return "blob " + hash + " is in the wrong list";
    under_way += blob.asks + blob.writes;
  }
  if (active_.size() > limits_.blobs_at_once) return "too many blobs at once";
  if (under_way > limits_.chunks_under_way) return "too many chunks are under way";
  return "";
}

}  // namespace farcall::blobs
