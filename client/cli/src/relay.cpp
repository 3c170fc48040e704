// farcall relay …
#include "base/files.h"
#include "common.h"
#include "daemon.h"
#include "farcall/identity.h"

namespace farcall::cli {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

constexpr const char* kProgram = "farcall-relay";

std::optional<Daemon> running_relay(const Invocation& invocation) {
  return find_daemon(invocation.home / "relay" / "relay.pid", kProgram);
}

json local_address(const Invocation& invocation) {
  auto text = read_file(invocation.home / "relay" / "address");
  if (!text) return json::object();
  json value = json::parse(*text, nullptr, false);
  return value.is_object() ? value : json::object();
}

void say_running(const Invocation& invocation, const Daemon& daemon, bool already) {
  const json address = local_address(invocation);
  if (invocation.json) {
    print_json({{"running", true},
                {"already", already},
                {"pid", daemon.pid},
                {"address", text_at(address, "address")},
                {"server_key", text_at(address, "server_key")}});
    return;
  }
  fmt::print("relay {}: {} (pid {}{})\n", already ? "runs already" : "started",
             text_at(address, "address"), daemon.pid,
             daemon.host.empty() ? "" : " on " + daemon.host);
}

// The local user's identity follows the relay when it got another port.
Result<void> follow_address(const Invocation& invocation) {
  const fs::path path = invocation.home / "identity";
  auto identity = read_identity(path);
  if (!identity) {
    if (identity.error().code != ErrorCode::kNotFound) return fail(identity.error());
    return fail(ErrorCode::kInternal, "the relay runs, but it wrote no identity for you to {}",
                path.string());
  }
  const json local = local_address(invocation);
  const std::string address = text_at(local, "address");
  const bool ours = identity->server_key == text_at(local, "server_key");
  if (!ours) {
    fmt::print(stderr,
               "farcall: note: your identity belongs to another relay ({}); commands go on talking "
               "to that one\n",
               identity->relay);
    return {};
  }
  if (identity->relay == address) return {};
  identity->relay = address;
  return write_identity(path, *identity);
}

Result<int> start(const Invocation& invocation) {
  if (auto daemon = running_relay(invocation)) {
    say_running(invocation, *daemon, true);
    return 0;
  }
  std::vector<std::string> argv = {kProgram, "--home", invocation.home.string()};
  if (invocation.has("listen")) argv.insert(argv.end(), {"--listen", invocation.text("listen")});
  if (invocation.has("foreground")) return fail(become_daemon(argv));
  for (const fs::path& folder : {invocation.home, invocation.home / "relay"})
    if (auto made = make_directory(folder, 0700); !made) return fail(made.error());
  argv.insert(argv.end(), {"--log", (invocation.home / "relay" / "relay.log").string()});
  DaemonStart daemon{argv, invocation.home / "relay" / "relay.out", std::chrono::seconds(30)};
  auto ready = start_daemon(daemon);
  if (!ready) return fail(ready.error());
  if (auto done = follow_address(invocation); !done) return fail(done.error());
  auto found = running_relay(invocation);
  say_running(invocation, found.value_or(Daemon{}), false);
  return 0;
}

Result<int> stop(const Invocation& invocation) {
  auto daemon = running_relay(invocation);
  if (!daemon) {
    if (invocation.json)
      print_json({{"running", false}, {"stopped", false}});
    else
      fmt::print("no relay of {} runs\n", invocation.home.string());
    return 0;
  }
  if (!daemon->host.empty())
    return fail(ErrorCode::kInvalidArgument, "the relay runs on host {} (pid {}): stop it there",
                daemon->host, daemon->pid);
  if (auto stopped = stop_daemon(daemon->pid, std::chrono::seconds(30)); !stopped)
    return fail(stopped.error());
  if (invocation.json)
    print_json({{"running", false}, {"stopped", true}});
  else
    fmt::print("relay stopped\n");
  return 0;
}

Result<int> status(const Invocation& invocation) {
  const auto daemon = running_relay(invocation);
  auto client = connect(invocation);
  json state = {{"local_pid", daemon ? json(daemon->pid) : json(nullptr)},
                {"log", (invocation.home / "relay" / "relay.log").string()},
                {"reachable", client.has_value()}};
  if (client) {
    const RelayInfo info = (*client)->relay();
    state["address"] = info.address;
    state["software"] = info.software;
    state["user"] = info.user;
    state["generation"] = info.generation;
  }
  if (invocation.json) {
    if (!client) state["error"] = client.error().message;
    print_json(state);
  } else if (client) {
    fmt::print("relay {} answers: {}, you are {}{}\n", text_at(state, "address"),
               text_at(state, "software"), text_at(state, "user"),
               daemon ? fmt::format(", pid {} on this host", daemon->pid) : "");
  } else if (daemon) {
    fmt::print("a relay of {} runs (pid {}), but: {}\nits log: {}\n", invocation.home.string(),
               daemon->pid, client.error().message, text_at(state, "log"));
  } else if (fs::exists(invocation.home / "relay" / "address")) {
    fmt::print("the relay of {} does not run; start it with `farcall relay start`\n",
               invocation.home.string());
  } else {
    fmt::print("{}\n", client.error().message);
  }
  return client ? 0 : error_exit_code(client.error().code);
}

Result<int> invite(const Invocation& invocation) {
  auto ttl = invocation.duration("valid", 7 * 86400.0);
  if (!ttl) return fail(ttl.error());
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto answer = call_json(**client, "invite",
                          {{"user", invocation.words[0]}, {"ttl_s", static_cast<long long>(*ttl)}});
  if (!answer) return fail(answer.error());
  const std::string invitation = text_at(*answer, "invitation");
  if (invocation.json) {
    print_json(*answer);
  } else {
    fmt::print("farcall login '{}'\n", invitation);
    fmt::print(stderr, "for {} to type, once, within {:.0f} h; keep it secret until then\n",
               invocation.words[0], *ttl / 3600);
  }
  return 0;
}

}  // namespace

std::vector<Command> relay_commands() {
  Command start_command{"relay start", "", 0, 0, false, "start a relay on this machine", "", "", {},
                        start};
  start_command.details =
      "Runs in the background and prints its address. The first start makes its keys and enrols\n"
      "you, so that every other command works at once. State: HOME/relay; settings, if any are to\n"
      "differ: HOME/relay/config.yaml (docs/relay.md lists its keys).";
  start_command.examples =
      "farcall relay start\n"
      "farcall relay start --listen tcp://0.0.0.0:7400     # for other machines, too\n"
      "farcall relay start --listen tcp://127.0.0.1:0      # any free port";
  start_command.options = {
      {"listen", "ADDRESS", "where to listen (tcp://127.0.0.1:7400); port 0: any free one"},
      {"foreground", "", "stay in the foreground, log to stderr"}};
  Command invite_command{
      "relay invite", "NAME", 1, 1, false, "print an invitation for another user", "", "", {},
      invite};
  invite_command.examples = "farcall relay invite ada\nfarcall relay invite ada --valid 1h";
  invite_command.options = {{"valid", "TIME", "how long it can be used (7 days)"}};
  return {start_command,
          {"relay stop",
           "",
           0,
           0,
           false,
           "stop the relay of this machine",
           "Nothing is lost: what is queued or running goes on when it starts again.",
           "farcall relay stop",
           {},
           stop},
          {"relay status",
           "",
           0,
           0,
           false,
           "does the relay answer, and who am I there",
           "",
           "farcall relay status\nfarcall relay status --json",
           {},
           status},
          invite_command};
}

}  // namespace farcall::cli
