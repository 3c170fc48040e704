// A message as every process sees it: a type, its packed body, and payload frames that no hop ever
// re-encodes. On the socket: [envelope + body][payload]...; see docs/protocol.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace farcall::wire {

inline constexpr std::uint16_t kProtocolVersion = 1;        // what this build speaks
inline constexpr std::uint16_t kOldestProtocolVersion = 1;  // and still understands

// Numbers are never reused. The body of each is a struct of the same name in messages.h.
enum class MessageType : std::uint16_t {
  // on every connection
  kPing = 1,
  kReset = 2,
  kRefused = 3,
  kCall = 4,
  kReply = 5,
  kCredit = 6,
  // client <-> relay
  kClientHello = 10,
  kClientWelcome = 11,
  kRegisterFunction = 12,
  kSubmit = 13,
  kSubmitAck = 14,
  kWatch = 15,
  kTaskResults = 16,
  kCollected = 17,
  kProgress = 18,
  // interchange <-> relay
  kEndpointHello = 30,
  kEndpointWelcome = 31,
  kWork = 33,
  kCancelTasks = 34,
  kResults = 35,
  kResultsAck = 36,
  kEndpointStatus = 37,
  kRunning = 38,
  kAttempts = 39,
  // pilot <-> interchange (kResults, kResultsAck, kRunning as well)
  kPilotHello = 50,
  kPilotWelcome = 51,
  kDispatch = 52,
  kCancelAttempts = 53,
  kPilotStatus = 55,
  kStop = 56,
  kHandBack = 57,
  // blobs, on every connection: blobs.h
  kBlobOffer = 70,
  kBlobWant = 71,
  kBlobState = 72,
  kBlobGet = 73,
  kBlobChunk = 74,
};

struct Message {
  MessageType type = MessageType::kPing;
  Bytes body;                  // packed struct; decode<T>(message)
  std::vector<Bytes> payload;  // untouched
};

// In front of the body in the first frame.
struct Envelope {
  std::uint16_t type = 0;
  std::uint64_t session = 0;   // chosen by the dialling side, new at each hello
  std::uint64_t sequence = 0;  // from 1 in each direction of a session; the hello has 0
  bool operator==(const Envelope&) const = default;
};

inline constexpr std::size_t kHeaderBytesMax = 64 << 20;

// The first frame of `message`.
std::string pack_header(const Envelope& envelope, const Message& message);
// kCorrupt when it is no header of ours. `body` of the result shares `frame`'s memory.
struct Header {
  Envelope envelope;
  Bytes body;
};
Result<Header> unpack_header(const Bytes& frame);

}  // namespace farcall::wire
