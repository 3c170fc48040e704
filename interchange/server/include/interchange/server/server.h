// The interchange's core in its event loop: the relay, the pilots, the disk and the scheduler
// around it, each of the last two on a thread of its own.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "base/keys.h"
#include "interchange/config/config.h"
#include "interchange/journal/journal.h"
#include "providers/provider.h"
#include "wire/zmq/loop.h"

namespace farcall::interchange {

// FARCALL_HOME/endpoints/NAME/key
struct EndpointKey {
  EndpointId endpoint;
  KeyPair keys;
  std::string relay;       // tcp://host:port
  std::string server_key;  // of the relay
};
Result<EndpointKey> read_endpoint_key(const std::filesystem::path& file);

struct ServerOptions {
  std::filesystem::path directory;  // of the endpoint
  std::string name;
  EndpointKey key;
  EndpointConfig config;
  bool take_over = false;
  std::string software;
};

class Server {
 public:
  struct Handlers {
    std::function<void()> on_ready;                   // welcomed by the relay, once
    std::function<void(const Error&)> on_refused;     // final
    std::function<void(const std::string&)> on_exit;  // stopped in good order
  };
  // kIo when no address can be bound. The journal and the provider are used by their own threads.
  static Result<std::unique_ptr<Server>> open(wire::Loop& loop, ServerOptions options,
                                              std::unique_ptr<Journal> journal, Recovered recovered,
                                              std::unique_ptr<providers::Provider> provider,
                                              Handlers handlers);
  ~Server();
  // Ends pilots and blocks, then on_exit.
  void stop(const std::string& reason);

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace farcall::interchange
