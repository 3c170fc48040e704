// farcall endpoint …
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "base/config.h"
#include "base/files.h"
#include "base/keys.h"
#include "base/subprocess.h"
#include "cli/table.h"
#include "common.h"
#include "daemon.h"
#include "endpoint_files.h"
#include "farcall/identity.h"

namespace farcall::cli {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

std::optional<Daemon> running_endpoint(const fs::path& folder) {
  return find_daemon(folder / "interchange.pid", kProgram);
}

// Registers the endpoint under a key of its own, which only the interchange uses.
Result<void> enrol(const Invocation& invocation, const fs::path& folder) {
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto identity = read_identity(invocation.home / "identity");
  if (!identity) return fail(identity.error());
  const fs::path path = folder / "key";
  KeyPair keys;
  if (auto text = read_secret_file(path)) {
    const json old = json::parse(*text, nullptr, false);
    if (old.is_object()) keys = {text_at(old, "public_key"), text_at(old, "secret_key")};
  } else if (text.error().code != ErrorCode::kNotFound) {
    return fail(text.error());
  }
  if (!is_key(keys.public_key) || !is_key(keys.secret_key)) keys = make_key_pair();
  auto answer = call_json(**client, "endpoint.register",
                          {{"name", invocation.words[0]}, {"key", keys.public_key}});
  if (!answer) return fail(answer.error());
  const json file = {{"endpoint_id", text_at(*answer, "endpoint_id")},
                     {"public_key", keys.public_key},
                     {"secret_key", keys.secret_key},
                     {"relay", (*client)->relay().address},
                     {"server_key", identity->server_key}};
  return write_file(path, file.dump(2) + "\n", 0600);
}

void say_started(const Invocation& invocation, const fs::path& folder, bool already) {
  const auto daemon = running_endpoint(folder).value_or(Daemon{});
  if (invocation.json) {
    print_json({{"endpoint", invocation.words[0]},
                {"running", true},
                {"already", already},
                {"pid", daemon.pid},
                {"host", daemon.host.empty() ? host_name() : daemon.host}});
  } else {
    fmt::print("endpoint {} {} (pid {}{})\n", invocation.words[0],
               already ? "runs already" : "started", daemon.pid,
               daemon.host.empty() ? "" : " on " + daemon.host);
  }
}

Result<int> start(const Invocation& invocation) {
  if (auto fine = must_be_configured(invocation); !fine) return fail(fine.error());
  const fs::path folder = folder_of(invocation);
  if (running_endpoint(folder)) {
    say_started(invocation, folder, true);
    return 0;
  }
  if (auto fine = check_config_file(folder / "config.yaml"); !fine) return fail(fine.error());
  if (auto done = enrol(invocation, folder); !done) return fail(done.error());
  std::vector<std::string> argv = {kProgram, "--directory", folder.string()};
  if (invocation.has("take-over")) argv.push_back("--take-over");
  if (invocation.has("foreground")) return fail(become_daemon(argv));
  argv.insert(argv.end(), {"--log", (folder / "interchange.log").string()});
  auto limit = invocation.duration("timeout", 60);
  if (!limit) return fail(limit.error());
  DaemonStart daemon{argv, folder / "interchange.out",
                     std::chrono::milliseconds(static_cast<long long>(*limit * 1000))};
  auto ready = start_daemon(daemon);
  if (!ready) return fail(ready.error());
  say_started(invocation, folder, false);
  return 0;
}

Result<bool> stop_local(const Invocation& invocation, const fs::path& folder) {
  auto daemon = running_endpoint(folder);
  if (!daemon) return false;
  if (!daemon->host.empty())
    return fail(ErrorCode::kInvalidArgument, "endpoint {} runs on host {} (pid {}): stop it there",
                invocation.words[0], daemon->host, daemon->pid);
  auto limit = invocation.duration("timeout", 120);
  if (!limit) return fail(limit.error());
  const auto time = std::chrono::milliseconds(static_cast<long long>(*limit * 1000));
  if (auto stopped = stop_daemon(daemon->pid, time); !stopped)
    return fail(stopped.error().code, "endpoint {}: {}; its log: {}", invocation.words[0],
                stopped.error().message, (folder / "interchange.log").string());
  return true;
}

Result<int> stop(const Invocation& invocation) {
  if (auto fine = must_be_configured(invocation); !fine) return fail(fine.error());
  auto stopped = stop_local(invocation, folder_of(invocation));
  if (!stopped) return fail(stopped.error());
  if (invocation.json)
    print_json({{"endpoint", invocation.words[0]}, {"stopped", *stopped}});
  else
    fmt::print("endpoint {} {}\n", invocation.words[0], *stopped ? "stopped" : "does not run");
  return 0;
}

Result<int> restart(const Invocation& invocation) {
  if (auto fine = must_be_configured(invocation); !fine) return fail(fine.error());
  if (auto fine = check_config_file(folder_of(invocation) / "config.yaml"); !fine)
    return fail(fine.error());
  auto stopped = stop_local(invocation, folder_of(invocation));
  if (!stopped) return fail(stopped.error());
  return start(invocation);
}

void print_status(const json& endpoint, const std::optional<Daemon>& daemon) {
  fmt::print("endpoint  {}  ({})\n", text_at(endpoint, "name"), text_at(endpoint, "endpoint_id"));
  const bool online = endpoint.value("online", false);
  fmt::print("state     {}{}\n", online ? "online" : "offline",
             daemon ? fmt::format(", interchange pid {} {}", daemon->pid,
                                  daemon->host.empty() ? "on this host" : "on " + daemon->host)
                    : "");
  if (!online) fmt::print("last seen {}\n", format_time(number_at(endpoint, "last_seen_ms")));
  const json status = endpoint.value("status", json::object());
  if (!status.is_object() || status.empty()) return;
  const json slots = status.value("slots", json::object());
  fmt::print("work      {} queued, {} running; {} of {} slots busy; {} pilots\n",
             number_at(status, "queued"), number_at(status, "running"), number_at(slots, "busy"),
             number_at(slots, "total"), number_at(status, "pilots"));
  if (const std::string paused = text_at(status, "paused"); !paused.empty())
    fmt::print("paused    {}\n", paused);
  if (status.value("draining", false))
    fmt::print("drained   gets no new blocks or tasks; `farcall endpoint resume {}` goes on\n",
               text_at(endpoint, "name"));
  if (const json scheduler = status.value("scheduler", json::object()); scheduler.is_object()) {
    fmt::print("scheduler {} calls in the last hour", number_at(scheduler, "calls_per_hour"));
    if (const auto silent = number_at(scheduler, "unanswered_s"); silent > 0)
      fmt::print(", has not answered for {} s", silent);
    if (const std::string error = text_at(scheduler, "last_error"); !error.empty())
      fmt::print("; {}", error);
    fmt::print("\n");
  }
  if (const json budget = status.value("budget", json::object()); budget.is_object()) {
    const double most = budget.value("core_hours_max", 0.0);
    fmt::print("budget    {:.2f} core-hours used, {:.2f} more given to blocks{}\n",
               budget.value("core_hours_used", 0.0), budget.value("core_hours_committed", 0.0),
               most > 0 ? fmt::format(", of {:g}", most) : "");
  }
  for (const json& node : status.value("bad_nodes", json::array()))
    fmt::print("bad node  {}: {}\n", text_at(node, "node"), text_at(node, "reason"));
  std::vector<std::vector<std::string>> rows;
  for (const json& block : status.value("blocks", json::array()))
    rows.push_back({text_at(block, "block_id").substr(0, 13), text_at(block, "job_id"),
                    text_at(block, "job_name"), text_at(block, "state"), text_at(block, "nodes"),
                    text_at(block, "reason")});
  if (!rows.empty())
    fmt::print("\n{}", format_table({"BLOCK", "JOB", "NAME", "STATE", "NODES", "REASON"}, rows));
}

Result<int> status(const Invocation& invocation) {
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto id = (*client)->find_endpoint(invocation.words[0]);
  if (!id) {
    if (auto fine = must_be_configured(invocation); !fine) return fail(id.error());
    return fail(
        ErrorCode::kNotFound,
        "endpoint \"{}\" is configured here, but was never started: `farcall endpoint start "
        "{}`",
        invocation.words[0], invocation.words[0]);
  }
  auto answer = call_json(**client, "endpoint.status", {{"endpoint", id->string()}});
  if (!answer) return fail(answer.error());
  if (invocation.json)
    print_json(*answer);
  else
    print_status(*answer, running_endpoint(folder_of(invocation)));
  return 0;
}

Result<int> call_by_name(const Invocation& invocation, const std::string& method,
                         const std::string& done) {
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto id = (*client)->find_endpoint(invocation.words[0]);
  if (!id) return fail(id.error());
  auto answer = call_json(**client, method, {{"endpoint", id->string()}});
  if (!answer) return fail(answer.error());
  if (invocation.json)
    print_json({{"endpoint", invocation.words[0]}, {done, true}});
  else
    fmt::print("endpoint {} {}\n", invocation.words[0], done);
  return 0;
}

Result<int> drain(const Invocation& invocation) {
  return call_by_name(invocation, "endpoint.drain", "drained");
}
Result<int> resume(const Invocation& invocation) {
  return call_by_name(invocation, "endpoint.resume", "resumed");
}

Result<int> list(const Invocation& invocation) {
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto answer = call_json(**client, "endpoint.list");
  if (!answer) return fail(answer.error());
  json endpoints = answer->value("endpoints", json::array());
  for (const std::string& name : local_endpoints(invocation)) {
    auto same = [&](const json& endpoint) { return text_at(endpoint, "name") == name; };
    if (std::none_of(endpoints.begin(), endpoints.end(), same))
      endpoints.push_back({{"name", name},
                           {"endpoint_id", nullptr},
                           {"online", false},
                           {"last_seen_ms", 0},
                           {"host", ""},
                           {"status", nullptr}});
  }
  if (invocation.json) {
    print_json({{"endpoints", endpoints}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const json& endpoint : endpoints) {
    const bool known = !text_at(endpoint, "endpoint_id").empty();
    rows.push_back(
        {text_at(endpoint, "name"),
         endpoint.value("online", false) ? "online" : (known ? "offline" : "never started"),
         text_at(endpoint, "host"), format_time(number_at(endpoint, "last_seen_ms")),
         known ? text_at(endpoint, "endpoint_id") : "-"});
  }
  fmt::print("{}", format_table({"NAME", "STATE", "HOST", "LAST SEEN (UTC)", "ID"}, rows));
  return 0;
}

std::string last_lines(const std::string& text, std::size_t count) {
  std::size_t at = text.size();
  for (std::size_t found = 0; at > 0; --at)
    if (text[at - 1] == '\n' && at != text.size() && ++found == count) break;
  return text.substr(at);
}

Result<int> logs(const Invocation& invocation) {
  if (auto fine = must_be_configured(invocation); !fine) return fail(fine.error());
  auto count = invocation.number("lines", 50);
  if (!count) return fail(count.error());
  const fs::path path = folder_of(invocation) / "interchange.log";
  auto text = read_file(path);
  if (!text)
    return fail(ErrorCode::kNotFound, "endpoint {} has no log yet ({}): it was never started",
                invocation.words[0], path.string());
  fmt::print("{}", last_lines(*text, static_cast<std::size_t>(*count)));
  if (!invocation.has("follow")) return 0;
  catch_interrupts();
  std::ifstream file(path);
  file.seekg(static_cast<std::streamoff>(text->size()));
  while (!interrupted()) {
    for (std::string line; std::getline(file, line);) fmt::print("{}\n", line);
    std::fflush(stdout);
    file.clear();
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  return kInterruptedExitCode;
}

Result<int> remove_endpoint(const Invocation& invocation) {
  const fs::path folder = folder_of(invocation);
  const bool local = fs::exists(folder / "config.yaml");
  if (local && running_endpoint(folder)) {
    if (!invocation.has("force"))
      return fail(ErrorCode::kBusy,
                  "endpoint {} runs: `farcall endpoint stop {}` first, or --force",
                  invocation.words[0], invocation.words[0]);
    if (auto stopped = stop_local(invocation, folder); !stopped) return fail(stopped.error());
  }
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto id = (*client)->find_endpoint(invocation.words[0]);
  if (!id && !local) return fail(id.error());
  if (id) {
    auto answer = call_json(**client, "endpoint.delete",
                            {{"endpoint", id->string()}, {"force", invocation.has("force")}});
    if (!answer) return fail(answer.error());
  }
  std::error_code error;
  if (local) fs::remove_all(folder, error);
  if (error)
    return fail(ErrorCode::kIo, "{} cannot be removed: {}", folder.string(), error.message());
  if (invocation.json)
    print_json({{"deleted", invocation.words[0]}});
  else
    fmt::print("endpoint {} deleted\n", invocation.words[0]);
  return 0;
}

}  // namespace

std::vector<Command> endpoint_commands() {
  const std::vector<Option> start_options = {
      {"timeout", "TIME", "how long to wait until it is known at the relay (60 s)"},
      {"take-over", "", "although it runs elsewhere; that one stops"},
      {"foreground", "", "stay in the foreground, log to stderr"}};
  return {
      configure_command(),
      script_command(),
      {"endpoint start", "NAME", 1, 1, false, "start an endpoint on this machine",
       "Registers it at the relay the first time, starts farcall-interchange in the background "
       "and\n"
       "waits until the relay knows it.",
       "farcall endpoint start cluster", start_options, start},
      {"endpoint stop",
       "NAME",
       1,
       1,
       false,
       "stop it; its batch jobs are ended",
       "Tasks that are not finished wait at the relay for its next start.",
       "farcall endpoint stop cluster",
       {{"timeout", "TIME", "how long to wait until it is gone (120 s)"}},
       stop},
      {"endpoint restart", "NAME", 1, 1, false, "stop and start, with the config as it is now", "",
       "farcall endpoint restart cluster", start_options, restart},
      {"endpoint status",
       "NAME",
       1,
       1,
       false,
       "what it has: blocks, slots, tasks",
       "",
       "farcall endpoint status cluster\nfarcall endpoint status cluster --json",
       {},
       status},
      {"endpoint drain",
       "NAME",
       1,
       1,
       false,
       "let what runs end, start nothing more",
       "Waiting batch jobs are cancelled, running ones end with the tasks that run on them; tasks\n"
       "that wait stay where they are. Until `farcall endpoint resume`, also when the endpoint is\n"
       "stopped and started meanwhile.",
       "farcall endpoint drain cluster",
       {},
       drain},
      {"endpoint resume",
       "NAME",
       1,
       1,
       false,
       "go on after a drain, or after blocks that failed",
       "Also forgets which nodes were bad.",
       "farcall endpoint resume cluster",
       {},
       resume},
      {"endpoint list", "", 0, 0, false, "all my endpoints", "", "farcall endpoint list", {}, list},
      {"endpoint logs",
       "NAME",
       1,
       1,
       false,
       "the end of its log",
       "",
       "farcall endpoint logs cluster\nfarcall endpoint logs cluster -n 200 --follow",
       {{"lines,n", "N", "how many lines (50)"}, {"follow,f", "", "go on until Ctrl-C"}},
       logs},
      {"endpoint delete",
       "NAME",
       1,
       1,
       false,
       "remove it here and at the relay",
       "",
       "farcall endpoint delete cluster",
       {{"force", "", "stop it first and cancel its unfinished tasks"}},
       remove_endpoint},
  };
}

}  // namespace farcall::cli
