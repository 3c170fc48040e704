// A core with its relay and a scheduler, whose pilots the test plays.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "interchange/core/core.h"
#include "wire/failure.h"

namespace farcall::interchange {

// A core that is welcome at its relay and has one block, whose pilots the test plays.
class EndpointTest : public testing::Test {
 protected:
  void SetUp() override {
    settings.endpoint_name = "cluster";
    settings.scaling.max_blocks = 1;
    settings.scaling.walltime_s = 3600;
    settings.prefetch = 0;
    settings.lost_timeout = lost_timeout;
    settings.scaling.nodes_per_block = nodes_per_block;
    core.emplace(settings, Rng(1));
    core->make_hello();
    core->relay_message(wire::make_message(wire::EndpointWelcome{.epoch = 1}), now);
    tick();
    core->provider_submitted(block, std::string("1"), now);
    tick();
  }
  void tick(Duration time = milliseconds(100)) {
    now.mono = now.mono + time;
    now.wall = now.wall + time;
    core->tick(now);
    perform();
  }
  void perform() {
    for (;;) {
      const Effects effects = core->take_effects(now);
      if (effects.empty()) return;
      for (const Effect& any : effects) carry_out(any);
    }
  }
  void carry_out(const Effect& any) {
    if (const auto* save = std::get_if<effect::SaveBlock>(&any))
      core->block_saved(save->block.id, save->serial, now);
    else if (const auto* submit = std::get_if<effect::SubmitBlock>(&any))
      submits.push_back(*submit), block = submit->block;
    else if (const auto* drained = std::get_if<effect::SaveDrained>(&any))
      disk.drained = drained->drained;
    else if (const auto* durations = std::get_if<effect::SaveDurations>(&any))
      disk.durations = durations->functions;
    else if (const auto* send = std::get_if<effect::SendPilot>(&any))
      sent[send->peer].push_back(send->message);
    else if (const auto* placed = std::get_if<effect::SavePlacements>(&any))
      save_placements(*placed);
    else if (const auto* report = std::get_if<effect::SendRelay>(&any))
      take_outcomes(report->message);
    else if (const auto* search = std::get_if<effect::CollectLeft>(&any))
      searches.push_back(search->block);
  }
  void save_placements(const effect::SavePlacements& save) {
    for (const auto& each : save.placed) placements[each.id] = each;
    for (const auto id : save.dropped) placements.erase(id);
  }
  void take_outcomes(const wire::Message& message) {
    if (message.type != wire::MessageType::kResults) return;
    const auto results = *wire::decode<wire::Results>(message);
    std::size_t offset = 0;
    for (const auto& each : results.results)
      for (const TaskOutcome& outcome : each.outcomes) {
        const std::string_view data = message.payload.at(0).view();
        outcomes.push_back({outcome, std::string(data.substr(offset, outcome.data_size))});
        offset += outcome.data_size;
      }
  }
  // The JSON of a failure; null: it is none.
  static nlohmann::json failure_of(const std::string& data) {
    return nlohmann::json::parse(data.substr(std::min<std::size_t>(data.size(), 5)), nullptr,
                                 false);
  }
  // With what is on disk: the block, the drain and what was learned.
  void restart() {
    disk.epoch = 1;
    disk.blocks = {*core->blocks().find(block)};
    core.emplace(settings, Rng(2));
    core->recover(disk, now);
    core->make_hello();
    core->relay_message(wire::make_message(wire::EndpointWelcome{.epoch = 1}), now);
    perform();
  }
  void connect(PeerId peer, std::uint32_t rank, const std::string& start, std::int64_t incarnation,
               std::int64_t remaining_s = -1, const std::string& node = "",
               std::vector<wire::AttemptRef> holds = {}) {
    wire::PilotHello hello;
    hello.block = block;
    hello.pilot = PilotId{{static_cast<std::uint8_t>(peer)}};
    hello.node = node.empty() ? "n" + std::to_string(rank) : node;
    hello.node_rank = rank;
    hello.job_start = start;
    hello.incarnation = incarnation;
    hello.cores = 4;
    hello.remaining_s = remaining_s;
    hello.holds = std::move(holds);
    core->pilot_hello(peer, block, wire::make_message(hello), now);
    perform();
  }
  SubmissionId submit(std::uint8_t n, std::uint32_t count, std::uint64_t walltime_ms,
                      std::uint8_t function = 7) {
    wire::Work work;
    work.functions.push_back({FunctionId{{function}}, FunctionKind::kPythonSource, "f", "{}"});
    SubmissionHeader header;
    header.submission = SubmissionId{{n}};
    header.function = FunctionId{{function}};
    header.walltime_ms = walltime_ms;
    header.retry = retry;
    header.resources = resources;
    work.submissions.push_back(header);
    wire::ChunkDelivery chunk;
    chunk.submission = header.submission;
    chunk.chunk.sizes.assign(count, 1);
    chunk.run = RangeSet{{0, count}};
    work.chunks.push_back(chunk);
    core->relay_message(
        wire::make_message(work, {Bytes(std::string("body")), Bytes(std::string(count, 'a'))}),
        now);
    perform();
    return header.submission;
  }
  std::vector<wire::AttemptRef> given(PeerId peer) {
    std::vector<wire::AttemptRef> refs;
    for (const auto& message : sent[peer]) {
      if (message.type != wire::MessageType::kDispatch) continue;
      const auto dispatch = *wire::decode<wire::Dispatch>(message);
      for (const auto& group : dispatch.groups)
        for (const auto& task : group.tasks)
          refs.push_back({group.submission, task.index, task.attempt});
    }
    sent[peer].clear();
    return refs;
  }
  bool told_to_stop(PeerId peer) {
    return std::any_of(sent[peer].begin(), sent[peer].end(),
                       [](const auto& m) { return m.type == wire::MessageType::kStop; });
  }
  void finish(PeerId peer, const wire::AttemptRef& ref, TaskState state, FailureClass failure,
              std::int64_t took_ms, const std::string& node) {
    wire::Results results;
    results.batch = ++batch;
    TaskOutcome outcome;
    outcome.index = ref.index;
    outcome.attempt = ref.attempt;
    outcome.state = state;
    outcome.failure = failure;
    outcome.host = node;
    outcome.started_ms = 1000;
    outcome.ended_ms = 1000 + took_ms;
    const Bytes data = state == TaskState::kSucceeded
                           ? Bytes(std::string("V"))
                           : wire::failure_data({.type = "WorkerCannotStart",
                                                 .message = "python3: not found",
                                                 .failure = failure});
    outcome.data_size = data.size();
    results.results.push_back({ref.submission, {outcome}});
    core->pilot_message(peer, wire::make_message(results, {data}), now);
    perform();
  }

  // Before SetUp().
  Duration lost_timeout = std::chrono::hours(1);
  int nodes_per_block = 1;
  Settings settings;
  std::optional<Core> core;
  Now now{{seconds(1000)}, WallTime::from_milliseconds(1'700'000'000'000)};
  BlockId block;
  Recovered disk;
  Resources resources;
  RetryPolicy retry;                                    // of what is submitted from here on
  std::map<std::uint64_t, PlacementRecord> placements;  // on disk
  std::vector<std::pair<TaskOutcome, std::string>>
      outcomes;                   // that the relay was told, with their data
  std::vector<BlockId> searches;  // for what pilots have left
  std::vector<effect::SubmitBlock> submits;
  std::map<PeerId, std::vector<wire::Message>> sent;
  std::uint64_t batch = 0;
};

}  // namespace farcall::interchange
