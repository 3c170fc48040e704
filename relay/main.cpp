// farcall-relay: composition root.
#include <unistd.h>

#include <boost/program_options.hpp>
#include <iostream>

#include "base/files.h"
#include "base/log.h"
#include "relay/server/server.h"
#include "relay/store/sqlite_store.h"

namespace {

namespace po = boost::program_options;
using farcall::Result;

constexpr char kVersion[] = "farcall 0.1.0";
constexpr char kHelp[] =
    "farcall-relay keeps functions, submissions and results in HOME/relay and answers clients and\n"
    "interchanges. People start it with `farcall relay start`.\n\n"
    "Examples:\n"
    "  farcall-relay --home ~/.farcall\n"
    "  farcall-relay --home /srv/farcall --listen tcp://0.0.0.0:7400 --log /srv/farcall/relay/relay.log\n\n";

struct Options {
  std::string home, listen, log;
  int ready_fd = -1;
};

Result<void> serve(const Options& options) {
  farcall::wire::Loop loop;
  bool stopping = false;
  loop.on_signals([&](int) {
    stopping = true;
    loop.stop();
  });
  auto home = farcall::relay::open_relay_home(options.home, options.listen);
  if (!home) return farcall::fail(home.error());
  farcall::start_logging("relay", options.log);
  auto lock = farcall::FileLock::acquire(home->directory / "relay.pid");
  if (!lock) return farcall::fail(lock.error());
  auto store = farcall::relay::open_sqlite_store(home->directory / "relay.db");
  if (!store) return farcall::fail(store.error());
  // The owner is enrolled before anybody can connect.
  auto enrolled = (*store)->apply({farcall::relay::UserRow{home->owner_key, home->options.settings.owner}});
  if (!enrolled) return farcall::fail(enrolled.error());
  auto contents = (*store)->load();
  if (!contents) return farcall::fail(contents.error());
  home->options.settings.software = kVersion;
  auto server = farcall::relay::Server::open(loop, home->options, std::move(*store), std::move(*contents));
  if (!server) return farcall::fail(server.error());
  const std::string address = (*server)->address();
  if (auto done = farcall::relay::publish_address(*home, options.home, address); !done) return done;
  farcall::log_info("listening on {}", address);
  const std::string ready = "ready " + address + "\n";
  if (options.ready_fd >= 0) {
    (void)!write(options.ready_fd, ready.data(), ready.size());
    close(options.ready_fd);
  }
  loop.run();
  farcall::log_info("stopped");
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  po::options_description description("Options");
  description.add_options()("home", po::value(&options.home)->default_value(farcall::farcall_home().string()),
                            "FARCALL_HOME")(
      "listen", po::value(&options.listen), "tcp://ADDRESS:PORT; default: relay/config.yaml, else tcp://127.0.0.1:7400")(
      "log", po::value(&options.log), "file to log to; default: standard error")(
      "ready-fd", po::value(&options.ready_fd), "descriptor that gets \"ready ADDRESS\" when it listens")(
      "version", "print the version")("help,h", "print this text");
  try {
    po::variables_map values;
    po::store(po::parse_command_line(argc, argv, description), values);
    po::notify(values);
    if (values.count("help") != 0) {
      std::cout << kHelp << description;
      return 0;
    }
    if (values.count("version") != 0) {
      std::cout << kVersion << "\n";
      return 0;
    }
  } catch (const po::error& error) {
    std::cerr << "farcall-relay: " << error.what() << "; see --help\n";
    return 64;
  }
  if (auto served = serve(options); !served) {
    std::cerr << "farcall-relay: " << served.error().message << "\n";
    return farcall::error_exit_code(served.error().code);
  }
  return 0;
}
