// The relay's core in its event loop: sockets, the store on a thread of its own, timers.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/keys.h"
#include "relay/core/relay.h"
#include "relay/store/store.h"
#include "wire/zmq/loop.h"

namespace farcall::relay {

struct ServerOptions {
  std::string listen = "tcp://127.0.0.1:7400";
  KeyPair keys;
  Settings settings;  // `address` and `server_key` are filled in
};

class Server {
 public:
  // kIo when the address cannot be bound. `store` is used from the server's own thread only.
  static Result<std::unique_ptr<Server>> open(wire::Loop& loop, ServerOptions options, std::unique_ptr<Store> store,
                                              Contents contents);
  // Waits for what is being committed.
  ~Server();
  // With the real port.
  const std::string& address() const;

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// HOME/relay/config.yaml (optional), the keys (made at the first start) and who owns the relay.
struct RelayHome {
  std::filesystem::path directory;  // HOME/relay
  ServerOptions options;
  std::string owner_key;  // public key of HOME/identity, which is made when it is missing
};
Result<RelayHome> open_relay_home(const std::filesystem::path& home, const std::string& listen);
// HOME/relay/address, and the address in HOME/identity when that one is the owner's.
Result<void> publish_address(const RelayHome& home, const std::filesystem::path& farcall_home,
                             const std::string& address);

}  // namespace farcall::relay
