#include "core_rig.h"

#include <numeric>

#include "wire/codec.h"

namespace farcall::bench {

using namespace interchange;  // NOLINT

namespace {
constexpr std::uint32_t kChunk = 1024;
constexpr std::string_view kArguments = "J{\"args\":[1]}";
}  // namespace

CoreRig::CoreRig(CoreRigOptions options) : options_(options), now_{} {
  now_.mono.since_start = std::chrono::seconds(1);
  Rng rng(1);
  Settings settings;
  settings.window_tasks = options.window;
  settings.prefetch = options.prefetch;
  endpoint_ = settings.endpoint = make_id<EndpointId>({}, rng);
  function_ = make_id<FunctionId>({}, rng);
  settings.instance = make_id<InstanceId>({}, rng);
  BlockRecord block;
  block.id = make_id<BlockId>({}, rng);
  block.state = BlockState::kRunning;
  block.job_id = "1";
  block.nodes = static_cast<int>(options.pilots);
  Recovered recovered;
  recovered.epoch = 1;
  recovered.blocks.push_back(block);
  core_ = std::make_unique<Core>(settings, Rng(1));
  core_->recover(recovered, now_);
  core_->make_hello();
  core_->relay_message(wire::make_message(wire::EndpointWelcome{1, "g", {}, "bench"}), now_);
  for (std::uint32_t i = 0; i < options.pilots; ++i) {
    wire::PilotHello hello;
    hello.block = block.id;
    hello.pilot = make_id<PilotId>({}, rng);
    hello.node = fmt::format("node{}", i);
    hello.node_rank = i;
    hello.incarnation = 1;
    hello.cores = options.slots;
    core_->pilot_hello(i + 1, block.id, wire::make_message(hello), now_);
  }
  turn();
}

void CoreRig::deliver(std::uint32_t count) {
  wire::Work work;
  std::vector<Bytes> payload;
  if (submissions_ == 0) {
    work.functions.push_back({function_, FunctionKind::kPythonSource, "nop", "{}"});
    payload.emplace_back(std::string("{}"));
  }
  Rng rng(++submissions_);
  SubmissionHeader header;
  header.submission = make_id<SubmissionId>({}, rng);
  header.function = function_;
  header.endpoint = endpoint_;
  work.submissions.push_back(header);
  for (std::uint32_t first = 0; first < count; first += kChunk) {
    const std::uint32_t size = std::min(kChunk, count - first);
    std::string data;
    for (std::uint32_t i = 0; i < size; ++i) data += kArguments;
    const std::vector<std::uint32_t> sizes(size, static_cast<std::uint32_t>(kArguments.size()));
    work.chunks.push_back({header.submission, {first, sizes}, RangeSet{{first, first + size}}, {}});
    payload.emplace_back(std::move(data));
  }
  core_->relay_message(wire::make_message(work, std::move(payload)), now_);
}

void CoreRig::answer(PeerId peer, const wire::Message& message) {
  ++messages_;
  if (message.type != wire::MessageType::kDispatch) return;
  const auto dispatch = wire::decode<wire::Dispatch>(message);
  FARCALL_CHECK(dispatch.has_value(), "a dispatch cannot be read");
  wire::Results results;
  results.batch = ++next_batch_;
  std::string data;
  for (const wire::DispatchGroup& group : dispatch->groups) {
    wire::SubmissionOutcomes outcomes{group.submission, {}};
    for (const wire::TaskStart& task : group.tasks) {
      TaskOutcome outcome;
      outcome.index = task.index;
      outcome.attempt = task.attempt;
      outcome.started_ms = outcome.ended_ms = 1;
      outcome.host = "node";
      outcome.data_size = 2;
      outcomes.outcomes.push_back(std::move(outcome));
      data += "J1";
    }
    results.results.push_back(std::move(outcomes));
  }
  answers_.push_back({peer, wire::make_message(results, {Bytes(std::move(data))})});
}

void CoreRig::handle(Effect& effect) {
  if (auto* pilot = std::get_if<effect::SendPilot>(&effect))
    return answer(pilot->peer, pilot->message);
  if (auto* spool = std::get_if<effect::Spool>(&effect)) return core_->spooled(spool->record.batch);
  const auto* relay = std::get_if<effect::SendRelay>(&effect);
  if (relay == nullptr || relay->message.type != wire::MessageType::kResults) return;
  const auto results = wire::decode<wire::Results>(relay->message);
  FARCALL_CHECK(results.has_value(), "results cannot be read");
  for (const auto& each : results->results) completed_ += each.outcomes.size();
  from_relay_.push_back(wire::make_message(wire::ResultsAck{{results->batch}}));
}

bool CoreRig::turn() {
  Effects effects = core_->take_effects(now_);
  for (Effect& effect : effects) handle(effect);
  for (const wire::Message& message : std::exchange(from_relay_, {}))
    core_->relay_message(message, now_);
  for (Answer& each : std::exchange(answers_, {})) {
    ++messages_;
    core_->pilot_message(each.peer, each.message, now_);
  }
  return !effects.empty();
}

std::uint64_t CoreRig::run() {
  const std::uint64_t before = completed_;
  while (turn()) now_.mono.since_start += std::chrono::microseconds(100);
  return completed_ - before;
}

}  // namespace farcall::bench
