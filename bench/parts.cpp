// The parts of a task's way that are code of our own: packing, unpacking, placing, completing.
//
//   farcall-bench-parts [Google Benchmark's options]
//   farcall-bench-parts --path NAME --count N    one of them N times and nothing else, for
//   callgrind
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstring>
#include <functional>
#include <map>

#include "base/log.h"
#include "core_rig.h"
#include "wire/codec.h"

namespace farcall::bench {
namespace {

constexpr std::uint32_t kTasks = 256;  // in one message

wire::Results results_message() {
  Rng rng(1);
  wire::Results results{7, {}};
  wire::SubmissionOutcomes outcomes{make_id<SubmissionId>({}, rng), {}};
  for (std::uint32_t i = 0; i < kTasks; ++i) {
    TaskOutcome outcome;
    outcome.index = i;
    outcome.started_ms = outcome.ended_ms = 1'760'000'000'000;
    outcome.host = "node17";
    outcome.data_size = 2;
    outcomes.outcomes.push_back(outcome);
  }
  results.results.push_back(outcomes);
  return results;
}

wire::Dispatch dispatch_message() {
  Rng rng(1);
  wire::Dispatch dispatch;
  wire::DispatchGroup group{make_id<SubmissionId>({}, rng), {}};
  for (std::uint32_t i = 0; i < kTasks; ++i) group.tasks.push_back({i, 1, 12});
  dispatch.groups.push_back(group);
  return dispatch;
}

// Each does its work for kTasks tasks a call.
using Path = std::function<void()>;
const std::map<std::string, std::function<Path()>>& paths() {
  static const std::map<std::string, std::function<Path()>> all = {
      {"encode_results",
       [] {
         return [message = results_message()] { benchmark::DoNotOptimize(wire::encode(message)); };
       }},
      {"decode_results",
       [] {
         return [packed = Bytes(wire::encode(results_message()))] {
           benchmark::DoNotOptimize(wire::decode<wire::Results>(packed));
         };
       }},
      {"encode_dispatch",
       [] {
         return [message = dispatch_message()] { benchmark::DoNotOptimize(wire::encode(message)); };
       }},
      {"decode_dispatch",
       [] {
         return [packed = Bytes(wire::encode(dispatch_message()))] {
           benchmark::DoNotOptimize(wire::decode<wire::Dispatch>(packed));
         };
       }},
      // The interchange: work comes in, is placed on eight pilots, outcomes come back, are
      // reported.
      {"place_and_complete",
       [] {
         auto rig = std::make_shared<CoreRig>(CoreRigOptions{.pilots = 8, .slots = 8});
         return [rig] {
           rig->deliver(kTasks);
           rig->run();
         };
       }},
  };
  return all;
}

void run_benchmark(benchmark::State& state, const std::function<Path()>& make) {
  const Path path = make();
  for (auto _ : state) path();
  state.SetItemsProcessed(state.iterations() * kTasks);
}

int run_counted(const std::string& name, std::uint64_t count) {
  const auto found = paths().find(name);
  if (found == paths().end()) {
    fmt::print(stderr, "farcall-bench-parts: there is no path '{}'; there are:", name);
    for (const auto& [each, make] : paths()) fmt::print(stderr, " {}", each);
    fmt::print(stderr, "\n");
    return 2;
  }
  const Path path = found->second();
  for (std::uint64_t i = 0; i < count; ++i) path();
  return 0;
}

}  // namespace
}  // namespace farcall::bench

int main(int argc, char** argv) {
  using namespace farcall::bench;  // NOLINT
  farcall::start_logging("farcall-bench-parts", "", "warn");
  if (argc == 5 && std::strcmp(argv[1], "--path") == 0 && std::strcmp(argv[3], "--count") == 0)
    return run_counted(argv[2], std::stoull(argv[4]));
  for (const auto& [name, make] : paths())
    benchmark::RegisterBenchmark(name.c_str(),
                                 [&make](benchmark::State& state) { run_benchmark(state, make); });
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
