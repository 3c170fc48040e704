// What the interchange does for tasks that are short and results that the relay takes at once.
#include <gtest/gtest.h>

#include "interchange/core/core.h"

namespace farcall::interchange {
namespace {

class FastPath : public ::testing::Test {
 protected:
  FastPath() {
    BlockRecord block;
    block.id = block_;
    block.state = BlockState::kRunning;
    block.job_id = "17";
    Recovered state;
    state.epoch = 1;
    state.blocks.push_back(block);
    core.recover(state, now);
    core.relay_message(wire::make_message(wire::EndpointWelcome{1, "g", {}, "e"}), now);
    wire::PilotHello hello;
    hello.block = block_;
    hello.pilot = make_id<PilotId>(now.wall, rng);
    hello.node = "n";
    hello.cores = 2;
    core.pilot_hello(7, block_, wire::make_message(hello), now);
    take();
  }
  void deliver(std::uint32_t count) {
    wire::Work work;
    work.functions.emplace_back();
    SubmissionHeader header;
    header.submission = submission_;
    work.submissions.push_back(header);
    work.chunks.push_back(
        {submission_, {0, std::vector<std::uint32_t>(count, 1)}, RangeSet{{0, count}}, {}});
    core.relay_message(
        wire::make_message(work, {Bytes(std::string("body")), Bytes(std::string(count, 'J'))}),
        now);
    take();
  }
  // The pilot's outcomes of these, each of which took so long.
  void succeed(std::uint32_t first, std::uint32_t last, std::int64_t took_ms) {
    wire::Results results{++pilot_batch_, {{submission_, {}}}};
    for (std::uint32_t i = first; i < last; ++i) {
      TaskOutcome outcome;
      outcome.index = i;
      outcome.started_ms = 1000;
      outcome.ended_ms = 1000 + took_ms;
      results.results[0].outcomes.push_back(outcome);
    }
    core.pilot_message(7, wire::make_message(results, {Bytes()}), now);
    take();
  }
  void tick(Duration later) {
    now.mono.since_start += later;
    core.tick(now);
    take();
  }
  void take() {
    for (Effect& effect : core.take_effects(now)) {
      if (auto* spool = std::get_if<effect::Spool>(&effect)) spooled.push_back(spool->record.batch);
      if (auto* drop = std::get_if<effect::DropSpooled>(&effect))
        dropped.insert(dropped.end(), drop->batches.begin(), drop->batches.end());
      if (auto* save = std::get_if<effect::SavePlacements>(&effect))
        placements_ended += save->dropped.size();
      auto* pilot = std::get_if<effect::SendPilot>(&effect);
      if (pilot == nullptr) continue;
      if (pilot->message.type == wire::MessageType::kResultsAck) ++acknowledged;
      if (pilot->message.type != wire::MessageType::kDispatch) continue;
      const auto dispatch = wire::decode<wire::Dispatch>(pilot->message);
      for (const auto& group : dispatch->groups) at_pilot += group.tasks.size();
    }
    EXPECT_EQ(core.sanity_check(), "");
  }

  Rng rng{1};
  Now now{{std::chrono::seconds(1)}, {std::chrono::hours(24)}};
  Core core{Settings{}, Rng(2)};
  const BlockId block_ = make_id<BlockId>(now.wall, rng);
  const SubmissionId submission_ = make_id<SubmissionId>(now.wall, rng);
  std::uint64_t pilot_batch_ = 0;
  std::vector<std::uint64_t> spooled, dropped;
  std::size_t placements_ended = 0, at_pilot = 0, acknowledged = 0;
};

TEST_F(FastPath, WhatTheRelayTakesAtOnceIsNeverWrittenHere) {
  deliver(1);
  succeed(0, 1, 0);
  EXPECT_EQ(acknowledged, 0u);  // the pilot keeps it until the relay has it
  EXPECT_EQ(placements_ended, 0u);
  core.relay_message(wire::make_message(wire::ResultsAck{{1}}), now);
  take();
  EXPECT_EQ(acknowledged, 1u);
  EXPECT_EQ(placements_ended, 1u);
  tick(std::chrono::seconds(1));
  tick(std::chrono::seconds(1));
  EXPECT_TRUE(spooled.empty());
  EXPECT_TRUE(dropped.empty());
}

TEST_F(FastPath, WhatTheRelayDoesNotTakeInTimeGoesToDiskAndThePilotIsTold) {
  deliver(1);
  succeed(0, 1, 0);
  tick(std::chrono::milliseconds(100));
  tick(std::chrono::milliseconds(100));
  ASSERT_EQ(spooled, std::vector<std::uint64_t>{1});
  EXPECT_EQ(placements_ended, 1u);
  EXPECT_EQ(acknowledged, 0u);
  core.spooled(1);
  take();
  EXPECT_EQ(acknowledged, 1u);
  core.relay_message(wire::make_message(wire::ResultsAck{{1}}), now);
  take();
  EXPECT_EQ(dropped, std::vector<std::uint64_t>{1});
}

TEST_F(FastPath, WithoutARelayResultsGoToDiskAtOnce) {
  deliver(2);
  succeed(0, 1, 0);
  core.relay_down();
  take();
  EXPECT_EQ(spooled, std::vector<std::uint64_t>{1});
  succeed(1, 2, 0);
  EXPECT_EQ(spooled, (std::vector<std::uint64_t>{1, 2}));
}

TEST_F(FastPath, TheShorterAFunctionTheMoreOfItWaitsAtThePilot) {
  deliver(1000);
  EXPECT_EQ(at_pilot, 2u);  // its slots: how long the function takes is not known
  std::uint32_t done = 0;
  while (done < 64) {
    const auto until = static_cast<std::uint32_t>(at_pilot);
    succeed(done, until, 0);
    done = until;
  }
  EXPECT_GT(at_pilot - done, 300u);
  EXPECT_LE(at_pilot - done, 2u + 2u * 256u);
}

TEST_F(FastPath, OfALongFunctionNoMoreThanTheSlotsWait) {
  deliver(1000);
  std::uint32_t done = 0;
  while (done < 200) {
    const auto until = static_cast<std::uint32_t>(at_pilot);
    succeed(done, until, 500);
    done = until;
    EXPECT_LE(at_pilot - done, 4u);
  }
}

}  // namespace
}  // namespace farcall::interchange
