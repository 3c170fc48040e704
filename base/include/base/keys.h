// CURVE key pairs, content hashes and random tokens, all from libsodium.
// Errors: only "libsodium cannot start", which aborts. Thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "base/ids.h"

namespace farcall {

// Keys in ZeroMQ's Z85 text form, 40 characters each.
struct KeyPair {
  std::string public_key;
  std::string secret_key;
};

KeyPair make_key_pair();
// The public key that belongs to a secret one; kInvalidArgument when it is not 40 Z85 characters.
Result<std::string> public_key_of(std::string_view secret_key);
bool is_key(std::string_view text);

// BLAKE2b-256, as 64 lower-case hexadecimal digits.
std::string content_hash(std::string_view bytes);
// The first 16 bytes of the same hash as a UUID (version 8): the id of immutable content.
IdBytes content_id(std::string_view bytes);

// `bytes` random bytes in URL-safe base64 without padding.
std::string random_token(std::size_t bytes);

}  // namespace farcall
