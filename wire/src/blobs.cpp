#include "wire/blobs.h"

#include <algorithm>

#include "wire/blob_payload.h"

namespace farcall::wire {

namespace {
// 'B', three zero bytes, count, then for each blob its hash and its size; numbers are
// little-endian.
constexpr std::size_t kHashDigits = 64;
constexpr std::size_t kEntryBytes = kHashDigits + 8;
constexpr std::size_t kHeadBytes = 8;

std::uint64_t number_at(std::string_view text, std::size_t at, int bytes) {
  std::uint64_t value = 0;
  for (int i = bytes - 1; i >= 0; --i)
    value = value << 8 | static_cast<unsigned char>(text[at + static_cast<std::size_t>(i)]);
  return value;
}
void append_number(std::string& out, std::uint64_t number, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(number >> (8 * i) & 0xff);
}
}  // namespace

bool is_blob_hash(std::string_view text) {
  return text.size() == kHashDigits && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

Result<std::vector<BlobRef>> blob_refs(std::string_view payload) {
  std::vector<BlobRef> refs;
  if (payload.empty() || payload[0] != 'B') return refs;
  const std::uint64_t count = payload.size() < kHeadBytes ? 0 : number_at(payload, 4, 4);
  if (payload.size() < kHeadBytes || payload.substr(1, 3) != std::string_view("\0\0\0", 3) ||
      count > (payload.size() - kHeadBytes) / kEntryBytes)
    return fail(ErrorCode::kCorrupt, "a payload of {} bytes has no whole list of its {} blobs",
                payload.size(), count);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::size_t at = kHeadBytes + i * kEntryBytes;
    BlobRef ref{std::string(payload.substr(at, kHashDigits)),
                number_at(payload, at + kHashDigits, 8)};
    if (!is_blob_hash(ref.hash))
      return fail(ErrorCode::kCorrupt, "a payload names a blob with something that is no hash");
    refs.push_back(std::move(ref));
  }
  return refs;
}

Result<BlobPlaces> blob_places(std::string_view payload) {
  const std::uint64_t count = payload.size() < kHeadBytes ? 0 : number_at(payload, 4, 4);
  const std::uint64_t at = kHeadBytes + count * kEntryBytes;
  if (payload.size() < at + 4 || number_at(payload, at, 4) > payload.size() - at - 4)
    return fail(ErrorCode::kCorrupt,
                "a payload of {} bytes ends before it says where its {} blobs belong",
                payload.size(), count);
  const std::size_t length = number_at(payload, at, 4);
  return BlobPlaces{payload.substr(at + 4, length), payload.substr(at + 4 + length)};
}

std::string pack_blob_payload(const std::vector<BlobRef>& blobs, std::string_view places,
                              std::string_view rest) {
  std::string out("B\0\0\0", 4);
  append_number(out, blobs.size(), 4);
  for (const BlobRef& blob : blobs) {
    out += blob.hash;
    append_number(out, blob.size, 8);
  }
  append_number(out, places.size(), 4);
  out += places;
  out += rest;
  return out;
}

}  // namespace farcall::wire
