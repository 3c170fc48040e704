#include "wire/zmq/listener.h"

#include <unordered_map>
#include <zmq.hpp>

#include "base/log.h"
#include "frames.h"
#include "wire/codec.h"
#include "wire/session.h"

namespace farcall::wire {

namespace {
struct Peer {
  std::string routing_id;
  std::string key;
  Session session;
  bool welcomed = false;
  MonoTime last_received;
};
}  // namespace

struct Listener::Impl {
  Loop& loop;
  ListenerOptions options;
  ListenerHandlers handlers;
  zmq::socket_t socket;
  zmq::socket_t authenticator;
  std::string address;
  std::unordered_map<PeerId, Peer> peers;
  std::unordered_map<std::string, PeerId> by_routing_id;
  PeerId last_peer = 0;
  Loop::TimerId timer = 0;
  std::shared_ptr<int> life = std::make_shared<int>(0);

  Impl(Loop& l, ListenerOptions o, ListenerHandlers h)
      : loop(l),
        options(std::move(o)),
        handlers(std::move(h)),
        socket(l.context(), zmq::socket_type::router),
        authenticator(l.context(), zmq::socket_type::rep) {}

  Result<void> bind();
  std::size_t authenticate();
  std::size_t read_messages();
  bool send(const std::string& routing_id, const Envelope& envelope, const Message& message) {
    const bool sent = send_frames(socket, routing_id, envelope, message);
    loop.touched(socket.handle());
    return sent;
  }
  void handle(Received received);
  void hello(const Received& received, const Message& message);
  void answer_reset(const Received& received, const std::string& reason);
  void forget(PeerId id);
  // Not from inside the caller's loop over its own peers.
  void forget_later(PeerId id) {
    loop.post([this, id, alive = std::weak_ptr<int>(life)] {
      if (!alive.expired()) forget(id);
    });
  }
  void tick();
  void arm() {
    timer = loop.after(options.ping_interval, [this] { tick(); });
  }
};

Result<void> Listener::Impl::bind() {
  set_common_options(socket);
  socket.set(zmq::sockopt::router_mandatory, true);
  socket.set(zmq::sockopt::curve_server, true);
  socket.set(zmq::sockopt::curve_publickey, options.keys.public_key);
  socket.set(zmq::sockopt::curve_secretkey, options.keys.secret_key);
  socket.set(zmq::sockopt::zap_domain, "farcall");
  socket.set(zmq::sockopt::backlog, 4096);
  authenticator.set(zmq::sockopt::linger, 0);
  std::string base = options.address;
  std::vector<std::string> candidates{base};
  if (base.ends_with(":0")) base.back() = '*';
  if (base.ends_with(":*")) {
    candidates = {base};
    if (options.port_first > 0) {
      candidates.clear();
      base.pop_back();
      for (int port = options.port_first; port <= options.port_last; ++port)
        candidates.push_back(base + std::to_string(port));
    }
  }
  std::string reason;
  for (const std::string& candidate : candidates) {
    try {
      socket.bind(candidate);
      address = socket.get(zmq::sockopt::last_endpoint);
      authenticator.bind("inproc://zeromq.zap.01");
      return {};
    } catch (const zmq::error_t& error) {
      reason = error.what();
      if (error.num() != EADDRINUSE) break;
    }
  }
  return fail(ErrorCode::kIo, "cannot listen on {}: {}",
              candidates.size() > 1
                  ? fmt::format("any of {} to {}", candidates.front(), candidates.back())
                  : options.address,
              reason);
}

// ZeroMQ's authentication protocol (RFC 27): every key is let in under its own name.
std::size_t Listener::Impl::authenticate() {
  for (std::size_t requests = 0;; ++requests) {
    std::vector<zmq::message_t> request;
    do {
      zmq::message_t frame;
      if (!authenticator.recv(frame, zmq::recv_flags::dontwait)) return requests;
      request.push_back(std::move(frame));
    } while (request.back().more());
    const bool fine =
        request.size() == 7 && request[5].to_string_view() == "CURVE" && request[6].size() == 32;
    char key[41] = "";
    if (fine) zmq_z85_encode(key, request[6].data<std::uint8_t>(), 32);
    const std::string id = request.size() > 1 ? request[1].to_string() : "";
    for (const std::string& part :
         {std::string("1.0"), id, std::string(fine ? "200" : "400"),
          std::string(fine ? "OK" : "CURVE is required"), std::string(key)})
      authenticator.send(zmq::buffer(part), zmq::send_flags::sndmore);
    authenticator.send(zmq::message_t(), zmq::send_flags::none);
  }
}

std::size_t Listener::Impl::read_messages() {
  std::size_t messages = 0;
  for (; messages < Loop::kDrainMax; ++messages) {
    auto received = receive_frames(socket, true);
    if (!received) break;
    handle(std::move(*received));
  }
  return messages;
}

void Listener::Impl::answer_reset(const Received& received, const std::string& reason) {
  const Envelope envelope{static_cast<std::uint16_t>(MessageType::kReset),
                          received.header->envelope.session, 0};
  send(received.routing_id, envelope, make_message(Reset{reason}));
}

void Listener::Impl::handle(Received received) {
  if (!received.header) {
    log_warn("dropped a message from {}: {}", received.user_id, received.header.error().message);
    return;
  }
  const Envelope envelope = received.header->envelope;
  Message message{static_cast<MessageType>(envelope.type), received.header->body,
                  std::move(received.payload)};
  if (envelope.sequence == 0) {
    hello(received, message);
    return;
  }
  auto known = by_routing_id.find(received.routing_id);
  if (known == by_routing_id.end()) {
    answer_reset(received, "the session is not known here");
    return;
  }
  const PeerId id = known->second;
  Peer& peer = peers.at(id);
  peer.last_received = loop.now().mono;
  switch (peer.session.receive(envelope)) {
    case Session::Verdict::kRepeated:
      return;
    case Session::Verdict::kOtherSession:
      answer_reset(received, "the session is not known here");
      return;
    case Session::Verdict::kGap:
      answer_reset(received, "messages were lost");
      forget(id);
      return;
    case Session::Verdict::kInOrder:
      break;
  }
  if (message.type == MessageType::kReset) {
    forget(id);
    return;
  }
  if (!peer.welcomed) return;
  if (message.type == MessageType::kPing) {
    send(peer.routing_id, peer.session.next(MessageType::kPing), make_message(Ping{true}));
    return;
  }
  handlers.on_message(id, message);
}

void Listener::Impl::hello(const Received& received, const Message& message) {
  auto known = by_routing_id.find(received.routing_id);
  if (known != by_routing_id.end()) forget(known->second);
  const PeerId id = ++last_peer;
  peers.emplace(id, Peer{received.routing_id, received.user_id,
                         Session(received.header->envelope.session), false, loop.now().mono});
  by_routing_id[received.routing_id] = id;
  handlers.on_hello(id, received.user_id, message);
}

void Listener::Impl::forget(PeerId id) {
  auto found = peers.find(id);
  if (found == peers.end()) return;
  by_routing_id.erase(found->second.routing_id);
  peers.erase(found);
  handlers.on_gone(id);
}

void Listener::Impl::tick() {
  std::vector<PeerId> silent;
  for (const auto& [id, peer] : peers)
    if (loop.now().mono - peer.last_received > options.silence_limit) silent.push_back(id);
  for (PeerId id : silent) forget(id);
  arm();
}

Result<std::unique_ptr<Listener>> Listener::open(Loop& loop, ListenerOptions options,
                                                 ListenerHandlers handlers) {
  auto impl = std::make_unique<Impl>(loop, std::move(options), std::move(handlers));
  if (auto bound = impl->bind(); !bound) return fail(bound.error());
  Impl* raw = impl.get();
  loop.add_socket(raw->authenticator.handle(), [raw] { return raw->authenticate(); });
  loop.add_socket(raw->socket.handle(), [raw] { return raw->read_messages(); });
  raw->arm();
  return std::unique_ptr<Listener>(new Listener(std::move(impl)));
}

Listener::Listener(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Listener::~Listener() {
  impl_->loop.cancel_timer(impl_->timer);
  impl_->loop.remove_socket(impl_->authenticator.handle());
  impl_->loop.remove_socket(impl_->socket.handle());
}

const std::string& Listener::address() const { return impl_->address; }

bool Listener::send(PeerId id, const Message& message) {
  auto found = impl_->peers.find(id);
  if (found == impl_->peers.end()) return false;
  Peer& peer = found->second;
  peer.welcomed = true;
  if (impl_->send(peer.routing_id, peer.session.next(message.type), message)) return true;
  impl_->forget_later(id);
  return false;
}

void Listener::refuse(PeerId id, const Error& error) {
  auto found = impl_->peers.find(id);
  if (found == impl_->peers.end()) return;
  const Message message =
      make_message(Refused{static_cast<std::int32_t>(error.code), error.message});
  impl_->send(found->second.routing_id, found->second.session.next(MessageType::kRefused), message);
  impl_->forget_later(id);
}

void Listener::reset(PeerId id, const std::string& reason) {
  auto found = impl_->peers.find(id);
  if (found == impl_->peers.end()) return;
  const Envelope envelope{static_cast<std::uint16_t>(MessageType::kReset),
                          found->second.session.id(), 0};
  impl_->send(found->second.routing_id, envelope, make_message(Reset{reason}));
  impl_->forget_later(id);
}

}  // namespace farcall::wire
