#include "wire/zmq/dialer.h"

#include <atomic>
#include <zmq.hpp>

#include "base/log.h"
#include "frames.h"
#include "wire/codec.h"
#include "wire/session.h"

namespace farcall::wire {

namespace {
constexpr Duration kConnectLimit = std::chrono::seconds(5);
constexpr Duration kRetryFirst = std::chrono::milliseconds(50);
constexpr Duration kRetryLast = std::chrono::seconds(2);
constexpr int kGoodbyeLimit_ms = 1000;  // for what was sent last to leave this host
}  // namespace

// One socket per session: nothing that was queued for an older one can reach the new one.
struct Dialer::Impl {
  Loop& loop;
  DialerOptions options;
  DialerHandlers handlers;
  Rng rng = Rng::from_entropy();

  std::unique_ptr<zmq::socket_t> socket;
  std::unique_ptr<zmq::socket_t> monitor;
  Session session;
  std::size_t address_index = 0;
  enum class State { kWaiting, kConnecting, kGreeting, kUp, kRefused } state = State::kWaiting;
  bool tcp_connected = false;
  MonoTime last_received, last_sent;
  Duration retry = kRetryFirst;
  Loop::TimerId timer = 0;
  Error error{ErrorCode::kUnreachable, "not connected yet"};
  // Callbacks may restart or end the session they are called from; changes tell them apart.
  std::uint64_t life = 0;

  Impl(Loop& l, DialerOptions o, DialerHandlers h)
      : loop(l), options(std::move(o)), handlers(std::move(h)) {}

  const std::string& address() const { return options.addresses[address_index]; }
  void open();
  void close();
  void say_goodbye();
  void down(Error why);
  void greet();
  std::size_t read_monitor();
  std::size_t read_messages();
  bool send(const Envelope& envelope, const Message& message);
  void handle(Received received);
  void tick();
  void set_timer(Duration delay, void (Impl::*action)());
};

void Dialer::Impl::set_timer(Duration delay, void (Impl::*action)()) {
  if (timer) loop.cancel_timer(timer);
  timer = loop.after(delay, [this, action] {
    timer = 0;
    (this->*action)();
  });
}

void Dialer::Impl::open() {
  ++life;
  state = State::kConnecting;
  tcp_connected = false;
  auto& context = loop.context();
  socket = std::make_unique<zmq::socket_t>(context, zmq::socket_type::dealer);
  set_common_options(*socket);
  socket->set(zmq::sockopt::curve_serverkey, options.server_key);
  socket->set(zmq::sockopt::curve_publickey, options.keys.public_key);
  socket->set(zmq::sockopt::curve_secretkey, options.keys.secret_key);
  socket->set(zmq::sockopt::reconnect_ivl, -1);  // a lost connection is a new session, see down()
  static std::atomic<std::uint64_t> counter{0};
  const std::string name = "inproc://farcall.monitor." + std::to_string(++counter);
  zmq_socket_monitor(socket->handle(), name.c_str(),
                     ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED |
                         ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                         ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH);
  monitor = std::make_unique<zmq::socket_t>(context, zmq::socket_type::pair);
  monitor->set(zmq::sockopt::linger, 0);
  monitor->connect(name);
  loop.add_socket(monitor->handle(), [this] { return read_monitor(); });
  loop.add_socket(socket->handle(), [this] { return read_messages(); });
  try {
    socket->connect(address());
  } catch (const zmq::error_t& failure) {
    down({ErrorCode::kInvalidArgument, fmt::format("'{}' is no address that can be connected to: "
                                                   "{}; expected tcp://HOST:PORT",
                                                   address(), failure.what())});
    return;
  }
  set_timer(kConnectLimit, &Impl::tick);
}

void Dialer::Impl::close() {
  ++life;
  if (timer) loop.cancel_timer(timer);
  timer = 0;
  if (monitor) loop.remove_socket(monitor->handle());
  if (socket) {
    loop.remove_socket(socket->handle());
    zmq_socket_monitor(socket->handle(), nullptr, 0);
  }
  monitor.reset();
  socket.reset();
}

// The other side need not wait for silence. What was sent before goes out as well.
void Dialer::Impl::say_goodbye() {
  if (state != State::kUp && state != State::kGreeting) return;
  socket->set(zmq::sockopt::linger, kGoodbyeLimit_ms);
  send_frames(*socket, "", session.next(MessageType::kReset),
              make_message(Reset{"the program ends"}));
}

void Dialer::Impl::down(Error why) {
  const bool was_up = state == State::kUp;
  close();
  state = State::kWaiting;
  error = std::move(why);
  if (was_up) {
    retry = kRetryFirst;
  } else {
    address_index = (address_index + 1) % options.addresses.size();
  }
  set_timer(retry + Duration(static_cast<Duration::rep>(
                        rng.below(static_cast<std::uint64_t>(retry.count()) / 2 + 1))),
            &Impl::open);
  if (address_index == 0 || was_up) retry = std::min(retry * 2, kRetryLast);
  if (handlers.on_down) handlers.on_down(error);
}

void Dialer::Impl::greet() {
  state = State::kGreeting;
  session = Session(rng.next());
  last_received = loop.now().mono;
  const Message hello = handlers.make_hello();
  Envelope envelope{static_cast<std::uint16_t>(hello.type), session.id(), 0};
  send(envelope, hello);
  last_sent = loop.now().mono;
  set_timer(options.ping_interval, &Impl::tick);
}

std::size_t Dialer::Impl::read_monitor() {
  const std::uint64_t now_life = life;
  std::size_t events = 0;
  for (; life == now_life; ++events) {
    zmq::message_t event, where;
    if (!monitor->recv(event, zmq::recv_flags::dontwait)) return events;
    (void)monitor->recv(where, zmq::recv_flags::dontwait);
    std::uint16_t number = 0;
    std::memcpy(&number, event.data(), sizeof number);
    if (number == ZMQ_EVENT_CONNECTED) {
      tcp_connected = true;
    } else if (number == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
      greet();
    } else if (state == State::kUp || state == State::kGreeting) {
      down({ErrorCode::kUnreachable, fmt::format("the connection to {} was lost", address())});
    } else if (tcp_connected) {
      down({ErrorCode::kDenied,
            fmt::format("{} answers, but not with the server key that is expected ({}): another "
                        "farcall runs there, or its keys were made anew",
                        address(), options.server_key)});
    } else {
      down({ErrorCode::kUnreachable, fmt::format("connection refused by {}", address())});
    }
  }
  return events;
}

std::size_t Dialer::Impl::read_messages() {
  const std::uint64_t now_life = life;
  std::size_t messages = 0;
  for (; messages < Loop::kDrainMax && life == now_life; ++messages) {
    auto received = receive_frames(*socket, false);
    if (!received) break;
    handle(std::move(*received));
  }
  return messages;
}

bool Dialer::Impl::send(const Envelope& envelope, const Message& message) {
  const bool sent = send_frames(*socket, "", envelope, message);
  loop.touched(socket->handle());
  return sent;
}

void Dialer::Impl::handle(Received received) {
  if (!received.header) {
    down({ErrorCode::kCorrupt,
          fmt::format("{} sent {}", address(), received.header.error().message)});
    return;
  }
  const Envelope envelope = received.header->envelope;
  Message message{static_cast<MessageType>(envelope.type), received.header->body,
                  std::move(received.payload)};
  if (envelope.session != session.id()) return;
  last_received = loop.now().mono;
  if (message.type == MessageType::kRefused) {
    auto refused = decode<Refused>(message);
    close();
    state = State::kRefused;
    error = refused ? Error{error_from_number(refused->code), refused->text} : refused.error();
    handlers.on_refused(error);
    return;
  }
  if (message.type == MessageType::kReset) {
    auto reset = decode<Reset>(message);
    down({ErrorCode::kUnreachable, fmt::format("{} asks for a new session: {}", address(),
                                               reset ? reset->reason : reset.error().message)});
    return;
  }
  switch (session.receive(envelope)) {
    case Session::Verdict::kOtherSession:
    case Session::Verdict::kRepeated:
      return;
    case Session::Verdict::kGap:
      down({ErrorCode::kUnreachable, fmt::format("messages from {} were lost", address())});
      return;
    case Session::Verdict::kInOrder:
      break;
  }
  if (message.type == MessageType::kPing) return;
  if (state == State::kGreeting) {
    state = State::kUp;
    retry = kRetryFirst;
    if (options.addresses.size() > 1)
      log_info("{} answers, of the {} addresses there are: {}", address(), options.addresses.size(),
               fmt::join(options.addresses, " "));
  }
  handlers.on_message(message);
}

void Dialer::Impl::tick() {
  const MonoTime now = loop.now().mono;
  if (state == State::kConnecting) {
    down({ErrorCode::kUnreachable,
          tcp_connected
              ? fmt::format("{} accepts connections but does not speak farcall's protocol",
                            address())
              : fmt::format("no answer from {}", address())});
    return;
  }
  if (now - last_received > options.silence_limit) {
    down({ErrorCode::kUnreachable,
          fmt::format(
              "no answer from {} for {} s", address(),
              std::chrono::duration_cast<std::chrono::seconds>(options.silence_limit).count())});
    return;
  }
  if (state == State::kUp) {
    send(session.next(MessageType::kPing), make_message(Ping{}));
    last_sent = now;
  }
  set_timer(options.ping_interval, &Impl::tick);
}

Dialer::Dialer(Loop& loop, DialerOptions options, DialerHandlers handlers)
    : impl_(std::make_unique<Impl>(loop, std::move(options), std::move(handlers))) {
  FARCALL_CHECK(!impl_->options.addresses.empty(), "a dialer needs an address");
  impl_->set_timer(Duration(0), &Impl::open);
}

Dialer::~Dialer() {
  impl_->say_goodbye();
  impl_->close();
}

bool Dialer::send(const Message& message) {
  if (impl_->state != Impl::State::kUp) return false;
  if (impl_->send(impl_->session.next(message.type), message)) return true;
  restart("the queue to it is full");
  return false;
}

bool Dialer::is_up() const { return impl_->state == Impl::State::kUp; }
const Error& Dialer::last_error() const { return impl_->error; }

void Dialer::restart(const std::string& why) {
  if (impl_->state == Impl::State::kRefused) return;
  impl_->down({ErrorCode::kUnreachable, fmt::format("new session: {}", why)});
}

}  // namespace farcall::wire
