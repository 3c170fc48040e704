#include "measure.h"

#include <malloc.h>
#include <sys/resource.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "core_rig.h"
#include "farcall/executor.h"

namespace farcall::bench {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::uint32_t kCoreTasks = 200'000;  // at least, for a figure of the core

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double rounded(double value) { return std::round(value * 100) / 100; }

Result<SubmissionHeader> header_for(Client& client, Kind kind) {
  SubmissionHeader header;
  auto endpoint = client.find_endpoint("here");
  if (!endpoint) return fail(endpoint.error());
  header.endpoint = *endpoint;
  FunctionRecord record;
  record.name = "nop";
  record.meta = "{}";
  Bytes body;
  if (kind == Kind::kNative) {
    auto native = read_native_function(program_directory() / "bench-functions.so", "nop");
    if (!native) return fail(native.error());
    record = native->record;
    body = native->body;
  } else if (kind == Kind::kPython) {
    record.kind = FunctionKind::kPythonSource;
    body = Bytes(json{{"entry", "nop"}, {"source", "def nop(x):\n    return x\n"}}.dump());
  } else {
    record.kind = FunctionKind::kShell;
    body = Bytes(json{{"argv", true}}.dump());
  }
  auto function = client.register_function(record, body);
  if (!function) return fail(function.error());
  header.function = *function;
  return header;
}

Bytes arguments(Kind kind, std::uint32_t payload_bytes) {
  if (kind == Kind::kShell) return json_arguments(json{{"argv", {"/bin/true"}}});
  if (kind == Kind::kNative) return Executor::argument_set(1);
  if (payload_bytes == 0) return json_arguments(json::array({1}), nullptr);
  return json_arguments(json::array({std::string(payload_bytes, 'x')}), nullptr);
}

// Durable when it returns.
Result<SubmissionId> send_all(Client& client, const SubmissionHeader& header, const Bytes& one,
                              std::uint32_t tasks) {
  auto writer = client.open_submission(header);
  for (std::uint32_t i = 0; i < tasks; ++i)
    if (auto added = writer->add(one); !added) return fail(added.error());
  writer->seal();
  if (auto durable = writer->wait_durable(std::chrono::minutes(5)); !durable)
    return fail(durable.error());
  return writer->id();
}

json cost(const Usages& before, const Usages& after, double tasks) {
  json result = json::object();
  double total = 0;
  for (const auto& [role, usage] : after) {
    const auto earlier = before.find(role);
    const Usage zero;
    const Usage& from = earlier == before.end() ? zero : earlier->second;
    const double user = (usage.user_s - from.user_s) / tasks * 1e6;
    const double system = (usage.system_s - from.system_s) / tasks * 1e6;
    total += user + system;
    result[role] = {{"user_us", rounded(user)},
                    {"system_us", rounded(system)},
                    {"peak_mib", rounded(static_cast<double>(usage.peak_kib) / 1024)}};
  }
  result["all"] = {{"cpu_us", rounded(total)}};
  return result;
}

json bytes_per_task(const Hops& before, const Hops& after, double tasks) {
  json result = json::object();
  for (const auto& [hop, bytes] : after) {
    const auto earlier = before.find(hop);
    const std::uint64_t from = earlier == before.end() ? 0 : earlier->second;
    result[hop] = rounded(static_cast<double>(bytes - std::min(from, bytes)) / tasks);
  }
  return result;
}

}  // namespace

Result<json> throughput(const Site& site, Client& client, const Run& run) {
  auto header = header_for(client, run.kind);
  if (!header) return fail(header.error());
  const Bytes one = arguments(run.kind, run.payload_bytes);
  const Usages before = site.usage();
  const Hops hops_before = site.hops();
  const auto start = Clock::now();
  auto sent = send_all(client, *header, one, run.tasks);
  if (!sent) return fail(sent.error());
  const SubmissionId submission = *sent;
  const double acknowledged_s = seconds_since(start);
  std::uint32_t failed = 0;
  CollectRequest request;
  request.submissions = {{submission, {}, true}};
  request.on_outcomes = [&](OutcomeBatch& batch) {
    for (const Outcome& outcome : batch.outcomes)
      failed += outcome.task.state == TaskState::kSucceeded ? 0 : 1;
  };
  auto collected = client.collect(std::move(request));
  if (!collected) return fail(collected.error());
  const double took_s = seconds_since(start);
  if (failed > 0) return fail(ErrorCode::kInternal, "{} of {} tasks failed", failed, run.tasks);
  return json{{"tasks", run.tasks},
              {"payload_bytes", run.payload_bytes},
              {"seconds", rounded(took_s)},
              {"acknowledged_s", rounded(acknowledged_s)},
              {"tasks_per_s", std::round(run.tasks / took_s)},
              {"processes", cost(before, site.usage(), run.tasks)},
              {"bytes_per_task", bytes_per_task(hops_before, site.hops(), run.tasks)}};
}

Result<json> latency(const Site& site, Client& client, Kind kind, std::uint32_t tasks) {
  auto header = header_for(client, kind);
  if (!header) return fail(header.error());
  const Bytes one = arguments(kind, 0);
  const Usages before = site.usage();
  std::vector<double> times_ms;
  std::mutex mutex;
  std::condition_variable changed;
  for (std::uint32_t i = 0; i < tasks; ++i) {
    const auto start = Clock::now();
    auto writer = client.open_submission(*header);
    bool here = false;
    const auto watch = client.watch({{writer->id(), {}, true}}, {[&](OutcomeBatch) {
                                                                   std::lock_guard lock(mutex);
                                                                   here = true;
                                                                   changed.notify_one();
                                                                 },
                                                                 {}});
    if (auto added = writer->add(one); !added) return fail(added.error());
    writer->seal();
    std::unique_lock lock(mutex);
    if (!changed.wait_for(lock, std::chrono::minutes(1), [&] { return here; }))
      return fail(ErrorCode::kTimeout, "task {} did not come back within a minute", i);
    times_ms.push_back(seconds_since(start) * 1e3);
    lock.unlock();
    client.unwatch(watch);
  }
  std::sort(times_ms.begin(), times_ms.end());
  const auto at = [&](double part) {
    return rounded(times_ms[static_cast<std::size_t>(part * static_cast<double>(tasks - 1))]);
  };
  return json{{"tasks", tasks},
              {"p50_ms", at(0.5)},
              {"p99_ms", at(0.99)},
              {"p999_ms", at(0.999)},
              {"processes", cost(before, site.usage(), tasks)}};
}

Result<json> acknowledgement(Client& client, const Run& run) {
  auto header = header_for(client, run.kind);
  if (!header) return fail(header.error());
  const Bytes one = arguments(run.kind, run.payload_bytes);
  const auto start = Clock::now();
  auto sent = send_all(client, *header, one, run.tasks);
  if (!sent) return fail(sent.error());
  const SubmissionId submission = *sent;
  const double took_s = seconds_since(start);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  if (auto cancelled = client.cancel_submission(submission); !cancelled)
    return fail(cancelled.error());
  return json{{"inputs", run.tasks},
              {"acknowledged_s", rounded(took_s)},
              {"client_peak_mib", rounded(static_cast<double>(usage.ru_maxrss) / 1024)}};
}

json core_alone(std::uint32_t pilots, std::uint32_t slots, std::uint32_t tasks) {
  CoreRigOptions options;
  options.pilots = pilots;
  options.slots = slots;
  options.window = std::uint64_t{tasks} * 2;
  CoreRig rig(options);
  rig.deliver(20'000);  // by then it knows that they are short
  rig.run();
  const auto heap_before = mallinfo2().uordblks;
  const auto messages_before = rig.messages();
  const std::uint32_t rounds = std::max(1U, kCoreTasks / tasks);
  rusage usage_before{}, usage_after{};
  double cpu_us = 0;
  std::uint64_t done = 0;
  std::size_t heap_queued = 0;
  const auto micros = [](const rusage& usage) {
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  };
  for (std::uint32_t round = 0; round < rounds; ++round) {
    rig.deliver(tasks);
    if (round == 0) heap_queued = mallinfo2().uordblks;
    getrusage(RUSAGE_SELF, &usage_before);
    done += rig.run();
    getrusage(RUSAGE_SELF, &usage_after);
    cpu_us += micros(usage_after) - micros(usage_before);
  }
  cpu_us /= static_cast<double>(done);
  return json{
      {"pilots", pilots},
      {"slots", slots},
      {"tasks", tasks},
      {"cpu_us", rounded(cpu_us)},
      {"tasks_per_cpu_s", std::round(1e6 / cpu_us)},
      {"bytes_per_queued_task", rounded(static_cast<double>(heap_queued - heap_before) / tasks)},
      {"messages", rig.messages() - messages_before}};
}

namespace {
void print_lines(const json& value, const std::string& name) {
  if (!value.is_object()) {
    fmt::print("{:<44} {}\n", name, value.dump());
    return;
  }
  for (const auto& [key, item] : value.items())
    print_lines(item, name.empty() ? key : name + "." + key);
}
}  // namespace

void print_table(const json& result) { print_lines(result, ""); }

}  // namespace farcall::bench
