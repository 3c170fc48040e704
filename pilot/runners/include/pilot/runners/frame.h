// The one place that knows how pilot, template and workers frame what they say: two little-endian
// 32-bit lengths, header, bytes. A header is JSON, or a packed one for what is said for every task.
// The Python side is python/farcall_channel.py.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"

namespace farcall::pilot {

inline void append_number(std::string& out, std::uint64_t number, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(number >> (8 * i) & 0xff);
}
inline std::uint64_t number_at(std::string_view text, std::size_t at, int bytes) {
  std::uint64_t value = 0;
  for (int i = bytes - 1; i >= 0; --i)
    value = value << 8 | static_cast<unsigned char>(text[at + static_cast<std::size_t>(i)]);
  return value;
}
inline void append_length(std::string& out, std::size_t length) { append_number(out, length, 4); }

inline void append_frame(std::string& out, const nlohmann::json& header,
                         std::string_view body = {}) {
  const std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  append_length(out, text.size());
  append_length(out, body.size());
  out += text;
  out += body;
}

// "Run this": 'R', sequence, numbers of function and environment at this worker (0: none), attempt,
// task id as text.
struct RunHeader {
  std::uint64_t sequence = 0;
  std::uint32_t function = 0;
  std::uint32_t environment = 0;
  std::uint16_t attempt = 1;
  std::string_view task;  // 36 characters
};
inline void append_run(std::string& out, const RunHeader& run, std::string_view arguments) {
  append_length(out, 1 + 8 + 4 + 4 + 2 + run.task.size());
  append_length(out, arguments.size());
  out += 'R';
  append_number(out, run.sequence, 8);
  append_number(out, run.function, 4);
  append_number(out, run.environment, 4);
  append_number(out, run.attempt, 2);
  out += run.task;
  out += arguments;
}

// "It is done": 'D', failure class, sequence, begin and end in wall clock milliseconds.
struct DoneHeader {
  std::uint8_t failure = 0;
  std::uint64_t sequence = 0;
  std::int64_t started_ms = 0, ended_ms = 0;
};
inline std::optional<DoneHeader> read_done(std::string_view header) {
  if (header.size() != 1 + 1 + 8 + 8 + 8 || header[0] != 'D') return std::nullopt;
  return DoneHeader{static_cast<std::uint8_t>(header[1]), number_at(header, 2, 8),
                    static_cast<std::int64_t>(number_at(header, 10, 8)),
                    static_cast<std::int64_t>(number_at(header, 18, 8))};
}

struct Frame {
  nlohmann::json header;
  std::string packed;  // the header, when it is no JSON
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
    if (head > 0 && *start != '{') {
      frame.packed.assign(start, head);
    } else {
      frame.header = nlohmann::json::parse(start, start + head, nullptr, false);
      if (!frame.header.is_object())
        return fail(ErrorCode::kCorrupt, "a frame whose header is no JSON object");
    }
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
    return static_cast<std::size_t>(number_at(buffer_, at, 4));
  }
  std::string buffer_;
  std::size_t position_ = 0;
};

}  // namespace farcall::pilot
