#include "frames.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace farcall::wire {

namespace {
constexpr std::size_t kCopyBelowBytes = 4096;  // a copy is cheaper than a reference below this
// More than any credit lets be under way; a peer that gets there has broken its promise.
constexpr int kHighWaterMessages = 1'000'000;
constexpr std::int64_t kFrameBytesMax = std::int64_t{1} << 30;

// What a message carries was written before it was sent and is read after it was received. ZeroMQ
// sees to that, but its queues are not built with ThreadSanitizer, which is told here.
#if defined(__SANITIZE_THREAD__)
char handover;
void before_handing_over() { __tsan_release(&handover); }
void after_handing_over() { __tsan_acquire(&handover); }
#else
void before_handing_over() {}
void after_handing_over() {}
#endif

void release(void*, void* hint) {
  after_handing_over();
  delete static_cast<Bytes*>(hint);
}

// Not inlined: ZeroMQ's own thread makes the text, tests/tsan.supp names the function.
[[gnu::noinline]] std::string user_id_of(zmq::message_t& frame) {
  try {
    return frame.gets("User-Id");
  } catch (const zmq::error_t&) {
    return "";  // cannot be: the ZAP handler names every peer
  }
}
}  // namespace

Bytes bytes_of(zmq::message_t frame) {
  auto owner = std::make_shared<zmq::message_t>(std::move(frame));
  const char* data = owner->data<char>();
  const std::size_t size = owner->size();
  return Bytes(std::move(owner), data, size);
}

zmq::message_t frame_of(const Bytes& bytes) {
  if (bytes.size() < kCopyBelowBytes) return zmq::message_t(bytes.data(), bytes.size());
  auto owner = std::make_unique<Bytes>(bytes);
  before_handing_over();
  zmq::message_t frame(const_cast<char*>(bytes.data()), bytes.size(), release, owner.get());
  (void)owner.release();
  return frame;
}

bool send_frames(zmq::socket_t& socket, const std::string& routing_id, const Envelope& envelope,
                 const Message& message) {
  using zmq::send_flags;
  const auto more = [](bool last) {
    return last ? send_flags::dontwait : send_flags::dontwait | send_flags::sndmore;
  };
  before_handing_over();
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
    after_handing_over();
    more = frame.more();
    if (position < header_position) {
      received.routing_id = frame.to_string();
    } else if (position == header_position) {
      if (router) received.user_id = user_id_of(frame);
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
