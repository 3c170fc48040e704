// The listening end: ROUTER with CURVE (ZAP handled inside), one Peer per connection.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/keys.h"
#include "wire/message.h"
#include "wire/zmq/loop.h"

namespace farcall::wire {

// One session of one connection; numbers are never reused in a process.
using PeerId = std::uint64_t;

struct ListenerOptions {
  std::string address;  // tcp://127.0.0.1:7400; port 0 or '*': any free one
  KeyPair keys;
  int port_first = 0, port_last = 0;  // with a port 0: the range to look in; 0: the system's
  Duration ping_interval = std::chrono::seconds(2);
  Duration silence_limit = std::chrono::seconds(10);  // then: on_gone
};

// All callbacks come on the loop's thread. Not thread-safe: use it from the loop only.
// Every CURVE key is let in as far as the hello; whoever is not known gets refuse() as its answer,
// so that people are told why. Nothing else is accepted from it.
struct ListenerHandlers {
  // A hello of a new session. `key`: the peer's public key (Z85), proven by CURVE. Answer with
  // send(welcome) or refuse(). An earlier session of the same connection is over (on_gone came).
  std::function<void(PeerId, const std::string& key, const Message& hello)> on_hello;
  // In order, gaps excluded. Only after on_hello and only for peers that were sent a welcome.
  std::function<void(PeerId, const Message&)> on_message;
  // Replaced by a new hello, silent for too long, unreachable, or refused.
  std::function<void(PeerId)> on_gone;
};

class Listener {
 public:
  // kIo with the address and the reason when it cannot be bound.
  static Result<std::unique_ptr<Listener>> open(Loop& loop, ListenerOptions options,
                                                ListenerHandlers handlers);
  ~Listener();
  Listener(const Listener&) = delete;

  // The address with the real port.
  const std::string& address() const;
  // The first message to a peer is its welcome. False: the peer is gone (on_gone follows or came),
  // or its queue is full, which its credit should have prevented: it is reset.
  bool send(PeerId peer, const Message& message);
  void refuse(PeerId peer, const Error& error);
  // Makes the peer say hello again.
  void reset(PeerId peer, const std::string& reason);

 private:
  struct Impl;
  explicit Listener(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace farcall::wire
