#include "upload.h"

#include <utility>

namespace farcall::client {

Upload::Upload(SubmissionHeader header, RangeSet durable)
    : header_(std::move(header)), durable_(std::move(durable)) {}

std::uint32_t Upload::add(const Bytes& argument_set) {
  FARCALL_CHECK(!sealing_,
                "a task was added to submission " + header_.submission.string() + " after seal()");
  const bool full = current_data_.size() + argument_set.size() > wire::kChunkBytesMax;
  if (full && !current_.sizes.empty()) cut();
  if (current_.sizes.empty()) current_.first = added_;
  current_.sizes.push_back(static_cast<std::uint32_t>(argument_set.size()));
  current_data_.append(argument_set.view());
  const std::uint32_t index = added_++;
  if (current_.sizes.size() == wire::kChunkTasksMax || current_data_.size() >= wire::kChunkBytesMax)
    cut();
  return index;
}

void Upload::cut() {
  if (current_.sizes.empty()) return;
  Chunk chunk{std::move(current_), Bytes(std::move(current_data_))};
  current_ = {};
  current_data_.clear();
  if (error_ || durable_.contains(chunk.range())) return;
  unacknowledged_bytes_ += chunk.cost();
  chunks_.push_back(std::move(chunk));
}

void Upload::seal() {
  FARCALL_CHECK(!sealing_, "submission " + header_.submission.string() + " was sealed twice");
  cut();
  sealing_ = true;
}

std::optional<Upload::Part> Upload::next_part(std::size_t bytes_max) {
  if (error_) return std::nullopt;
  Part result;
  while (next_unsent_ < chunks_.size() && (result.payload.empty() || result.bytes < bytes_max)) {
    const Chunk& chunk = chunks_[next_unsent_++];
    result.part.chunks.push_back(chunk.meta);
    result.payload.push_back(chunk.data);
    result.bytes += chunk.cost();
  }
  const bool seal = sealing_ && !seal_sent_ && !sealed_ && next_unsent_ == chunks_.size();
  if (result.payload.empty() && !seal) return std::nullopt;
  result.part.submission = header_.submission;
  if (!std::exchange(header_sent_, true)) result.part.header = header_;
  if (seal) {
    result.part.seal = seal_sent_ = true;
    result.part.count = added_;
  }
  return result;
}

void Upload::restart() {
  header_sent_ = seal_sent_ = false;
  next_unsent_ = 0;
}

void Upload::acknowledge(const wire::SubmitResult& result) {
  if (result.error != 0) {
    error_ = Error{error_from_number(result.error), result.text};
    chunks_.clear();
    next_unsent_ = 0;
    unacknowledged_bytes_ = 0;
    return;
  }
  durable_.insert(result.received);
  if (result.sealed) sealed_ = true;
  drop_acknowledged();
}

void Upload::drop_acknowledged() {
  while (!chunks_.empty() && durable_.contains(chunks_.front().range())) {
    unacknowledged_bytes_ -= chunks_.front().cost();
    chunks_.pop_front();
    if (next_unsent_ > 0) --next_unsent_;
  }
}

bool Upload::all_durable() const {
  return current_.sizes.empty() && chunks_.empty() && (!sealing_ || sealed_);
}

}  // namespace farcall::client
