// farcall-bench-pilots: many pilots in one process, without nodes. Each has a connection of its
// own, speaks the protocol of a pilot with the credentials of a real block, and answers what is
// dispatched to it at once. What it shows is what the interchange can do.
#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <functional>
#include <iostream>
#include <memory>
#include <vector>
#include <zmq.hpp>

#include "base/log.h"
#include "pilot/agent/credentials.h"
#include "wire/codec.h"
#include "wire/zmq/dialer.h"

namespace po = boost::program_options;
using namespace farcall;  // NOLINT

namespace {

constexpr Duration kHeartbeat = std::chrono::seconds(5);

class SimulatedPilot {
 public:
  SimulatedPilot(wire::Loop& loop, const pilot::Credentials& credentials, std::uint32_t rank,
                 std::uint32_t slots, Rng& rng)
      : loop_(loop) {
    hello_.hello.software = "farcall-bench-pilots";
    hello_.block = credentials.block;
    hello_.pilot = make_id<PilotId>(loop.now().wall, rng);
    hello_.node = fmt::format("simulated{}", rank);
    hello_.node_rank = rank;
    hello_.job_start = "1";
    hello_.incarnation = 1;
    hello_.cores = slots;
    wire::DialerOptions options;
    options.addresses = credentials.addresses;
    options.server_key = credentials.server_key;
    options.keys = credentials.keys;
    dialer_ = std::make_unique<wire::Dialer>(
        loop, std::move(options),
        wire::DialerHandlers{[this] { return wire::make_message(hello_); },
                             [this](const wire::Message& message) { on_message(message); },
                             [this](const Error& error) {
                               fmt::print(stderr, "farcall-bench-pilots: {}\n", error.message);
                               loop_.stop();
                             },
                             {}});
  }

  void heartbeat() {
    if (dialer_->is_up()) dialer_->send(wire::make_message(wire::PilotStatus{}));
  }
  bool is_up() const { return dialer_->is_up(); }

 private:
  void on_message(const wire::Message& message) {
    if (message.type == wire::MessageType::kStop) return loop_.stop();
    if (message.type != wire::MessageType::kDispatch) return;
    const auto dispatch = wire::decode<wire::Dispatch>(message);
    FARCALL_CHECK(dispatch.has_value(), "a dispatch cannot be read");
    wire::Results results;
    results.batch = ++batch_;
    std::string data;
    for (const wire::DispatchGroup& group : dispatch->groups) {
      wire::SubmissionOutcomes outcomes{group.submission, {}};
      outcomes.outcomes.reserve(group.tasks.size());
      for (const wire::TaskStart& task : group.tasks) {
        TaskOutcome outcome;
        outcome.index = task.index;
        outcome.attempt = task.attempt;
        outcome.started_ms = outcome.ended_ms = loop_.now().wall.milliseconds_since_epoch();
        outcome.host = hello_.node;
        outcome.data_size = 2;
        outcomes.outcomes.push_back(std::move(outcome));
        data += "J1";
      }
      results.results.push_back(std::move(outcomes));
    }
    dialer_->send(wire::make_message(results, {Bytes(std::move(data))}));
  }

  wire::Loop& loop_;
  wire::PilotHello hello_;
  std::uint64_t batch_ = 0;
  std::unique_ptr<wire::Dialer> dialer_;
};

int simulate(const pilot::Credentials& credentials, std::uint32_t count, std::uint32_t slots) {
  wire::Loop loop;
  loop.on_signals([&loop](int) { loop.stop(); });
  loop.context().set(zmq::ctxopt::max_sockets, static_cast<int>(4 * count + 16));
  Rng rng = Rng::from_entropy();
  std::vector<std::unique_ptr<SimulatedPilot>> pilots;
  for (std::uint32_t rank = 0; rank < count; ++rank)
    pilots.push_back(std::make_unique<SimulatedPilot>(loop, credentials, rank, slots, rng));
  std::function<void()> beat = [&] {
    for (auto& each : pilots) each->heartbeat();
    loop.after(kHeartbeat, beat);
  };
  loop.after(kHeartbeat, beat);
  bool said = false;
  loop.after_each_turn([&] {
    if (said || !std::all_of(pilots.begin(), pilots.end(), [](auto& p) { return p->is_up(); }))
      return;
    said = true;
    fmt::print("{} pilots are connected\n", count);
    std::fflush(stdout);
  });
  loop.run();
  return said ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  start_logging("farcall-bench-pilots", "", "warn");
  std::string file;
  std::uint32_t count = 0, slots = 0;
  po::options_description options(
      "Usage: farcall-bench-pilots --credentials FILE [--pilots N] [--slots N]\n\n"
      "Simulated pilots of one block against its interchange; ends with the endpoint.\n\nOptions");
  auto add = options.add_options();
  add("help,h", "this text");
  add("credentials", po::value(&file), "of a block whose job starts no pilot");
  add("pilots", po::value(&count)->default_value(1000), "connections");
  add("slots", po::value(&slots)->default_value(128), "of each");
  po::variables_map chosen;
  try {
    po::store(po::parse_command_line(argc, argv, options), chosen);
    po::notify(chosen);
    if (!chosen.contains("help") && (file.empty() || count == 0 || slots == 0))
      throw po::error("--credentials, and --pilots and --slots of at least 1, are needed");
  } catch (const po::error& error) {
    fmt::print(stderr, "farcall-bench-pilots: {}; see --help\n", error.what());
    return 2;
  }
  if (chosen.contains("help")) {
    std::cout << options << "\n";
    return 0;
  }
  const auto credentials = pilot::read_credentials(file);
  if (!credentials) {
    fmt::print(stderr, "farcall-bench-pilots: {}\n", credentials.error().message);
    return 1;
  }
  return simulate(*credentials, count, slots);
}
