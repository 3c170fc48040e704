// The listening end of a client's connection, driven by a test: it sees every message and answers
// as it is told to, or not.
#pragma once

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <thread>

#include "base/keys.h"
#include "farcall/client.h"
#include "farcall/identity.h"
#include "wire/codec.h"
#include "wire/zmq/listener.h"

namespace farcall {

class FakeRelay {
 public:
  // On the relay's thread: one message of a welcomed client.
  using Handler = std::function<void(FakeRelay&, wire::PeerId, const wire::Message&)>;

  explicit FakeRelay(Handler handler) : handler_(std::move(handler)) {
    wire::ListenerHandlers handlers;
    handlers.on_hello = [this](wire::PeerId peer, const std::string&, const wire::Message&) {
      ++hellos_;
      if (refusal) return listener_->refuse(peer, *refusal);
      listener_->send(peer, wire::make_message(wire::ClientWelcome{"fake", "ada", "g1", 1 << 20}));
    };
    handlers.on_message = [this](wire::PeerId peer, const wire::Message& message) {
      handler_(*this, peer, message);
      std::lock_guard lock(mutex_);
      ++seen_[message.type];
      changed_.notify_all();
    };
    handlers.on_gone = [](wire::PeerId) {};
    auto opened = wire::Listener::open(loop_, {.address = "tcp://127.0.0.1:0", .keys = keys},
                                       std::move(handlers));
    FARCALL_CHECK(opened.has_value(), opened ? "" : opened.error().message);
    listener_ = std::move(*opened);
    address = listener_->address();
    thread_ = std::thread([this] { loop_.run(); });
  }
  ~FakeRelay() {
    loop_.stop();
    thread_.join();
  }

  // On the relay's thread.
  template <class Body>
  void send(wire::PeerId peer, const Body& body, std::vector<Bytes> payload = {}) {
    listener_->send(peer, wire::make_message(body, std::move(payload)));
  }
  void reset(wire::PeerId peer) { listener_->reset(peer, "a test wants it"); }

  // On the test's thread: until so many messages of a type have come; false after 10 s.
  bool wait_for(wire::MessageType type, int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return seen_[type] >= count; });
  }
  int seen(wire::MessageType type) {
    std::lock_guard lock(mutex_);
    return seen_[type];
  }
  int hellos() const { return hellos_; }

  ClientOptions options() const {
    ClientOptions options;
    options.home = home;
    options.timeout = std::chrono::seconds(10);
    return options;
  }
  // An identity that fits this relay.
  void enrol() {
    auto done =
        write_identity(home / "identity", {address, keys.public_key, make_key_pair(), "ada"});
    FARCALL_CHECK(done.has_value(), done ? "" : done.error().message);
  }

  const KeyPair keys = make_key_pair();
  std::optional<Error> refusal;  // set before a client connects
  std::string address;
  std::filesystem::path home;

 private:
  Handler handler_;
  wire::Loop loop_;
  std::unique_ptr<wire::Listener> listener_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<wire::MessageType, int> seen_;
  std::atomic<int> hellos_ = 0;
  std::thread thread_;
};

}  // namespace farcall
