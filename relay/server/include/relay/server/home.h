// The relay's files below FARCALL_HOME: configuration, keys, address, the identity of its owner.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "relay/server/server.h"

namespace farcall {
struct ConfigKey;
}

namespace farcall::relay {

// Every key of relay/config.yaml; the reference page is made from it.
const std::vector<ConfigKey>& config_keys();

// Reads relay/config.yaml (may be missing) and relay/key (made when missing); `listen` replaces
// the configured address unless empty. kConfig with all problems of the file.
Result<ServerOptions> read_home(const std::filesystem::path& home, const std::string& listen);

// HOME/identity: made when missing. kDenied when others can read it.
struct Identity {
  std::string user;
  KeyPair keys;
};
Result<Identity> read_identity(const std::filesystem::path& home);
// Once the address is known: writes relay/address, and the relay into an identity that has none or
// had ours at another address. An identity of another relay stays as it is.
Result<void> publish_address(const std::filesystem::path& home, const Identity& identity,
                             const std::string& address, const std::string& server_key);

}  // namespace farcall::relay
