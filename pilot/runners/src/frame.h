// The one place that knows how pilot, template and workers frame what they say: two little-endian
// 32-bit lengths, JSON, bytes. The Python side is python/farcall_channel.py.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"

namespace farcall::pilot {

inline void append_length(std::string& out, std::size_t length) {
  for (int i = 0; i < 4; ++i) out += static_cast<char>(length >> (8 * i) & 0xff);
}

inline void append_frame(std::string& out, const nlohmann::json& header,
                         std::string_view body = {}) {
  const std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  append_length(out, text.size());
  append_length(out, body.size());
  out += text;
  out += body;
}

struct Frame {
  nlohmann::json header;
  Bytes body;
};

class FrameReader {
 public:
  void append(const char* data, std::size_t size) { buffer_.append(data, size); }
  // The next whole frame; nullopt: more bytes are needed. kCorrupt when it is none of ours.
  Result<std::optional<Frame>> next() {
    if (buffer_.size() - position_ < 8) return compact();
    const std::size_t head = length_at(position_), body = length_at(position_ + 4);
    if (head > (16u << 20))
      return fail(ErrorCode::kCorrupt, "a frame with a header of {} bytes", head);
    if (buffer_.size() - position_ - 8 < head + body) {
      buffer_.reserve(position_ + 8 + head + body);
      return compact();
    }
    Frame frame;
    const char* start = buffer_.data() + position_ + 8;
    frame.header = nlohmann::json::parse(start, start + head, nullptr, false);
    if (!frame.header.is_object())
      return fail(ErrorCode::kCorrupt, "a frame whose header is no JSON object");
    frame.body = Bytes::copy_of({start + head, body});
    position_ += 8 + head + body;
    return std::optional<Frame>(std::move(frame));
  }

 private:
  std::optional<Frame> compact() {
    buffer_.erase(0, position_);
    position_ = 0;
    return std::nullopt;
  }
  std::size_t length_at(std::size_t at) const {
    std::size_t value = 0;
    for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(buffer_[at + i]);
    return value;
  }
  std::string buffer_;
  std::size_t position_ = 0;
};

}  // namespace farcall::pilot
