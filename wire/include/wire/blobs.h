// Blobs: bytes that are named by their hash and moved in chunks, always at the wish of whoever
// needs them: docs/data.md. Here: the messages, and the form of an argument set that refers to
// some.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "wire/message.h"

namespace farcall::wire {

inline constexpr std::uint32_t kBlobChunkBytes = 1 << 20;  // of one BlobChunk at most

struct BlobRef {
  std::string hash;  // content_hash of all its bytes: 64 hexadecimal digits
  std::uint64_t size = 0;
  auto operator<=>(const BlobRef&) const = default;
};

// Client → relay: these will be named by what comes, and can be fetched here. Each is answered by a
// BlobState when it is safe at the relay or cannot be.
struct BlobOffer {
  static constexpr MessageType kType = MessageType::kBlobOffer;
  std::vector<BlobRef> blobs;
};
// Pilot → interchange: tasks here need these. Each is answered by a BlobState when it is in the
// endpoint's cache or cannot be.
struct BlobWant {
  static constexpr MessageType kType = MessageType::kBlobWant;
  std::vector<BlobRef> blobs;
  bool damaged = false;  // what stands in the file that was named is not what it should be
};
struct BlobState {
  static constexpr MessageType kType = MessageType::kBlobState;
  BlobRef blob;
  std::int32_t error = 0;  // ErrorCode; 0: it is there
  std::string text;        // of the error
  std::string file;        // where it is, for who can see that file system; may be empty
};
// Whoever needs it → whoever has it. Answered by a BlobChunk, in the order of the questions.
struct BlobGet {
  static constexpr MessageType kType = MessageType::kBlobGet;
  BlobRef blob;
  std::uint64_t offset = 0;
  std::uint32_t size = 0;  // 1 to kBlobChunkBytes, and not beyond the blob's end
};
// payload[0]: the bytes that were asked for, when there is no error.
struct BlobChunk {
  static constexpr MessageType kType = MessageType::kBlobChunk;
  BlobRef blob;
  std::uint64_t offset = 0;
  std::int32_t error = 0;  // ErrorCode
  std::string text;
};

// True for 64 hexadecimal digits: what may become the name of a file.
bool is_blob_hash(std::string_view text);

// The blobs that an argument set or a function's body refers to; none when it does not begin with
// 'B'. kCorrupt when it does and is not as docs/payloads.md says.
Result<std::vector<BlobRef>> blob_refs(std::string_view payload);
// Such a payload: `places` is JSON, `rest` a payload of another form.
std::string pack_blob_payload(const std::vector<BlobRef>& blobs, std::string_view places,
                              std::string_view rest);

}  // namespace farcall::wire
