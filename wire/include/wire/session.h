// Sequence numbers of one connection. ZeroMQ loses messages silently when a connection breaks; a
// gap is how the loss is noticed, and a hello with what both sides hold is how it is repaired.
#pragma once

#include <cstdint>

#include "wire/message.h"

namespace farcall::wire {

// One direction each way of one session, on one side. Not thread-safe.
class Session {
 public:
  // `id` is chosen at random by the dialling side. The hello itself carries sequence 0.
  explicit Session(std::uint64_t id = 0) : id_(id) {}

  std::uint64_t id() const { return id_; }
  // The envelope of the next message to send.
  Envelope next(MessageType type) { return {static_cast<std::uint16_t>(type), id_, ++sent_}; }
  enum class Verdict {
    kInOrder,
    kOtherSession,  // an older life of this connection: drop it
    kGap,           // something was lost: reset
    kRepeated,      // seen already: drop it
  };
  Verdict receive(const Envelope& envelope);

 private:
  std::uint64_t id_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t received_ = 0;
};

}  // namespace farcall::wire
