// One submission on its way to the relay: cut into chunks, sent in parts, kept until durable. Pure.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "model/task.h"
#include "wire/messages.h"

namespace farcall::client {

class Upload {
 public:
  // `durable`: what the relay has from an earlier life; chunks of nothing else are not sent.
  Upload(SubmissionHeader header, RangeSet durable);

  const SubmissionHeader& header() const { return header_; }
  // Chunks are cut by count and size only, so that the same tasks in the same order give the same
  // chunks whenever they are sent. REQUIRES: !sealing(). Returns the index.
  std::uint32_t add(const Bytes& argument_set);
  // Ends the current chunk although it is not full.
  void cut();
  // No more tasks. REQUIRES: !sealing().
  void seal();
  bool sealing() const { return sealing_; }

  struct Part {
    wire::SubmitPart part;
    std::vector<Bytes> payload;
    std::size_t bytes = 0;
  };
  // The next part of this session, of about `bytes_max` (at least one chunk); nothing: all is sent.
  std::optional<Part> next_part(std::size_t bytes_max);
  // A new session: what is not acknowledged is to be sent again.
  void restart();
  void acknowledge(const wire::SubmitResult& result);

  std::uint32_t added() const { return added_; }
  const RangeSet& durable() const { return durable_; }
  // Something of it is at the relay, which therefore knows the submission.
  bool known_to_relay() const { return !durable_.empty() || sealed_; }
  bool sealed() const { return sealed_; }
  const std::optional<Error>& error() const { return error_; }
  // Bytes of cut chunks that are kept because they are not acknowledged.
  std::size_t unacknowledged_bytes() const { return unacknowledged_bytes_; }
  bool all_durable() const;

 private:
  struct Chunk {
    wire::ChunkMeta meta;
    Bytes data;
    Range range() const {
      return {meta.first, meta.first + static_cast<std::uint32_t>(meta.sizes.size())};
    }
    std::size_t cost() const { return data.size() + 16 * meta.sizes.size(); }
  };
  void drop_acknowledged();

  SubmissionHeader header_;
  RangeSet durable_;
  std::uint32_t added_ = 0;
  wire::ChunkMeta current_;
  std::string current_data_;
  std::deque<Chunk> chunks_;     // cut and not acknowledged, in order
  std::size_t next_unsent_ = 0;  // in chunks_
  std::size_t unacknowledged_bytes_ = 0;
  bool header_sent_ = false;
  bool sealing_ = false;
  bool seal_sent_ = false;
  bool sealed_ = false;
  std::optional<Error> error_;
};

}  // namespace farcall::client
