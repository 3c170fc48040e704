// Who we are at which relay: FARCALL_HOME/identity, JSON, 0600.
#pragma once

#include <filesystem>
#include <string>

#include "base/error.h"
#include "base/keys.h"

namespace farcall {

struct Identity {
  std::string relay;       // tcp://host:port
  std::string server_key;  // the relay's, Z85
  KeyPair keys;            // ours
  std::string user;        // as the relay knows us
};

// kNotFound says how to get one; kDenied when others can read it; kCorrupt when it is damaged.
Result<Identity> read_identity(const std::filesystem::path& path);
Result<void> write_identity(const std::filesystem::path& path, const Identity& identity);

// What `farcall relay invite` prints: "tcp://host:port|server key|token".
struct Invitation {
  std::string relay;
  std::string server_key;
  std::string token;
};
// kInvalidArgument says which part is wrong.
Result<Invitation> parse_invitation(std::string_view text);

}  // namespace farcall
