#include "site.h"

#include <unistd.h>

#include <charconv>
#include <fstream>
#include <sstream>
#include <utility>

#include "base/files.h"
#include "base/subprocess.h"

namespace farcall::bench {

namespace fs = std::filesystem;

namespace {

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::uint64_t number_after(const std::string& text, std::string_view label) {
  const auto at = text.find(label);
  if (at == std::string::npos) return 0;
  const auto start = text.find_first_of("0123456789", at + label.size());
  if (start == std::string::npos) return 0;
  std::uint64_t value = 0;
  std::from_chars(text.data() + start, text.data() + text.size(), value);
  return value;
}

// What we call the process; empty: none of this site's.
std::string role_of(const fs::path& process, const fs::path& home) {
  if (process.filename() == std::to_string(getpid())) return "client";
  std::string command = slurp(process / "cmdline");
  if (command.find(home.string()) == std::string::npos &&
      slurp(process / "environ").find(home.string()) == std::string::npos)
    return "";
  const std::string program = fs::path(command.substr(0, command.find('\0'))).filename();
  if (program == "farcall-relay") return "relay";
  if (program == "farcall-interchange") return "interchange";
  if (program == "farcall-pilot") return "pilot";
  if (program == "farcall-bench-pilots") return "simulated pilots";
  if (command.find("python_runner") != std::string::npos || program == "farcall-native-runner")
    return "workers";
  return "others";
}

}  // namespace

Site::Site(fs::path programs, fs::path home)
    : programs_(std::move(programs)), home_(std::move(home)) {}
Site::Site(Site&& other) noexcept
    : programs_(std::move(other.programs_)),
      home_(std::exchange(other.home_, {})),
      simulation_(std::exchange(other.simulation_, nullptr)),
      relay_start_s_(other.relay_start_s_),
      endpoint_start_s_(other.endpoint_start_s_) {}

Site::~Site() {
  if (home_.empty()) return;
  (void)farcall({"endpoint", "stop", "here"});
  if (simulation_ != nullptr) pclose(simulation_);  // ends with the endpoint
  (void)farcall({"relay", "stop"});
  std::error_code error;
  fs::remove_all(home_, error);
}

Result<double> Site::farcall(const std::vector<std::string>& arguments) const {
  Command command;
  command.argv = {(programs_ / "farcall").string()};
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  command.extra_environment = {{"FARCALL_HOME", home_.string()}};
  command.time_limit = std::chrono::seconds(120);
  auto done = run_command(command);
  if (!done) return fail(done.error());
  if (done->exit_code != 0)
    return fail(ErrorCode::kIo, "{} ended with code {}: {}", shell_join(command.argv),
                done->exit_code, done->err);
  return std::chrono::duration<double>(done->took).count();
}

Result<Site> Site::start(const fs::path& programs, const SiteOptions& options) {
  std::string pattern = (fs::temp_directory_path() / "farcall-bench-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr)
    return fail(ErrorCode::kIo, "cannot make a folder like {}", pattern);
  Site site(programs, pattern);
  auto relay = site.farcall({"relay", "start", "--listen", "tcp://127.0.0.1:0"});
  if (!relay) return fail(relay.error());
  site.relay_start_s_ = *relay;
  std::vector<std::string> configure = {
      "endpoint",
      "configure",
      "here",
      "--provider",
      "local",
      "--set",
      fmt::format("engine.max_workers_per_node={}", options.workers)};
  if (options.simulated_pilots > 0)
    configure.insert(configure.end(), {"--set", "engine.provider.worker_init=exec sleep 86400",
                                       "--set", "engine.provider.min_blocks=1"});
  auto configured = site.farcall(configure);
  if (!configured) return fail(configured.error());
  auto endpoint = site.farcall({"endpoint", "start", "here"});
  if (!endpoint) return fail(endpoint.error());
  site.endpoint_start_s_ = *endpoint;
  if (options.simulated_pilots > 0)
    if (auto simulated = site.simulate(options); !simulated) return fail(simulated.error());
  return site;
}

Result<void> Site::simulate(const SiteOptions& options) {
  const fs::path blocks = home_ / "endpoints/here/blocks";
  fs::path credentials;
  for (int tries = 0; credentials.empty() && tries < 1000; ++tries) {
    std::error_code error;
    for (const auto& block : fs::directory_iterator(blocks, error))
      if (fs::exists(block.path() / "credentials")) credentials = block.path() / "credentials";
    if (credentials.empty()) usleep(10'000);
  }
  if (credentials.empty())
    return fail(ErrorCode::kTimeout, "no block has credentials in {} after 10 s", blocks.string());
  const std::string command =
      "exec " +
      shell_join({(programs_ / "farcall-bench-pilots").string(), "--credentials",
                  credentials.string(), "--pilots", std::to_string(options.simulated_pilots),
                  "--slots", std::to_string(options.workers)});
  simulation_ = popen(command.c_str(), "r");
  char line[256];
  if (simulation_ == nullptr || std::fgets(line, sizeof line, simulation_) == nullptr)
    return fail(ErrorCode::kIo, "{} did not connect its pilots", command);
  return {};
}

Usages Site::usage() const {
  const double tick = 1.0 / static_cast<double>(sysconf(_SC_CLK_TCK));
  Usages usages;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string role = role_of(entry.path(), home_);
    if (role.empty()) continue;
    const std::string stat = slurp(entry.path() / "stat");
    const auto after_name = stat.rfind(')');
    if (after_name == std::string::npos) continue;
    std::istringstream fields(stat.substr(after_name + 2));
    std::string skipped;
    for (int i = 0; i < 11; ++i) fields >> skipped;  // up to utime, the 14th field of stat
    double user = 0, system = 0;
    fields >> user >> system;
    Usage& usage = usages[role];
    usage.user_s += user * tick;
    usage.system_s += system * tick;
    usage.peak_kib += number_after(slurp(entry.path() / "status"), "VmHWM:");
  }
  return usages;
}

Hops Site::hops() const {
  auto listed = run_command({.argv = {"ss", "-tinpOH", "state", "established"}});
  Hops hops;
  if (!listed) return hops;
  std::istringstream lines(listed->out);
  for (std::string line; std::getline(lines, line);) {
    const auto pid = number_after(line, "pid=");
    if (pid == 0) continue;
    const std::string role = role_of(fs::path("/proc") / std::to_string(pid), home_);
    const std::string hop = role == "client"        ? "client-relay"
                            : role == "interchange" ? "relay-interchange"
                            : role == "pilot"       ? "interchange-pilot"
                                                    : "";
    if (hop.empty()) continue;
    // Each connection is counted at the end that dials; the interchange has both kinds.
    const std::string peer_port = line.substr(0, line.find(" users:"));
    if (role == "interchange" && hops.contains("relay-interchange") &&
        line.find(":" + slurp(home_ / "endpoints/here/port") + " ") != std::string::npos)
      continue;
    hops[hop] += number_after(line, "bytes_sent:") + number_after(line, "bytes_received:");
  }
  return hops;
}

}  // namespace farcall::bench
