// Between Message and ZeroMQ frames, without copying what is large.
#pragma once

#include <optional>
#include <string>
#include <vector>
#include <zmq.hpp>

#include "wire/message.h"

namespace farcall::wire {

Bytes bytes_of(zmq::message_t frame);
zmq::message_t frame_of(const Bytes& bytes);

// False: the socket would not take it (full, or the peer is gone); nothing was sent.
bool send_frames(zmq::socket_t& socket, const std::string& routing_id, const Envelope& envelope,
                 const Message& message);

struct Received {
  std::string routing_id;  // of a ROUTER
  std::string user_id;     // the CURVE key, as the ZAP handler named it
  Result<Header> header = fail(ErrorCode::kCorrupt, "no frame");
  std::vector<Bytes> payload;
};
// nullopt: nothing is waiting.
std::optional<Received> receive_frames(zmq::socket_t& socket, bool router);

void set_common_options(zmq::socket_t& socket);

}  // namespace farcall::wire
