#include "base/ids.h"

namespace farcall {

namespace {
int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}
constexpr bool is_dash(std::size_t position) {
  return position == 8 || position == 13 || position == 18 || position == 23;
}
}  // namespace

std::string format_uuid(const IdBytes& bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text(36, '-');
  std::size_t out = 0;
  for (std::uint8_t byte : bytes) {
    if (is_dash(out)) ++out;
    text[out++] = kHex[byte >> 4];
    text[out++] = kHex[byte & 15];
  }
  return text;
}

Result<IdBytes> parse_uuid(std::string_view text, std::string_view what) {
  auto bad = [&] {
    return fail(ErrorCode::kInvalidArgument,
                "'{}' is not a {}: expected 32 hexadecimal digits as "
                "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
                text, what);
  };
  if (text.size() != 36) return bad();
  IdBytes bytes{};
  std::size_t digits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (is_dash(i)) {
      if (text[i] != '-') return bad();
      continue;
    }
    int value = hex_value(text[i]);
    if (value < 0) return bad();
    auto& byte = bytes[digits / 2];
    byte = static_cast<std::uint8_t>(byte << 4 | value);
    ++digits;
  }
  return bytes;
}

std::string TaskId::string() const {
  IdBytes bytes = submission.bytes;
  for (int i = 0; i < 4; ++i) bytes[12 + i] = static_cast<std::uint8_t>(index >> (24 - 8 * i));
  return format_uuid(bytes);
}

Result<TaskId> TaskId::parse(std::string_view text) {
  auto bytes = parse_uuid(text, "task id");
  if (!bytes) return fail(bytes.error());
  TaskId id{SubmissionId{*bytes}, 0};
  for (int i = 0; i < 4; ++i) {
    id.index = id.index << 8 | (*bytes)[12 + i];
    id.submission.bytes[12 + i] = 0;
  }
  return id;
}

IdBytes make_time_ordered_id(WallTime now, Rng& rng) {
  IdBytes bytes{};
  const auto milliseconds = static_cast<std::uint64_t>(now.milliseconds_since_epoch());
  for (int i = 0; i < 6; ++i) bytes[i] = static_cast<std::uint8_t>(milliseconds >> (40 - 8 * i));
  const std::uint64_t a = rng.next(), b = rng.next();
  std::memcpy(bytes.data() + 6, &a, 8);
  std::memcpy(bytes.data() + 14, &b, 2);
  bytes[6] = static_cast<std::uint8_t>(0x70 | (bytes[6] & 0x0f));
  bytes[8] = static_cast<std::uint8_t>(0x80 | (bytes[8] & 0x3f));
  return bytes;
}

}  // namespace farcall
