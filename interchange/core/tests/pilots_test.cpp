// Which pilots get which tasks: time that is left, starts of a job, bad nodes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "interchange/core/core.h"
#include "wire/failure.h"

namespace farcall::interchange {
namespace {

using testing::HasSubstr;

TEST(Durations, NineOfTenRunsTookNoLonger) {
  Durations durations;
  const FunctionId function{{1}};
  EXPECT_FALSE(durations.usual(function));
  for (int i = 1; i <= 10; ++i) durations.add(function, seconds(i));
  EXPECT_EQ(durations.usual(function), seconds(9));
  for (int i = 0; i < 32; ++i) durations.add(function, seconds(2));
  EXPECT_EQ(durations.usual(function), seconds(2));  // the old ones are forgotten
}

TEST(Durations, AreKeptOverARestart) {
  Durations durations;
  const FunctionId function{{1}};
  for (int i = 1; i <= 40; ++i) durations.add(function, seconds(i));
  const auto records = durations.take_changed();
  ASSERT_EQ(records.size(), 1u);
  ASSERT_EQ(records[0].took_ms.size(), 32u);
  EXPECT_EQ(records[0].took_ms.front(), 9000u);
  EXPECT_EQ(records[0].took_ms.back(), 40'000u);
  EXPECT_TRUE(durations.take_changed().empty());
  Durations again;
  again.recover(records);
  EXPECT_EQ(again.usual(function), durations.usual(function));
  EXPECT_TRUE(again.take_changed().empty());  // the disk has them
}

TEST(NodeHealth, ThreeTasksInARowMakeANodeBadForADay) {
  NodeHealth nodes;
  Now now{{seconds(1)}, WallTime::from_milliseconds(1)};
  const SubmissionId submission{{1}};
  EXPECT_FALSE(nodes.failed("n1", {submission, 0}, "why", now));
  EXPECT_FALSE(nodes.failed("n1", {submission, 0}, "why", now));  // the same task again
  EXPECT_FALSE(nodes.failed("n1", {submission, 1}, "why", now));
  nodes.succeeded("n1");
  EXPECT_FALSE(nodes.failed("n1", {submission, 2}, "why", now));
  EXPECT_FALSE(nodes.failed("n1", {submission, 3}, "why", now));
  EXPECT_TRUE(nodes.failed("n1", {submission, 4}, "no such file", now));
  ASSERT_EQ(nodes.bad().size(), 1u);
  EXPECT_EQ(nodes.bad()[0].why, "no such file");
  now.wall = now.wall + std::chrono::hours(25);
  nodes.tick(now);
  EXPECT_TRUE(nodes.bad().empty());
}

TEST(NodeHealth, WhatFailsEverywhereIsNoNodesFault) {
  NodeHealth nodes;
  const Now now{{seconds(1)}, WallTime::from_milliseconds(1)};
  for (int n = 0; n < 5; ++n) nodes.seen("n" + std::to_string(n));
  int bad = 0;
  for (int n = 0; n < 5; ++n)
    for (std::uint32_t task = 0; task < 10; ++task)
      bad += nodes.failed("n" + std::to_string(n), {SubmissionId{{1}}, task}, "why", now) ? 1 : 0;
  EXPECT_EQ(bad, 2);
  EXPECT_FALSE(nodes.is_bad("n4"));
}

// A core that is welcome at its relay and has one block, whose pilots the test plays.
class PilotsTest : public testing::Test {
 protected:
  void SetUp() override {
    settings.endpoint_name = "cluster";
    settings.scaling.max_blocks = 1;
    settings.scaling.walltime_s = 3600;
    settings.prefetch = 0;
    settings.lost_timeout = std::chrono::hours(1);
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
               std::int64_t remaining_s = -1, const std::string& node = "") {
    wire::PilotHello hello;
    hello.block = block;
    hello.pilot = PilotId{{static_cast<std::uint8_t>(peer)}};
    hello.node = node.empty() ? "n" + std::to_string(rank) : node;
    hello.node_rank = rank;
    hello.job_start = start;
    hello.incarnation = incarnation;
    hello.cores = 4;
    hello.remaining_s = remaining_s;
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

  Settings settings;
  std::optional<Core> core;
  Now now{{seconds(1000)}, WallTime::from_milliseconds(1'700'000'000'000)};
  BlockId block;
  Recovered disk;
  std::vector<effect::SubmitBlock> submits;
  std::map<PeerId, std::vector<wire::Message>> sent;
  std::uint64_t batch = 0;
};

TEST_F(PilotsTest, ABlockWith60SecondsLeftGetsNoTaskOf90) {
  connect(1, 0, "s1", 1, 60);
  submit(1, 2, 90'000);
  EXPECT_TRUE(given(1).empty());
  const SubmissionId shorter = submit(2, 2, 30'000);
  const auto refs = given(1);
  ASSERT_EQ(refs.size(), 2u);
  EXPECT_EQ(refs[0].submission, shorter);
}

TEST_F(PilotsTest, WithoutAWalltimeWhatWasLearnedDecides) {
  connect(1, 0, "s1", 1, 1000);
  submit(1, 4, 0);
  for (const auto& ref : given(1))
    finish(1, ref, TaskState::kSucceeded, FailureClass::kNone, 90'000, "n0");
  tick(seconds(940));  // 60 s are left
  submit(2, 1, 0);
  EXPECT_TRUE(given(1).empty());
  submit(3, 1, 0, 8);  // of a function that nobody knows yet
  EXPECT_EQ(given(1).size(), 1u);
}

TEST_F(PilotsTest, ABlockIntoWhichNothingFitsIsEndedAndFollowedByAnother) {
  connect(1, 0, "s1", 1, 60);
  tick();
  submit(1, 2, 90'000);
  tick();
  EXPECT_TRUE(told_to_stop(1));
  EXPECT_THAT(core->blocks().find(block)->reason, HasSubstr("does not fit"));
}

TEST_F(PilotsTest, WhatHasNoTimeLeftAtAPilotGoesBackUnchargedAndThePilotWorksOn) {
  connect(1, 0, "s1", 1, 1000);
  submit(1, 1, 30'000);
  const auto refs = given(1);
  ASSERT_EQ(refs.size(), 1u);
  core->pilot_message(1, wire::make_message(wire::HandBack{refs, FailureClass::kTimeExceeded}),
                      now);
  perform();
  EXPECT_TRUE(given(1).empty());  // or it would go to and fro
  const SubmissionId shorter = submit(2, 1, 10'000);
  EXPECT_EQ(given(1), (std::vector<wire::AttemptRef>{{shorter, 0, 1}}));
  connect(2, 1, "s1", 1, 1000);
  EXPECT_EQ(given(2), (std::vector<wire::AttemptRef>{{SubmissionId{{1}}, 0, 1}}));
}

TEST_F(PilotsTest, WhoIsCutOffAfterAPartOfABlockIsChargedNothingAndGetsMoreTimeTheNextTime) {
  connect(1, 0, "s1", 1, 1000);
  const SubmissionId submission = submit(1, 1, 0);
  auto refs = given(1);
  ASSERT_EQ(refs.size(), 1u);
  for (int times = 0; times < 4; ++times) {  // more often than the budget allows
    tick(seconds(400));
    core->pilot_message(times % 2 == 0 ? 1 : 2,
                        wire::make_message(wire::HandBack{refs, FailureClass::kAllocationEnded}),
                        now);
    perform();
    const PeerId next = times % 2 == 0 ? 2 : 1;
    connect(next, 0, "s1", 10 + times, 450);
    EXPECT_TRUE(given(next).empty()) << "a block with hardly more time than it had before";
    connect(next, 0, "s1", 10 + times, 600);
    refs = given(next);
    EXPECT_EQ(refs, (std::vector<wire::AttemptRef>{{submission, 0, 1}}));
  }
  EXPECT_EQ(core->counters().retries, 0u);
}

TEST_F(PilotsTest, WhoIsCutOffAfterMostOfABlockIsCharged) {
  connect(1, 0, "s1", 1, 3590);
  const SubmissionId submission = submit(1, 1, 0);
  tick(seconds(3590));
  core->pilot_message(
      1, wire::make_message(wire::HandBack{given(1), FailureClass::kAllocationEnded}), now);
  perform();
  EXPECT_EQ(core->counters().retries, 1u);
  connect(2, 0, "s1", 2, 3590);
  EXPECT_EQ(given(2), (std::vector<wire::AttemptRef>{{submission, 0, 2}}));
}

TEST_F(PilotsTest, OfAJobThatWasStartedTwiceOnlyTheNewerStartGetsTasks) {
  connect(1, 0, "s1", 1000);
  connect(2, 1, "s1", 1001);
  submit(1, 8, 0);
  EXPECT_EQ(given(1).size() + given(2).size(), 8u);
  // The job is requeued: so far only its first node has called.
  connect(3, 0, "s2", 60'000);
  EXPECT_TRUE(told_to_stop(1));
  EXPECT_TRUE(told_to_stop(2));
  const auto refs = given(3);
  ASSERT_EQ(refs.size(), 4u);
  EXPECT_EQ(refs[0].attempt, 2);
  // The old copy, cut off until now, may only deliver.
  connect(4, 1, "s1", 1001);
  EXPECT_TRUE(told_to_stop(4));
  EXPECT_TRUE(given(4).empty());
}

TEST_F(PilotsTest, AfterARestartTheFirstPilotOfABlockDoesNotCostTheOthersTheirTasks) {
  Recovered state;
  state.epoch = 1;
  BlockRecord record = *core->blocks().find(block);
  record.state = BlockState::kRunning;
  state.blocks = {record};
  const SubmissionId submission{{1}};
  state.placements = {{.id = 1,
                       .pilot = PilotId{{1}},
                       .block = block,
                       .submission = submission,
                       .ranges = RangeSet{{0, 2}}},
                      {.id = 2,
                       .pilot = PilotId{{2}},
                       .block = block,
                       .submission = submission,
                       .ranges = RangeSet{{2, 4}}}};
  core.emplace(settings, Rng(2));
  core->recover(state, now);
  core->make_hello();
  core->relay_message(wire::make_message(wire::EndpointWelcome{.epoch = 1}), now);
  connect(1, 0, "s1", 1000);
  connect(2, 1, "s1", 1001);
  EXPECT_FALSE(told_to_stop(1));
  EXPECT_FALSE(told_to_stop(2));
  EXPECT_EQ(core->counters().retries, 0u);
}

TEST_F(PilotsTest, ANodeWhereNothingStartsGetsNoMoreAndIsExcludedFromTheNextBlock) {
  connect(1, 0, "s1", 1, -1, "n7");
  submit(1, 3, 0);
  auto refs = given(1);
  ASSERT_EQ(refs.size(), 3u);
  for (const auto& ref : refs)
    finish(1, ref, TaskState::kFailed, FailureClass::kEnvironment, 0, "n7");
  EXPECT_TRUE(told_to_stop(1));
  const auto status = nlohmann::json::parse(core->status_json(now));
  EXPECT_EQ(status["bad_nodes"][0]["node"], "n7");
  EXPECT_EQ(status["bad_nodes"][0]["reason"], "python3: not found");
  // Its block ends; the next one must not get the node.
  JobReport gone;
  gone.job_id = "1";
  gone.state = JobReport::State::kEnded;
  gone.end = BlockEnd::kCompleted;
  core->provider_reported(std::vector<JobReport>{gone}, now);
  for (int i = 0; i < 100 && submits.size() < 2; ++i) tick(seconds(1));
  ASSERT_EQ(submits.size(), 2u);
  EXPECT_EQ(submits[1].exclude_nodes, std::vector<std::string>{"n7"});
}

TEST_F(PilotsTest, AFunctionThatCrashesEverywhereCostsNoNode) {
  connect(1, 0, "s1", 1);
  submit(1, 4, 0);
  for (const auto& ref : given(1))
    finish(1, ref, TaskState::kFailed, FailureClass::kCrash, 10, "n0");
  EXPECT_TRUE(nlohmann::json::parse(core->status_json(now))["bad_nodes"].empty());
}

TEST_F(PilotsTest, ADrainedEndpointPlacesNothingAndResumeGoesOn) {
  connect(1, 0, "s1", 1);
  core->drain(now);
  submit(1, 1, 0);
  EXPECT_TRUE(given(1).empty());
  tick();
  EXPECT_EQ(core->blocks().find(block)->state, BlockState::kEnding);
  core->resume(now);
  for (int i = 0; i < 30 && submits.size() < 2; ++i) tick(seconds(1));
  EXPECT_EQ(submits.size(), 2u);
}

TEST_F(PilotsTest, ADrainAndWhatWasLearnedSurviveARestart) {
  connect(1, 0, "s1", 1, 3000);
  submit(1, 4, 0);
  for (const auto& ref : given(1))
    finish(1, ref, TaskState::kSucceeded, FailureClass::kNone, 90'000, "n0");
  core->drain(now);
  perform();
  EXPECT_TRUE(disk.drained);
  tick(seconds(10));
  ASSERT_EQ(disk.durations.size(), 1u);
  restart();
  EXPECT_TRUE(nlohmann::json::parse(core->status_json(now))["draining"]);
  submit(2, 1, 0);
  tick(seconds(10));
  EXPECT_EQ(submits.size(), 1u);  // no new block
  core->resume(now);
  perform();
  EXPECT_FALSE(disk.drained);
  for (int i = 0; i < 30 && submits.size() < 2; ++i) tick(seconds(1));
  ASSERT_EQ(submits.size(), 2u);
  connect(2, 0, "s2", 5, 60);
  EXPECT_TRUE(given(2).empty());  // it takes 90 s
}

}  // namespace
}  // namespace farcall::interchange
