#include "wire/blob_payload.h"

#include <cstdint>

namespace farcall::wire {

namespace {
constexpr std::size_t kRefsBegin = 8, kRefBytes = 64 + 8;

std::uint64_t number_at(std::string_view bytes, std::size_t at) {
  std::uint64_t number = 0;
  for (std::size_t i = 0; i < 4; ++i)
    number |= std::uint64_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
  return number;
}
}  // namespace

Result<BlobPlaces> blob_places(std::string_view payload) {
  const std::uint64_t count = payload.size() < kRefsBegin ? 0 : number_at(payload, 4);
  const std::uint64_t at = kRefsBegin + count * kRefBytes;
  if (payload.size() < at + 4 || number_at(payload, at) > payload.size() - at - 4)
    return fail(ErrorCode::kCorrupt,
                "a payload of {} bytes ends before it says where its {} blobs belong",
                payload.size(), count);
  const std::size_t length = number_at(payload, at);
  return BlobPlaces{payload.substr(at + 4, length), payload.substr(at + 4 + length)};
}

}  // namespace farcall::wire
