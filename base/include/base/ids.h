// Strong identifiers: 16 bytes each, printed as UUIDs, one type per kind of thing.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/error.h"

namespace farcall {

using IdBytes = std::array<std::uint8_t, 16>;

std::string format_uuid(const IdBytes& bytes);
// Accepts the 36-character form only.
Result<IdBytes> parse_uuid(std::string_view text, std::string_view what);

template <class Tag>
struct Id {
  IdBytes bytes{};

  auto operator<=>(const Id&) const = default;
  bool is_nil() const { return bytes == IdBytes{}; }
  std::string string() const { return format_uuid(bytes); }
  static Result<Id> parse(std::string_view text) {
    auto parsed = parse_uuid(text, Tag::kName);
    if (!parsed) return fail(parsed.error());
    return Id{*parsed};
  }
};

#define FARCALL_ID(Name, text)                      \
  struct Name##Tag {                                \
    static constexpr std::string_view kName = text; \
  };                                                \
  using Name = Id<Name##Tag>;

FARCALL_ID(UserId, "user id")
FARCALL_ID(FunctionId, "function id")
FARCALL_ID(EndpointId, "endpoint id")
FARCALL_ID(SubmissionId, "submission id")  // last 32 bits are zero
FARCALL_ID(BlockId, "block id")
// One life of one pilot process: a pilot that starts again on its node has a new one.
FARCALL_ID(PilotId, "pilot id")
// One life of a store or of an interchange's database.
FARCALL_ID(InstanceId, "instance id")

// A task is its submission and its index there; the index shows in the last 32 bits of its UUID.
struct TaskId {
  SubmissionId submission;
  std::uint32_t index = 0;

  auto operator<=>(const TaskId&) const = default;
  std::string string() const;
  static Result<TaskId> parse(std::string_view text);
};

// Time-ordered (UUID version 7: 48 bits of milliseconds since 1970, the rest from `rng`).
IdBytes make_time_ordered_id(WallTime now, Rng& rng);
template <class IdType>
IdType make_id(WallTime now, Rng& rng) {
  IdType id{make_time_ordered_id(now, rng)};
  if constexpr (std::is_same_v<IdType, SubmissionId>) std::memset(id.bytes.data() + 12, 0, 4);
  return id;
}

}  // namespace farcall

template <class Tag>
struct std::hash<farcall::Id<Tag>> {
  std::size_t operator()(const farcall::Id<Tag>& id) const noexcept {
    std::uint64_t high = 0, low = 0;
    std::memcpy(&high, id.bytes.data(), 8);
    std::memcpy(&low, id.bytes.data() + 8, 8);
    return static_cast<std::size_t>((high ^ (low * 0x9e3779b97f4a7c15ULL)) * 0xff51afd7ed558ccdULL);
  }
};
template <>
struct std::hash<farcall::TaskId> {
  std::size_t operator()(const farcall::TaskId& id) const noexcept {
    return std::hash<farcall::SubmissionId>{}(id.submission) * 31 + id.index;
  }
};
