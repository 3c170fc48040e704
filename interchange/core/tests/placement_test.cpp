// Which task goes where: the whole core, with pilots that only say hello and report.
#include <gtest/gtest.h>

#include "interchange/core/core.h"

namespace farcall::interchange {
namespace {

using std::chrono::minutes;

class PlacementTest : public testing::Test {
 protected:
  PlacementTest() {
    Settings settings;
    settings.slots_per_node = 4;
    settings.scaling.nodes_per_block = 2;
    settings.scaling.walltime_s = 36000;
    core_ = std::make_unique<Core>(settings, Rng(2));
    BlockRecord block;
    block.id = block_ = make_id<BlockId>(now_.wall, rng_);
    block.state = BlockState::kRunning;
    block.job_id = block.job_name = "7";
    block.nodes = 2;
    Recovered state;
    state.epoch = 1;
    state.blocks.push_back(block);
    core_->recover(state, now_);
    wire::EndpointWelcome welcome;
    welcome.epoch = 1;
    core_->relay_message(wire::make_message(welcome), now_);
  }

  PilotId call(std::uint32_t rank, std::vector<std::string> gpus = {}) {
    wire::PilotHello hello;
    hello.block = block_;
    hello.pilot = PilotId{{static_cast<std::uint8_t>(rank + 1)}};
    hello.node = fmt::format("n{}", rank);
    hello.node_rank = rank;
    hello.cores = 4;
    hello.memory_mib = 1000;
    core_->pilot_hello(rank + 1, block_, wire::make_message(hello), now_);
    core_->pilot_message(
        rank + 1, wire::make_message(wire::Topology{{0, 2, 1, 3}, {2, 2}, std::move(gpus), 0}),
        now_);
    pilots_[rank] = hello.pilot;
    return hello.pilot;
  }

  SubmissionId submit(Resources resources, std::uint32_t tasks, std::uint64_t walltime_ms = 0) {
    wire::Work work;
    work.functions.emplace_back();
    SubmissionHeader header;
    header.submission = make_id<SubmissionId>(now_.wall, rng_);
    header.resources = resources;
    header.walltime_ms = walltime_ms;
    work.submissions.push_back(header);
    work.chunks.push_back(
        {header.submission, {0, std::vector<std::uint32_t>(tasks, 1)}, RangeSet{{0, tasks}}, {}});
    core_->relay_message(
        wire::make_message(work, {Bytes(std::string("body")), Bytes(std::string(tasks, 'a'))}),
        now_);
    return header.submission;
  }

  // What is dispatched and told now: "n0: a0 a1[n0 2 0,2|n1 1 0]", submissions a, b, … as they
  // came.
  std::string turn() {
    std::string text;
    wire::Places places;
    for (const Effect& effect : core_->take_effects(now_)) {
      const auto* send = std::get_if<effect::SendPilot>(&effect);
      if (send == nullptr) continue;
      const std::string to = fmt::format("n{}: ", send->peer - 1);
      if (send->message.type == wire::Guests::kType) {
        std::uint32_t slots = 0;
        const auto guests = wire::decode<wire::Guests>(send->message);
        for (const auto& guest : guests->guests) slots += guest.slots;
        text += to + fmt::format("guests {}; ", slots);
      }
      if (send->message.type == wire::Places::kType)
        places = *wire::decode<wire::Places>(send->message);
      if (send->message.type != wire::MessageType::kDispatch) continue;
      text += to;
      const auto dispatch = wire::decode<wire::Dispatch>(send->message);
      for (const auto& group : dispatch->groups) {
        names_.try_emplace(group.submission, static_cast<char>('a' + names_.size()));
        for (const auto& task : group.tasks)
          text += fmt::format("{}{} ", names_[group.submission], task.index);
      }
      for (const auto& place : std::exchange(places, {}).places)
        for (const auto& share : place.shares)
          text += fmt::format(
              "[{} {} {}{}] ", share.node, share.ranks, fmt::join(share.processors, ","),
              share.gpus.empty() ? "" : fmt::format(" gpu {}", fmt::join(share.gpus, ",")));
      text += "; ";
    }
    EXPECT_EQ(core_->sanity_check(), "");
    return text;
  }

  void finish(std::uint32_t rank, SubmissionId id, std::uint32_t index) {
    TaskOutcome outcome;
    outcome.index = index;
    outcome.data_size = 1;
    wire::Results results{++batch_, {{id, {outcome}}}};
    core_->pilot_message(rank + 1, wire::make_message(results, {Bytes(std::string("V"))}), now_);
  }

  static Resources mpi(std::uint32_t ranks, std::uint32_t nodes = 0) {
    Resources resources;
    resources.ranks = ranks;
    resources.nodes = nodes;
    return resources;
  }

  std::string failure() {
    for (const Effect& effect : core_->take_effects(now_))
      if (const auto* send = std::get_if<effect::SendRelay>(&effect);
          send != nullptr && send->message.type == wire::MessageType::kResults)
        return std::string(send->message.payload.at(0).view());
    return "";
  }

  Rng rng_{1};
  Now now_{{std::chrono::seconds(1)}, {std::chrono::hours(24)}};
  std::unique_ptr<Core> core_;
  BlockId block_;
  std::map<std::uint32_t, PilotId> pilots_;
  std::map<SubmissionId, char> names_;
  std::uint64_t batch_ = 0;
};

TEST_F(PlacementTest, RanksOverTwoNodesHoldSlotsOnBoth) {
  call(0);
  call(1);
  turn();
  const auto a = submit(mpi(6), 1);
  EXPECT_EQ(turn(), "n1: guests 2; n0: a0 [n0 4 0,2,1,3] [n1 2 0,2] ; ");
  const auto b = submit(mpi(2), 2);  // beside it; the second one has to wait
  EXPECT_EQ(turn(), "n1: b0 [n1 2 1,3] ; ");
  submit(Resources{}, 1);  // and so does what comes after, for its node is reserved
  EXPECT_EQ(turn(), "");
  finish(1, b, 0);
  EXPECT_EQ(turn(), "n1: b1 [n1 2 1,3] ; ");
  finish(0, a, 0);
  EXPECT_EQ(turn(), "n1: guests 0; n0: c0 ; ");
}

TEST_F(PlacementTest, AWideTaskGetsItsNodesAlthoughSmallOnesKeepComing) {
  call(0);
  call(1);
  turn();
  const auto small = submit(Resources{}, 8);
  EXPECT_EQ(turn(), "n0: a0 a1 a2 a3 ; n1: a4 a5 a6 a7 ; ");
  const auto wide = submit(mpi(8, 2), 1);
  submit(Resources{}, 100);
  EXPECT_EQ(turn(), "");
  for (std::uint32_t i = 0; i < 7; ++i) finish(i < 4 ? 0 : 1, small, i);
  EXPECT_EQ(turn(), "");
  finish(1, small, 7);
  EXPECT_EQ(turn(), "n1: guests 4; n0: b0 [n0 4 0,2,1,3] [n1 4 0,2,1,3] ; ");
  finish(0, wide, 0);
  EXPECT_NE(turn().find("c0 c1 c2 c3"), std::string::npos);
}

TEST_F(PlacementTest, BackfillEndsBeforeTheReservedNodesAreFree) {
  call(0);
  turn();
  submit(Resources{}, 3, 600'000);
  EXPECT_EQ(turn(), "n0: a0 a1 a2 ; ");
  submit(mpi(4), 1, 600'000);
  EXPECT_EQ(turn(), "");
  submit(Resources{}, 1, 700'000);  // would hold it up
  EXPECT_EQ(turn(), "");
  submit(Resources{}, 1, 500'000);  // is over by then
  EXPECT_EQ(turn(), "n0: b0 ; ");
}

// The second one that does not fit has its slots kept as well, beside those of the first.
TEST_F(PlacementTest, EachThatWaitsHasAReservation) {
  call(0);
  call(1);
  turn();
  const auto small = submit(Resources{}, 8, 600'000);
  EXPECT_EQ(turn(), "n0: a0 a1 a2 a3 ; n1: a4 a5 a6 a7 ; ");
  submit(mpi(8), 1, 600'000);       // from 600 s to 1200 s
  submit(mpi(3), 1, 600'000);       // from 1200 s on
  submit(Resources{}, 8, 700'000);  // would hold up the first
  EXPECT_EQ(turn(), "");
  for (std::uint32_t i = 0; i < 8; ++i) finish(i < 4 ? 0 : 1, small, i);
  EXPECT_EQ(turn(), "n1: guests 4; n0: b0 [n0 4 0,2,1,3] [n1 4 0,2,1,3] ; ");
}

TEST_F(PlacementTest, WhatCameLaterTakesNoSlotThatASecondWideTaskWaitsFor) {
  call(0);
  turn();
  const auto first = submit(mpi(3), 1, 300'000);
  submit(mpi(4), 1, 100'000);  // from 300 s to 400 s
  submit(mpi(2), 1,
         100'000);  // fits into none of the gaps but the one that is there until 300 s: no
  EXPECT_EQ(turn(), "n0: a0 [n0 3 0,2,1] ; ");
  submit(Resources{}, 1, 350'000);  // over after 300 s
  EXPECT_EQ(turn(), "");
  submit(Resources{}, 1, 250'000);
  EXPECT_EQ(turn(), "n0: b0 ; ");
  finish(0, first, 0);
  EXPECT_EQ(turn(), "n0: c0 [n0 2 0,2] ; ");  // the wide one waits for what was let in before it
}

TEST_F(PlacementTest, GpusAreGivenOnceAndNamedAsTheNodeNamesThem) {
  call(0, {"GPU-a", "GPU-b"});
  turn();
  Resources one;
  one.gpus = 1;
  const auto a = submit(one, 3);
  EXPECT_EQ(turn(), "n0: a0 a1 [n0 0 0 gpu GPU-a] [n0 0 2 gpu GPU-b] ; ");
  finish(0, a, 1);
  EXPECT_EQ(turn(), "n0: a2 [n0 0 2 gpu GPU-b] ; ");
}

TEST_F(PlacementTest, ALostNodeTakesTheTasksThatReachIntoIt) {
  call(0);
  call(1);
  turn();
  submit(mpi(8, 2), 1);
  EXPECT_NE(turn().find("a0"), std::string::npos);
  wire::PilotHello newer;  // the batch job's node came back with a new pilot
  newer.block = block_;
  newer.pilot = PilotId{{9}};
  newer.node = "n1";
  newer.node_rank = 1;
  newer.incarnation = 1;
  newer.cores = 4;
  core_->pilot_hello(2 + 1, block_, wire::make_message(newer), now_);
  EXPECT_NE(turn().find("n2: guests 4; "), std::string::npos);
  EXPECT_EQ(core_->counters().retries, 1u);
}

TEST_F(PlacementTest, WhatCanNeverRunIsRefusedWithWhatIsPossible) {
  call(0, {"0"});
  turn();
  const auto refused = [&](Resources resources) {
    submit(resources, 1);
    return failure();
  };
  const auto expect = [](const std::string& found, const std::string& text) {
    EXPECT_NE(found.find(text), std::string::npos) << found;
  };
  expect(refused(mpi(8, 3)),
         "it needs 8 ranks with 1 core each, on 3 nodes, but a block of this endpoint has 2 nodes "
         "(nodes_per_block)");
  expect(refused(mpi(9)),
         "it needs 9 ranks with 1 core each, but 2 nodes of this endpoint, as many as a block has, "
         "hold at most 8");
  expect(refused(mpi(5, 1)),
         "it needs 5 ranks with 1 core each, on 1 node, but 1 node of this endpoint holds at most "
         "4");
  Resources gpus = mpi(1);
  gpus.gpus = 2;
  expect(refused(gpus),
         "it needs 1 rank with 1 core and 2 GPUs, but the nodes of this endpoint have 1 GPU");
  Resources memory;
  memory.memory_mib = 1001;
  expect(refused(memory),
         "it needs 1 core, 1001 MiB of memory, but the largest node of this endpoint has 1000 MiB");
  Resources cores;
  cores.cores = 5;
  expect(refused(cores), "it needs 5 cores, but the largest node of this endpoint has 4 cores");
}

}  // namespace
}  // namespace farcall::interchange
