// farcall-bench: what a task costs, end to end and in the interchange's core alone.
#include <fmt/format.h>

#include <boost/program_options.hpp>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/log.h"
#include "measure.h"

namespace po = boost::program_options;
using namespace farcall;         // NOLINT
using namespace farcall::bench;  // NOLINT
using nlohmann::json;

namespace {

constexpr const char* kUsage =
    R"(Usage: farcall-bench [OPTIONS]

Starts a relay, an interchange and a pilot of its own, runs no-op tasks through them as a user would,
durable and encrypted, and prints what that took: tasks a second, round trips, CPU microseconds a task
of each process, memory, bytes on each hop. With --core: the interchange's core alone, in this process.

)";

struct Settings {
  Run run;
  SiteOptions site;
  std::uint32_t one_at_a_time = 0, warm_up = 0;
  std::string kind, programs;
  bool acknowledge = false;
};

Result<json> end_to_end(const Settings& settings) {
  auto site = Site::start(settings.programs, settings.site);
  if (!site) return fail(site.error());
  ClientOptions options;
  options.home = site->home();
  auto client = Client::connect(options);
  if (!client) return fail(client.error());
  if (settings.acknowledge) return acknowledgement(**client, settings.run);
  json result{{"kind", settings.kind},
              {"workers", settings.site.workers},
              {"simulated_pilots", settings.site.simulated_pilots},
              {"relay_start_s", site->relay_start_s()},
              {"endpoint_start_s", site->endpoint_start_s()}};
  auto first = latency(*site, **client, settings.run.kind, 1);
  if (!first) return fail(first.error());
  result["first_result_ms"] = (*first)["p50_ms"];
  Run warm = settings.run;
  warm.tasks = settings.warm_up;
  if (auto warmed = throughput(*site, **client, warm); !warmed) return fail(warmed.error());
  if (settings.one_at_a_time > 0) {
    auto times = latency(*site, **client, settings.run.kind, settings.one_at_a_time);
    if (!times) return fail(times.error());
    result["one_at_a_time"] = *times;
  }
  auto many = throughput(*site, **client, settings.run);
  if (!many) return fail(many.error());
  result["many"] = *many;
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  start_logging("farcall-bench", "", "warn");
  Settings settings;
  std::uint32_t pilots = 0, slots = 0;
  po::options_description options("Options");
  auto add = options.add_options();
  add("help,h", "this text");
  add("kind", po::value(&settings.kind)->default_value("python"),
      "python, native (a function in a shared object), or shell (/bin/true)");
  add("tasks", po::value(&settings.run.tasks)->default_value(10'000), "in the measured run");
  add("warm-up", po::value(&settings.warm_up)->default_value(1'000), "tasks before it");
  add("one-at-a-time", po::value(&settings.one_at_a_time)->default_value(500),
      "round trips to measure");
  add("payload", po::value(&settings.run.payload_bytes)->default_value(0),
      "bytes of each argument and result (python)");
  add("workers", po::value(&settings.site.workers)->default_value(2), "of the one pilot");
  add("programs", po::value(&settings.programs)->default_value(program_directory().string()),
      "folder of farcall and its servers");
  add("acknowledge", "only until all tasks are durable: seconds, and the client's peak of memory");
  add("simulated-pilots", po::value(&settings.site.simulated_pilots)->default_value(0),
      "more than 0: so many connections of farcall-bench-pilots instead of one pilot; --workers of "
      "each");
  add("core", "the interchange's core alone, between simulated pilots");
  add("pilots", po::value(&pilots)->default_value(1), "with --core");
  add("slots", po::value(&slots)->default_value(128), "of each pilot, with --core");
  add("json", "print JSON");
  po::variables_map chosen;
  try {
    po::store(po::parse_command_line(argc, argv, options), chosen);
    po::notify(chosen);
    if (settings.kind != "python" && settings.kind != "shell" && settings.kind != "native")
      throw po::error("'" + settings.kind + "' is no kind of task: python, native or shell");
    if (settings.run.tasks == 0 || settings.warm_up == 0 || settings.site.workers == 0 ||
        slots == 0 || pilots == 0)
      throw po::error("--tasks, --warm-up, --workers, --pilots and --slots have to be at least 1");
  } catch (const po::error& error) {
    fmt::print(stderr, "farcall-bench: {}; see --help\n", error.what());
    return 2;
  }
  if (chosen.contains("help")) {
    std::cout << kUsage << options << "\n";
    return 0;
  }
  settings.acknowledge = chosen.contains("acknowledge");
  settings.run.kind = settings.kind == "python"   ? Kind::kPython
                      : settings.kind == "native" ? Kind::kNative
                                                  : Kind::kShell;
  Result<json> result = chosen.contains("core") ? core_alone(pilots, slots, settings.run.tasks)
                                                : end_to_end(settings);
  if (!result) {
    fmt::print(stderr, "farcall-bench: {}\n", result.error().message);
    return 1;
  }
  if (chosen.contains("json"))
    fmt::print("{}\n", result->dump(2));
  else
    print_table(*result);
  return 0;
}
