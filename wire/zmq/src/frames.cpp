#include "frames.h"

namespace farcall::wire {

namespace {
constexpr std::size_t kCopyBelowBytes = 4096;  // a copy is cheaper than a reference below this
// More than any credit lets be under way; a peer that gets there has broken its promise.
constexpr int kHighWaterMessages = 1'000'000;
constexpr std::int64_t kFrameBytesMax = std::int64_t{1} << 30;

void release(void*, void* hint) { delete static_cast<Bytes*>(hint); }
}  // namespace

Bytes bytes_of(zmq::message_t frame) {
  auto owner = std::make_shared<zmq::message_t>(std::move(frame));
  const char* data = owner->data<char>();
  const std::size_t size = owner->size();
  return Bytes(std::move(owner), data, size);
}

zmq::message_t frame_of(const Bytes& bytes) {
  if (bytes.size() < kCopyBelowBytes) return zmq::message_t(bytes.data(), bytes.size());
  return zmq::message_t(const_cast<char*>(bytes.data()), bytes.size(), release, new Bytes(bytes));
}

bool send_frames(zmq::socket_t& socket, const std::string& routing_id, const Envelope& envelope,
                 const Message& message) {
  using zmq::send_flags;
  const auto more = [](bool last) {
    return last ? send_flags::dontwait : send_flags::dontwait | send_flags::sndmore;
  };
  try {
    // Only the first frame of a message can be refused; the others go with it.
    if (!routing_id.empty() &&
        !socket.send(zmq::buffer(routing_id), send_flags::dontwait | send_flags::sndmore))
      return false;
    const std::string header = pack_header(envelope, message);
    if (!socket.send(zmq::buffer(header), more(message.payload.empty()))) return false;
    for (std::size_t i = 0; i < message.payload.size(); ++i)
      if (!socket.send(frame_of(message.payload[i]), more(i + 1 == message.payload.size())))
        return false;
    return true;
  } catch (const zmq::error_t& error) {
    FARCALL_CHECK(error.num() == EHOSTUNREACH || error.num() == EAGAIN, error.what());
    return false;
  }
}

std::optional<Received> receive_frames(zmq::socket_t& socket, bool router) {
  Received received;
  std::size_t position = 0;
  const std::size_t header_position = router ? 1 : 0;
  bool more = true;
  while (more) {
    zmq::message_t frame;
    if (!socket.recv(frame, zmq::recv_flags::dontwait)) {
      FARCALL_CHECK(position == 0, "ZeroMQ delivers messages whole");
      return std::nullopt;
    }
    more = frame.more();
    if (position < header_position) {
      received.routing_id = frame.to_string();
    } else if (position == header_position) {
      if (router) {
        try {
          received.user_id = frame.gets("User-Id");
        } catch (const zmq::error_t&) {
          received.user_id.clear();  // cannot be: the ZAP handler names every peer
        }
      }
      received.header = unpack_header(bytes_of(std::move(frame)));
    } else {
      received.payload.push_back(bytes_of(std::move(frame)));
    }
    ++position;
  }
  return received;
}

void set_common_options(zmq::socket_t& socket) {
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::sndhwm, kHighWaterMessages);
  socket.set(zmq::sockopt::rcvhwm, kHighWaterMessages);
  socket.set(zmq::sockopt::maxmsgsize, kFrameBytesMax);
  socket.set(zmq::sockopt::handshake_ivl, 10'000);
  socket.set(zmq::sockopt::ipv6, false);
}

}  // namespace farcall::wire
