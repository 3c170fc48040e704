// farcall login, farcall whoami.
#include "base/files.h"
#include "base/keys.h"
#include "common.h"
#include "farcall/identity.h"

namespace farcall::cli {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

Result<int> login(const Invocation& invocation) {
  auto invitation = parse_invitation(invocation.words[0]);
  if (!invitation) return fail(invitation.error());
  const fs::path path = invocation.home / "identity";
  if (fs::exists(path) && !invocation.has("replace")) {
    auto present = read_identity(path);
    return fail(ErrorCode::kExists,
                "you have an identity already ({}, {} at {}); use another --home, or --replace it",
                path.string(), present ? present->user : "damaged", present ? present->relay : "?");
  }
  // Kept aside until the relay has taken the key: a used or wrong invitation changes nothing.
  const fs::path fresh = invocation.home / "identity.new";
  Identity identity{invocation.relay.empty() ? invitation->relay : invocation.relay,
                    invitation->server_key, make_key_pair(), ""};
  if (auto written = write_identity(fresh, identity); !written) return fail(written.error());
  ClientOptions options;
  options.home = invocation.home;
  options.identity = fresh;
  options.invitation = invitation->token;
  auto client = Client::connect(std::move(options));
  if (!client) {
    std::error_code ignored;
    fs::remove(fresh, ignored);
    return fail(client.error());
  }
  identity.user = (*client)->relay().user;
  if (auto written = write_identity(path, identity); !written) return fail(written.error());
  std::error_code ignored;
  fs::remove(fresh, ignored);
  if (invocation.json)
    print_json({{"user", identity.user}, {"relay", identity.relay}});
  else
    fmt::print("you are {} at {}\n", identity.user, identity.relay);
  return 0;
}

Result<int> whoami(const Invocation& invocation) {
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto answer = call_json(**client, "whoami");
  if (!answer) return fail(answer.error());
  if (invocation.json)
    print_json(*answer);
  else
    fmt::print("{} at {} ({})\nkey {}\n", text_at(*answer, "user"), (*client)->relay().address,
               text_at(*answer, "relay"), text_at(*answer, "key"));
  return 0;
}

}  // namespace

std::vector<Command> login_commands() {
  return {{"login",
           "INVITATION",
           1,
           1,
           false,
           "become a user of a relay",
           "Makes a key pair and enrols it with the invitation that the relay's owner got from\n"
           "`farcall relay invite NAME`. The secret key stays in HOME/identity (0600).",
           "farcall login 'tcp://relay.example.org:7400|…|…'",
           {{"replace", "", "replace the identity that is there"}},
           login},
          {"whoami",
           "",
           0,
           0,
           false,
           "who the relay takes me for",
           "",
           "farcall whoami\nfarcall whoami --json",
           {},
           whoami}};
}

}  // namespace farcall::cli
