// farcall-relay: puts the parts together and runs them in the foreground.
#include <unistd.h>

#include <boost/program_options.hpp>
#include <iostream>

#include "base/descriptors.h"
#include "base/files.h"
#include "base/log.h"
#include "relay/server/home.h"
#include "relay/server/server.h"
#include "relay/store/sqlite/store.h"

namespace po = boost::program_options;

namespace farcall::relay {
namespace {

constexpr const char* kSoftware = "farcall-relay 0.1.0";

struct Arguments {
  std::string home, listen, log;
  int ready_fd = -1;
};

void say_ready(int fd, const std::string& address) {
  if (fd < 0) return;
  const std::string line = "ready " + address + "\n";
  if (::write(fd, line.data(), line.size()) < 0)
    log_warn("nobody reads the ready line on descriptor {}", fd);
  ::close(fd);
}

Result<void> run(const Arguments& arguments) {
  const std::filesystem::path home = arguments.home;
  auto options = read_home(home, arguments.listen);
  if (!options) return fail(options.error());
  auto lock = FileLock::acquire(home / "relay" / "relay.pid");  // says host and pid
  if (!lock)
    return fail(lock.error().code, "another relay runs on {}: {}", home.string(),
                lock.error().message);
  start_logging("relay", arguments.log);
  raise_descriptor_limit("clients");
  auto identity = read_identity(home);
  if (!identity) return fail(identity.error());
  options->owner_key = identity->keys.public_key;
  options->owner_user = identity->user;
  options->core.software = kSoftware;
  options->core.seed = Rng::from_entropy().next();
  auto store = open_sqlite_store(home / "relay" / "relay.db");
  if (!store) return fail(store.error());

  wire::Loop loop;
  loop.on_signals([&loop](int signal) {
    log_info("stopping on signal {}", signal);
    loop.stop();
  });
  std::optional<Error> failure;
  const std::string server_key = options->keys.public_key;
  auto server =
      Server::start(loop, std::move(*store), std::move(*options), [&](const Error& error) {
        failure = error;
        loop.stop();
      });
  if (!server) return fail(server.error());
  const std::string address = (*server)->address();
  if (auto done = publish_address(home, *identity, address, server_key); !done) return done;
  say_ready(arguments.ready_fd, address);
  loop.run();
  server->reset();
  if (failure) return fail(*failure);
  log_info("stopped");
  return {};
}

}  // namespace
}  // namespace farcall::relay

int main(int argc, char** argv) {
  farcall::relay::Arguments arguments;
  po::options_description options("Options");
  options.add_options()("help,h", "print this")("version", "print the version")(
      "home", po::value(&arguments.home)->default_value(farcall::farcall_home().string()),
      "folder of keys and state")("listen", po::value(&arguments.listen),
                                  "tcp://host:port instead of the configured address; port 0: any "
                                  "free one")("log", po::value(&arguments.log),
                                              "write the log there instead of to stderr")(
      "ready-fd", po::value(&arguments.ready_fd),
      "write \"ready tcp://...\" to this descriptor once connections are accepted");
  try {
    po::variables_map values;
    po::store(po::parse_command_line(argc, argv, options), values);
    po::notify(values);
    if (values.contains("help")) {
      std::cout
          << "farcall-relay keeps functions, submissions and results, and passes tasks on.\n\n"
          << options << "\nExamples:\n  farcall-relay --home ~/.farcall\n"
          << "  farcall-relay --listen tcp://0.0.0.0:7400 --log /var/log/farcall-relay.log\n";
      return 0;
    }
    if (values.contains("version")) {
      std::cout << farcall::relay::kSoftware << "\n";
      return 0;
    }
  } catch (const po::error& error) {
    std::cerr << "farcall-relay: " << error.what() << " (see farcall-relay --help)\n";
    return 64;
  }
  if (auto done = farcall::relay::run(arguments); !done) {
    std::cerr << "farcall-relay: " << done.error().message << "\n";
    return farcall::error_exit_code(done.error().code);
  }
  return 0;
}
