// Tasks that are never tried again: what happens to them when their node is lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "endpoint_fixture.h"

namespace farcall::interchange {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::StartsWith;

class LateResultsTest : public EndpointTest {
 protected:
  void SetUp() override {
    lost_timeout = seconds(60);
    nodes_per_block = 2;
    EndpointTest::SetUp();
    retry.never = true;
    connect(1, 0, "s1", 1, -1, "n7");
    task = TaskId{submit(1, 1, 0), 0};
    const auto refs = given(1);
    ASSERT_EQ(refs.size(), 1u);
    ref = refs[0];
  }
  void pass(Duration time) {
    for (Duration passed{0}; passed < time; passed += seconds(1)) tick(seconds(1));
    EXPECT_EQ(core->sanity_check(), "");
  }
  // Its connection ends, and it is silent until it is given up.
  void lose_pilot(PeerId peer) {
    core->pilot_gone(peer, now);
    pass(seconds(62));
  }
  std::string explained() { return fmt::format("{}", fmt::join(core->explain(task, now), "; ")); }
  std::string message() { return failure_of(outcomes.at(0).second).value("message", ""); }

  TaskId task;
  wire::AttemptRef ref;
};

TEST_F(LateResultsTest, AResultWithinTenMinutesCounts) {
  lose_pilot(1);
  pass(seconds(500));
  EXPECT_TRUE(outcomes.empty());
  EXPECT_THAT(explained(),
              HasSubstr("it is never to be tried again, its result may still come for "));
  connect(1, 0, "s1", 1, -1, "n7", {ref});
  finish(1, ref, TaskState::kSucceeded, FailureClass::kNone, 10, "n7");
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].first.state, TaskState::kSucceeded);
  EXPECT_EQ(core->counters().superseded, 0u);
  EXPECT_EQ(core->sanity_check(), "");
}

TEST_F(LateResultsTest, AFailureWithinTenMinutesIsTheTasksOwn) {
  lose_pilot(1);
  connect(1, 0, "s1", 1, -1, "n7", {ref});
  finish(1, ref, TaskState::kFailed, FailureClass::kUserError, 10, "n7");
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].first.failure, FailureClass::kUserError);
}

TEST_F(LateResultsTest, AResultThatThePilotLeftInAFileCountsToTheLastMoment) {
  lose_pilot(1);
  pass(seconds(595));
  searches.clear();
  while (searches.empty() && outcomes.empty()) tick(seconds(1));
  ASSERT_TRUE(outcomes.empty());  // it is looked for before the task is given up
  wire::Results results{.batch = 1, .results = {}};
  TaskOutcome outcome;
  outcome.data_size = 1;
  results.results.push_back({task.submission, {outcome}});
  core->results_left(block, PilotId{{1}}, "results-1",
                     wire::make_message(results, {Bytes(std::string("V"))}), now);
  pass(seconds(10));
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].first.state, TaskState::kSucceeded);
}

TEST_F(LateResultsTest, AfterTenMinutesItIsLost) {
  lose_pilot(1);
  pass(seconds(590));
  EXPECT_TRUE(outcomes.empty());
  pass(seconds(15));
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].first.state, TaskState::kFailed);
  EXPECT_EQ(outcomes[0].first.failure, FailureClass::kLost);
  EXPECT_EQ(outcomes[0].first.attempt, 1);
  EXPECT_EQ(outcomes[0].first.host, "n7");
  EXPECT_EQ(failure_of(outcomes[0].second)["type"], "TaskLost");
  EXPECT_EQ(failure_of(outcomes[0].second)["job_id"], "1");
  EXPECT_THAT(message(), StartsWith("the task was lost because pilot "));
  EXPECT_THAT(message(),
              HasSubstr(" on n7 was not heard of for 60 s; no result came for 600 s, and "
                        "it is never to be tried again"));
  // What comes now comes too late.
  connect(1, 0, "s1", 1, -1, "n7", {ref});
  finish(1, ref, TaskState::kSucceeded, FailureClass::kNone, 10, "n7");
  EXPECT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(core->counters().superseded, 1u);
  EXPECT_TRUE(core->pilots().all().at(PilotId{{1}}).placements.empty());
}

TEST_F(LateResultsTest, ACancelEndsTheWait) {
  lose_pilot(1);
  core->relay_message(wire::make_message(wire::CancelTasks{{{task.submission, RangeSet{{0, 1}}}}}),
                      now);
  perform();
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].first.state, TaskState::kCancelled);
  EXPECT_EQ(message(), "the task was cancelled after its node was lost");
  // The pilot is told when it calls again.
  sent.clear();
  connect(1, 0, "s1", 1, -1, "n7", {ref});
  const auto welcome = *wire::decode<wire::PilotWelcome>(sent[1].at(0));
  EXPECT_THAT(welcome.abandon, Contains(ref));
}

TEST_F(LateResultsTest, ACancelBeforeTheLossLeavesNothingToWaitFor) {
  core->relay_message(wire::make_message(wire::CancelTasks{{{task.submission, RangeSet{{0, 1}}}}}),
                      now);
  lose_pilot(1);
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].first.state, TaskState::kCancelled);
}

TEST_F(LateResultsTest, ANodeThatComesBackAndIsLostAgainGetsTenMinutesAgain) {
  lose_pilot(1);
  pass(seconds(500));
  connect(1, 0, "s1", 1, -1, "n7", {ref});
  EXPECT_THAT(explained(), testing::Not(HasSubstr("it is lost")));
  lose_pilot(1);
  pass(seconds(500));
  EXPECT_TRUE(outcomes.empty());
  pass(seconds(110));
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].first.failure, FailureClass::kLost);
}

TEST_F(LateResultsTest, ARestartOfTheInterchangeBeginsTheWaitAnew) {
  lose_pilot(1);
  pass(seconds(500));
  for (const auto& [id, each] : placements) disk.placements.push_back(each);
  ASSERT_EQ(disk.placements.size(), 1u);
  restart();
  submit(1, 1, 0);  // the relay delivers it again
  pass(seconds(62 + 590));
  EXPECT_TRUE(outcomes.empty());
  connect(1, 0, "s1", 1, -1, "n7", {ref});
  finish(1, ref, TaskState::kSucceeded, FailureClass::kNone, 10, "n7");
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].first.state, TaskState::kSucceeded);
}

TEST_F(LateResultsTest, AfterARestartWithoutTheRelayItIsNotKnownToBeTriedAgain) {
  for (const auto& [id, each] : placements) disk.placements.push_back(each);
  restart();
  core->relay_down();
  pass(seconds(120));
  core->make_hello();
  core->relay_message(wire::make_message(wire::EndpointWelcome{.epoch = 1}), now);
  submit(1, 1, 0);
  pass(seconds(5));
  EXPECT_TRUE(outcomes.empty());
  connect(1, 0, "s1", 1, -1, "n7", {ref});
  finish(1, ref, TaskState::kSucceeded, FailureClass::kNone, 10, "n7");
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].first.state, TaskState::kSucceeded);
}

TEST_F(LateResultsTest, AfterARestartWithoutTheRelayItIsLostInTheEndAndNotTriedAgain) {
  for (const auto& [id, each] : placements) disk.placements.push_back(each);
  restart();
  core->relay_down();
  pass(seconds(62 + 590));
  EXPECT_EQ(core->counters().finished, 0u);
  pass(seconds(20));
  EXPECT_EQ(core->counters().finished, 1u);
  EXPECT_EQ(core->counters().retries, 0u);
  core->make_hello();
  core->relay_message(wire::make_message(wire::EndpointWelcome{.epoch = 1}), now);
  perform();
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].first.failure, FailureClass::kLost);
}

TEST_F(LateResultsTest, WhatIsKnownFromDiskOnlyIsChargedOnceAndAtOnce) {
  retry.never = false;
  const SubmissionId other = submit(2, 1, 0);
  ASSERT_EQ(given(1).size(), 1u);
  for (const auto& [id, each] : placements)
    if (each.submission == other) disk.placements.push_back(each);
  restart();
  core->relay_down();
  pass(seconds(120));
  EXPECT_EQ(core->counters().retries, 1u);
  core->make_hello();
  core->relay_message(wire::make_message(wire::EndpointWelcome{.epoch = 1}), now);
  submit(2, 1, 0);
  pass(seconds(2));
  EXPECT_EQ(core->counters().retries, 1u);
  EXPECT_EQ(core->queue().pending_tasks(), 1u);
}

TEST_F(LateResultsTest, TheOlderOfTwoStartsIsEndedAndItsTaskIsLost) {
  connect(2, 0, "s2", 60'000, -1, "n7");
  EXPECT_TRUE(told_to_stop(1));
  EXPECT_TRUE(outcomes.empty());  // it may have ended already
  core->pilot_message(1, wire::make_message(wire::HandBack{{ref}, FailureClass::kAllocationEnded}),
                      now);
  perform();
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].first.failure, FailureClass::kLost);
  EXPECT_EQ(message(), "the task was lost because a newer pilot took over its node");
}

TEST_F(LateResultsTest, WhatEndedThroughAnothersFaultIsLost) {
  core->pilot_message(1, wire::make_message(wire::HandBack{{ref}, FailureClass::kCrash}), now);
  perform();
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].first.failure, FailureClass::kLost);
  EXPECT_EQ(message(),
            "the task was lost because another task that shared its MPI ranks or its "
            "workers ended them");
}

TEST_F(LateResultsTest, ALostNodeThatNothingButAResultIsWaitedForFromCausesNoBlock) {
  lose_pilot(1);
  JobReport gone{.job_id = "1", .state = JobReport::State::kEnded, .end = BlockEnd::kFailed};
  core->provider_reported(std::vector<JobReport>{gone}, now);
  pass(seconds(120));
  EXPECT_EQ(submits.size(), 1u);
  EXPECT_TRUE(outcomes.empty());
}

TEST_F(LateResultsTest, ATaskOverTwoNodesGoesOnAtTheFirstWhenTheOtherIsLost) {
  finish(1, ref, TaskState::kSucceeded, FailureClass::kNone, 10, "n7");
  connect(2, 1, "s1", 1, -1, "n8");
  for (const PeerId peer : {1, 2})
    core->pilot_message(peer, wire::make_message(wire::Topology{{0, 1, 2, 3}, {4}, {}, 0}), now);
  outcomes.clear();
  resources.ranks = 6;
  resources.nodes = 0;  // as few as hold them
  submit(3, 1, 0);
  PeerId lead = 1, other = 2;
  auto refs = given(lead);
  if (refs.empty()) {
    std::swap(lead, other);
    refs = given(lead);
  }
  ASSERT_EQ(refs.size(), 1u);
  core->pilot_gone(other, now);
  const auto hear_lead_for = [&](int time_s) {
    for (int i = 0; i < time_s; ++i) {
      core->pilot_message(lead, wire::make_message(wire::PilotStatus{1, 0, -1}), now);
      tick(seconds(1));
    }
    EXPECT_EQ(core->sanity_check(), "");
  };
  const auto cancelled = [&] {
    return std::any_of(sent[lead].begin(), sent[lead].end(),
                       [](const auto& m) { return m.type == wire::MessageType::kCancelAttempts; });
  };
  hear_lead_for(600);
  EXPECT_TRUE(outcomes.empty());
  EXPECT_FALSE(cancelled());
  hear_lead_for(70);
  EXPECT_TRUE(cancelled());
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].first.failure, FailureClass::kLost);
  EXPECT_EQ(outcomes[0].first.host, other == 1 ? "n7" : "n8");
}

}  // namespace
}  // namespace farcall::interchange
