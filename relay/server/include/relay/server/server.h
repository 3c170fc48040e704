// The loop around the relay's core: sockets, timers, and a thread that keeps the store busy.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "base/keys.h"
#include "relay/core/core.h"
#include "relay/store/store.h"
#include "wire/zmq/loop.h"

namespace farcall::relay {

struct ServerOptions {
  std::string listen;          // tcp://host:port; port 0: any free one
  std::string public_address;  // what invitations say; empty: where it listens
  KeyPair keys;
  Options core;           // address, server_key and make_token are filled in
  std::string owner_key;  // enrolled when nobody is yet; Z85
  std::string owner_user;
  std::filesystem::path blobs;  // directory of the bytes of blobs
};

// Lives on the loop's thread, and has a thread of its own for the store.
class Server {
 public:
  // The store has been loaded by nobody before. Fails with the reason when the store cannot be read
  // or the address cannot be listened on.
  static Result<std::unique_ptr<Server>> start(wire::Loop& loop, std::unique_ptr<Store> store,
                                               ServerOptions options,
                                               std::function<void(const Error&)> on_failure);
  // What was handed to the store is written before it returns.
  ~Server();
  Server(const Server&) = delete;

  // With the real port.
  const std::string& address() const;

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace farcall::relay
