// farcall-pilot: the node agent that a batch job starts on each of its nodes.
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <boost/program_options.hpp>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "base/log.h"
#include "pilot/agent/agent.h"
#include "pilot/agent/guard.h"
#include "pilot/agent/node.h"

namespace {

namespace po = boost::program_options;
constexpr const char* kSoftware = "farcall " FARCALL_VERSION;
// Of what runs, after SIGTERM: batch systems give half a minute at best, and less to the slow.
constexpr farcall::Duration kTerminateGrace = std::chrono::seconds(1);

constexpr farcall::Duration kWarnedGrace = std::chrono::hours(24);

constexpr const char* kHelp =
    R"(farcall-pilot --credentials FILE [--node-rank N]

Runs tasks on this node for the interchange that made the credentials. Started by batch
jobs; ends when it is told to, when its block has ended, or when nobody answers for long.

Examples
  farcall-pilot --credentials ~/.farcall/endpoints/cluster/blocks/ID/credentials
  srun --no-kill farcall-pilot --credentials FILE      one on each node of an allocation

Options)";

int complain(const farcall::Error& error) {
  std::cerr << "farcall-pilot: " << error.message << "\n";
  return farcall::error_exit_code(error.code);
}

void on_warning(farcall::wire::Loop& loop, std::function<void()> action) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  const int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  FARCALL_CHECK(fd >= 0, "signalfd");
  loop.add_fd(fd, [fd, action = std::move(action)] {
    signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == sizeof info) action();
  });
}

int run(const std::filesystem::path& credentials_file, std::uint32_t node_rank) {
  if (const auto code = farcall::pilot::fork_guarded()) return *code;
  auto credentials = farcall::pilot::read_credentials(credentials_file);
  if (!credentials) return complain(credentials.error());
  farcall::start_logging("pilot", "", credentials->log_level);

  farcall::pilot::AgentOptions options;
  options.credentials = std::move(*credentials);
  options.credentials_file = credentials_file;
  options.node_rank = node_rank;
  options.job_start = farcall::pilot::job_start_from_environment();
  options.allocation_end = farcall::pilot::allocation_end_from_environment(farcall::read_clock());
  const char* temporary = std::getenv("TMPDIR");
  options.scratch_root = temporary != nullptr && *temporary != '\0' ? temporary : "/tmp";
  options.software = kSoftware;

  farcall::wire::Loop loop;
  farcall::pilot::Agent* running = nullptr;
  // What `#SBATCH --signal=USR1@60` sends, some time before the end: what runs may still end.
  on_warning(loop, [&running] {
    if (running != nullptr) running->terminate("received USR1", kWarnedGrace);
  });
  loop.on_signals([&running](int signal) {
    if (running != nullptr)
      running->terminate(std::string("received ") + sigabbrev_np(signal), kTerminateGrace);
  });
  auto agent = farcall::pilot::Agent::make(loop, std::move(options));
  if (!agent) return complain(agent.error());
  running = agent->get();
  loop.run();
  const auto end = (*agent)->end().value_or(farcall::pilot::Agent::End{70, "stopped"});
  if (end.code != 0) std::cerr << "farcall-pilot: " << end.why << "\n";
  return end.code;
}

}  // namespace

int main(int argc, char** argv) {
  po::options_description options(kHelp);
  options.add_options()("credentials", po::value<std::string>(), "the block's credentials file")(
      "node-rank", po::value<std::uint32_t>(),
      "of this node in its block, from 0; default: from the batch system")("help,h", "this text")(
      "version", "version of farcall");
  po::variables_map values;
  try {
    po::store(po::parse_command_line(argc, argv, options), values);
    po::notify(values);
  } catch (const po::error& error) {
    return complain({farcall::ErrorCode::kInvalidArgument,
                     std::string(error.what()) + "; see farcall-pilot --help"});
  }
  if (values.contains("help")) {
    std::cout << options << "\n";
    return 0;
  }
  if (values.contains("version")) {
    std::cout << kSoftware << "\n";
    return 0;
  }
  if (!values.contains("credentials"))
    return complain({farcall::ErrorCode::kInvalidArgument,
                     "--credentials is missing; see farcall-pilot --help"});
  return run(values["credentials"].as<std::string>(),
             values.contains("node-rank") ? values["node-rank"].as<std::uint32_t>()
                                          : farcall::pilot::node_rank_from_environment());
}
