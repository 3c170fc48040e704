#include "base/keys.h"

#include <sodium.h>

#include <array>
#include <cstdint>

#include "base/hasher.h"

namespace farcall {

namespace {

void start_sodium() {
  static const int started = sodium_init();
  FARCALL_CHECK(started >= 0, "libsodium cannot start");
}

// ZeroMQ RFC 32.
constexpr char kZ85[] =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

std::string z85_encode(const std::array<std::uint8_t, 32>& bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 4) {
    std::uint32_t value = 0;
    for (std::size_t j = 0; j < 4; ++j) value = value << 8 | bytes[i + j];
    for (std::uint32_t divisor = 85 * 85 * 85 * 85; divisor > 0; divisor /= 85)
      text += kZ85[value / divisor % 85];
  }
  return text;
}

bool z85_decode(std::string_view text, std::array<std::uint8_t, 32>& bytes) {
  if (text.size() != 40) return false;
  const std::string_view digits(kZ85, 85);
  for (std::size_t i = 0; i < 8; ++i) {
    std::uint64_t value = 0;
    for (std::size_t j = 0; j < 5; ++j) {
      const std::size_t digit = digits.find(text[i * 5 + j]);
      if (digit == std::string_view::npos) return false;
      value = value * 85 + digit;
    }
    if (value > UINT32_MAX) return false;
    for (std::size_t j = 0; j < 4; ++j)
      bytes[i * 4 + j] = static_cast<std::uint8_t>(value >> (24 - 8 * j));
  }
  return true;
}

std::array<std::uint8_t, 32> hash32(std::string_view bytes) {
  start_sodium();
  std::array<std::uint8_t, 32> digest{};
  crypto_generichash(digest.data(), digest.size(),
                     reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), nullptr,
                     0);
  return digest;
}

std::string hex(const std::array<std::uint8_t, 32>& bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (std::uint8_t byte : bytes) {
    text += kHex[byte >> 4];
    text += kHex[byte & 15];
  }
  return text;
}

}  // namespace

KeyPair make_key_pair() {
  start_sodium();
  std::array<std::uint8_t, 32> public_key{}, secret_key{};
  crypto_box_keypair(public_key.data(), secret_key.data());
  return {z85_encode(public_key), z85_encode(secret_key)};
}

Result<std::string> public_key_of(std::string_view secret_key) {
  start_sodium();
  std::array<std::uint8_t, 32> secret{}, public_key{};
  if (!z85_decode(secret_key, secret))
    return fail(ErrorCode::kInvalidArgument,
                "not a secret key: {} characters, expected 40 of the Z85 alphabet",
                secret_key.size());
  crypto_scalarmult_base(public_key.data(), secret.data());
  return z85_encode(public_key);
}

bool is_key(std::string_view text) {
  std::array<std::uint8_t, 32> bytes{};
  return z85_decode(text, bytes);
}

std::string content_hash(std::string_view bytes) { return hex(hash32(bytes)); }

struct ContentHasher::State {
  crypto_generichash_state hash;
};

ContentHasher::ContentHasher() : state_(std::make_unique<State>()) {
  start_sodium();
  crypto_generichash_init(&state_->hash, nullptr, 0, 32);
}
ContentHasher::~ContentHasher() = default;
ContentHasher::ContentHasher(ContentHasher&&) noexcept = default;
ContentHasher& ContentHasher::operator=(ContentHasher&&) noexcept = default;

void ContentHasher::add(std::string_view bytes) {
  crypto_generichash_update(&state_->hash, reinterpret_cast<const unsigned char*>(bytes.data()),
                            bytes.size());
}

std::string ContentHasher::finish() {
  std::array<std::uint8_t, 32> digest{};
  crypto_generichash_final(&state_->hash, digest.data(), digest.size());
  return hex(digest);
}

IdBytes content_id(std::string_view bytes) {
  const auto digest = hash32(bytes);
  IdBytes id{};
  std::copy_n(digest.begin(), id.size(), id.begin());
  id[6] = static_cast<std::uint8_t>(0x80 | (id[6] & 0x0f));
  id[8] = static_cast<std::uint8_t>(0x80 | (id[8] & 0x3f));
  return id;
}

std::string random_token(std::size_t bytes) {
  start_sodium();
  std::string raw(bytes, '\0');
  randombytes_buf(raw.data(), raw.size());
  constexpr int kVariant = sodium_base64_VARIANT_URLSAFE_NO_PADDING;
  std::string text(sodium_base64_encoded_len(bytes, kVariant), '\0');
  sodium_bin2base64(text.data(), text.size(), reinterpret_cast<const unsigned char*>(raw.data()),
                    raw.size(), kVariant);
  text.pop_back();  // the final NUL
  return text;
}

}  // namespace farcall
