#include "farcall/identity.h"

#include <nlohmann/json.hpp>

#include "base/files.h"

namespace farcall {

namespace {

constexpr std::string_view kHowToGetOne =
    "start a relay on this machine with `farcall relay start`, or `farcall login INVITATION`";

// The text of a member, empty when it is missing or no text.
std::string member(const nlohmann::json& object, const char* key) {
  auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

Result<Identity> read_identity(const std::filesystem::path& path) {
  Result<std::string> text = read_secret_file(path);
  if (!text) {
    if (text.error().code != ErrorCode::kNotFound) return fail(text.error());
    return fail(ErrorCode::kNotFound, "no identity in {}: {}", path.parent_path().string(),
                kHowToGetOne);
  }
  const auto fields = nlohmann::json::parse(*text, nullptr, false);
  if (!fields.is_object())
    return fail(ErrorCode::kCorrupt, "the identity {} is no JSON object; remove it and {}",
                path.string(), kHowToGetOne);
  Identity identity{member(fields, "relay"),
                    member(fields, "server_key"),
                    {member(fields, "public_key"), member(fields, "secret_key")},
                    member(fields, "user")};
  for (const auto& [name, value] : {std::pair{"server_key", &identity.server_key},
                                    std::pair{"public_key", &identity.keys.public_key},
                                    std::pair{"secret_key", &identity.keys.secret_key}}) {
    if (!is_key(*value))
      return fail(ErrorCode::kCorrupt,
                  "the identity {}: {} is not a key of 40 Z85 characters; remove the file and {}",
                  path.string(), name, kHowToGetOne);
  }
  if (identity.relay.empty())
    return fail(ErrorCode::kCorrupt, "the identity {} names no relay; remove it and {}",
                path.string(), kHowToGetOne);
  return identity;
}

Result<void> write_identity(const std::filesystem::path& path, const Identity& identity) {
  const nlohmann::json fields = {{"relay", identity.relay},
                                 {"server_key", identity.server_key},
                                 {"public_key", identity.keys.public_key},
                                 {"secret_key", identity.keys.secret_key},
                                 {"user", identity.user}};
  if (auto made = make_directory(path.parent_path(), 0700); !made) return fail(made.error());
  return write_file(path, fields.dump(2) + "\n", 0600);
}

Result<Invitation> parse_invitation(std::string_view text) {
  const std::size_t first = text.find('|');
  const std::size_t second = first == text.npos ? text.npos : text.find('|', first + 1);
  if (second == text.npos || text.find('\n') != text.npos)
    return fail(ErrorCode::kInvalidArgument,
                "this is no invitation: expected tcp://HOST:PORT|SERVER KEY|TOKEN as printed by "
                "`farcall relay invite NAME`; put it in single quotes");
  Invitation invitation{std::string(text.substr(0, first)),
                        std::string(text.substr(first + 1, second - first - 1)),
                        std::string(text.substr(second + 1))};
  if (!invitation.relay.starts_with("tcp://"))
    return fail(ErrorCode::kInvalidArgument,
                "the invitation's address is \"{}\", expected tcp://HOST:PORT", invitation.relay);
  if (!is_key(invitation.server_key))
    return fail(ErrorCode::kInvalidArgument,
                "the invitation's server key is {} characters of something else than Z85, expected "
                "40; copy all of it, in single quotes",
                invitation.server_key.size());
  if (invitation.token.empty())
    return fail(ErrorCode::kInvalidArgument, "the invitation has no token at its end");
  return invitation;
}

}  // namespace farcall
