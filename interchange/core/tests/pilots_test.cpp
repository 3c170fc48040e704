// Which pilots get which tasks: time that is left, starts of a job, bad nodes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "endpoint_fixture.h"

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

class PilotsTest : public EndpointTest {};

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

TEST_F(PilotsTest, WhatEndedThroughAnothersFaultIsTriedAgainWithoutACharge) {
  connect(1, 0, "s1", 1, 3590);
  const SubmissionId submission = submit(1, 1, 0);
  for (std::uint16_t attempt = 1; attempt < 10; ++attempt) {  // more often than any budget allows
    const auto refs = given(1);
    EXPECT_EQ(refs, (std::vector<wire::AttemptRef>{{submission, 0, attempt}}));
    core->pilot_message(1, wire::make_message(wire::HandBack{refs, FailureClass::kCrash}), now);
    perform();
  }
  EXPECT_TRUE(outcomes.empty());
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

TEST_F(PilotsTest, AFailureNamesTheBatchJobItHappenedIn) {
  connect(1, 0, "s1", 1);
  retry.environment = 0;
  submit(1, 2, 0);
  const auto refs = given(1);
  ASSERT_EQ(refs.size(), 2u);
  finish(1, refs[0], TaskState::kFailed, FailureClass::kEnvironment, 10, "n0");
  finish(1, refs[1], TaskState::kSucceeded, FailureClass::kNone, 10, "n0");
  ASSERT_EQ(outcomes.size(), 2u);
  EXPECT_EQ(failure_of(outcomes[0].second)["job_id"], "1");
  EXPECT_EQ(failure_of(outcomes[0].second)["message"], "python3: not found");
  EXPECT_EQ(outcomes[0].first.data_size, outcomes[0].second.size());
  EXPECT_EQ(outcomes[1].second, "V");
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
