// Packing bodies: MessagePack arrays, fields in the order of the struct. Pure; thread-safe.
#pragma once

#include "wire/message.h"
#include "wire/messages.h"

namespace farcall::wire {

// Explicitly instantiated for every struct with a kType (and SubmissionHeader, FunctionRecord,
// which stores keep packed), so that only codec.cpp sees MessagePack.
template <class Body>
std::string encode(const Body& body);
// kCorrupt says which message and what is wrong with it. Unknown trailing fields are skipped.
template <class Body>
Result<Body> decode(const Bytes& packed);

template <class Body>
Message make_message(const Body& body, std::vector<Bytes> payload = {}) {
  return Message{Body::kType, Bytes(encode(body)), std::move(payload)};
}
template <class Body>
Result<Body> decode(const Message& message) {
  return decode<Body>(message.body);
}

}  // namespace farcall::wire
