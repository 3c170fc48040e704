// The dialling end of a connection: DEALER with CURVE, hello and welcome, reconnects by itself.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/keys.h"
#include "wire/message.h"
#include "wire/zmq/loop.h"

namespace farcall::wire {

struct DialerOptions {
  std::vector<std::string> addresses;  // tcp://host:port; tried in turn until one answers
  std::string server_key;              // Z85
  KeyPair keys;                        // ours
  Duration ping_interval = std::chrono::seconds(2);
  Duration silence_limit = std::chrono::seconds(10);  // then: hello again
};

// All callbacks come on the loop's thread. Not thread-safe: use it from the loop only.
struct DialerHandlers {
  // The hello of a new session, with all that this side holds. Called at every (re)connect, after a
  // gap, and when the other side forgot us.
  std::function<Message()> make_hello;
  // Every message of the session in order; the first is the welcome (the hello's answer).
  std::function<void(const Message&)> on_message;
  // The answer was final: no further attempt is made.
  std::function<void(const Error&)> on_refused;
  // The session has ended; a new hello follows by itself. The text says what is known: "connection
  // refused by tcp://…", "… answers, but not with the key that is expected: …", "no answer from …".
  std::function<void(const Error&)> on_down;
};

class Dialer {
 public:
  Dialer(Loop& loop, DialerOptions options, DialerHandlers handlers);
  ~Dialer();
  Dialer(const Dialer&) = delete;

  // False: there is no session, the message was dropped; what it carried is to be offered again by
  // the next hello or after the next welcome.
  bool send(const Message& message);
  // True between welcome and loss.
  bool is_up() const;
  // The most recent reason why it is not up.
  const Error& last_error() const;
  // Starts a new session at once (for instance because credit looks wrong).
  void restart(const std::string& why);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace farcall::wire
