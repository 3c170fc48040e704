// farcall-interchange: composition root.
#include <unistd.h>

#include <boost/program_options.hpp>
#include <iostream>

#include "base/descriptors.h"
#include "base/files.h"
#include "base/log.h"
#include "interchange/server/server.h"
#include "interchange/tool/tool.h"
#include "providers_host/provider_host.h"

namespace {

namespace po = boost::program_options;
namespace ic = farcall::interchange;
using farcall::Result;
using farcall::providers::ProviderModule;

constexpr char kVersion[] = "farcall 0.1.0";
constexpr char kHelp[] =
    "farcall-interchange serves one endpoint: it takes its tasks from the relay, gets nodes\n"
    "from the scheduler and has pilots run the tasks. People start it with\n"
    "`farcall endpoint start NAME`.\n\n"
    "Examples:\n"
    "  farcall-interchange --directory ~/.farcall/endpoints/mycluster\n"
    "  farcall-interchange --check-config config.yaml\n"
    "  farcall-interchange --config-reference\n\n";

struct Options {
  std::string directory, log, check_config, discover;
  bool take_over = false;
  int ready_fd = -1;
};

Result<void> check_config(const std::string& file) {
  auto warnings = ic::check_config(file);
  if (!warnings) return farcall::fail(warnings.error());
  for (const std::string& warning : *warnings) std::cerr << "warning: " << warning << "\n";
  return {};
}

Result<void> print(const Result<std::string>& text) {
  if (!text) return farcall::fail(text.error());
  std::cout << *text << (text->ends_with('\n') ? "" : "\n");
  return {};
}

Result<void> serve(const Options& options) {
  farcall::wire::Loop loop;
  std::unique_ptr<ic::Server> server;
  loop.on_signals([&](int) {
    if (server) server->stop("asked to stop");
  });
  const std::filesystem::path directory = std::filesystem::absolute(options.directory);
  auto config = ic::load_endpoint_config(directory / "config.yaml", ic::provider_schema);
  if (!config) return farcall::fail(config.error());
  farcall::start_logging("interchange", options.log, config->log_level);
  farcall::raise_descriptor_limit("pilots");
  for (const std::string& warning : config->warnings) farcall::log_warn("{}", warning);
  auto key = ic::read_endpoint_key(directory / "key");
  if (!key) return farcall::fail(key.error());
  auto lock = farcall::FileLock::acquire(directory / "interchange.pid");
  if (!lock) return farcall::fail(lock.error());
  auto journal = ic::Journal::open(directory / "interchange.db");
  if (!journal) return farcall::fail(journal.error());
  auto recovered = (*journal)->load();
  if (!recovered) return farcall::fail(recovered.error());
  auto module = ProviderModule::load(farcall::providers::module_name(config->provider_type));
  if (!module) return farcall::fail(module.error());
  auto provider = module->create(config->provider, directory);
  if (!provider) return farcall::fail(provider.error());
  std::optional<farcall::Error> refused;
  ic::Server::Handlers handlers;
  handlers.on_ready = [&] {
    if (options.ready_fd < 0) return;
    (void)!write(options.ready_fd, "ready\n", 6);
    close(options.ready_fd);
  };
  handlers.on_refused = [&](const farcall::Error& error) {
    refused = error;
    loop.stop();
  };
  handlers.on_exit = [&](const std::string& text) {
    farcall::log_info("stopped: {}", text);
    loop.stop();
  };
  auto opened = ic::Server::open(
      loop, {directory, directory.filename().string(), *key, *config, options.take_over, kVersion},
      std::move(*journal), std::move(*recovered), std::move(*provider), handlers);
  if (!opened) return farcall::fail(opened.error());
  server = std::move(*opened);
  loop.run();
  if (refused) return farcall::fail(*refused);
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  po::options_description description("Options");
  description.add_options()("directory", po::value(&options.directory),
                            "of the endpoint: FARCALL_HOME/endpoints/NAME")(
      "log", po::value(&options.log), "file to log to; default: standard error")(
      "take-over", po::bool_switch(&options.take_over),
      "serve the endpoint although it is served elsewhere")(
      "ready-fd", po::value(&options.ready_fd),
      "descriptor that gets \"ready\" when the relay has let us in")(
      "check-config", po::value(&options.check_config),
      "say what is wrong with this config file, and do nothing")(
      "script", "print the batch script of the endpoint in --directory")(
      "try", "ask the scheduler whether it would take that script")(
      "discover", po::value(&options.discover)->implicit_value(""),
      "print the schedulers that answer here, as JSON; or this one")(
      "config-reference", "print the reference of all configuration keys")(
      "version", "print the version")("help,h", "print this text");
  Result<void> done;
  try {
    po::variables_map values;
    po::store(po::parse_command_line(argc, argv, description), values);
    po::notify(values);
    if (values.count("help") != 0) {
      std::cout << kHelp << description;
    } else if (values.count("version") != 0) {
      std::cout << kVersion << "\n";
    } else if (values.count("config-reference") != 0) {
      std::cout << ic::config_reference_page();
    } else if (values.count("discover") != 0) {
      std::cout << ic::discover(options.discover).dump() << "\n";
    } else if (!options.check_config.empty()) {
      done = check_config(options.check_config);
    } else if (options.directory.empty()) {
      done =
          farcall::fail(farcall::ErrorCode::kInvalidArgument, "--directory is missing; see --help");
    } else if (values.count("script") != 0) {
      done = print(ic::block_script(std::filesystem::absolute(options.directory)));
    } else if (values.count("try") != 0) {
      done = print(ic::try_block(std::filesystem::absolute(options.directory)));
    } else {
      done = serve(options);
    }
  } catch (const po::error& error) {
    done = farcall::fail(farcall::ErrorCode::kInvalidArgument, "{}; see --help", error.what());
  }
  if (done) return 0;
  std::cerr << "farcall-interchange: " << done.error().message << "\n";
  return farcall::error_exit_code(done.error().code);
}
