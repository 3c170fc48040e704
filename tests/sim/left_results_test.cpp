// Results that a pilot left on shared storage because no interchange ran when its block ended.
#include <gtest/gtest.h>

#include <algorithm>

#include "interchange/core/core.h"

namespace farcall::interchange {
namespace {

constexpr char kFile[] = "results-x-1";

// An interchange that is started again: one block runs according to its disk, three tasks of one
// submission are placed on its pilot.
class LeftResults : public testing::Test {
 protected:
  LeftResults() : core_(Settings{}, Rng(2)) {
    Rng rng(1);
    block_.id = make_id<BlockId>(now_.wall, rng);
    block_.job_id = "17";
    block_.job_name = "fc-sim";
    block_.state = BlockState::kRunning;
    placement_.id = 1;
    placement_.pilot = make_id<PilotId>(now_.wall, rng);
    placement_.block = block_.id;
    placement_.submission = make_id<SubmissionId>(now_.wall, rng);
    placement_.ranges = RangeSet{{0, 3}};
    Recovered state;
    state.epoch = 1;
    state.blocks.push_back(block_);
    state.placements.push_back(placement_);
    core_.recover(state, now_);
    pass(Duration{0});
  }
  // Time passes in the steps of the loop; what the core asks for is collected.
  void pass(Duration span) {
    for (Duration passed{0}; passed <= span; passed += milliseconds(100)) {
      now_.mono = now_.mono + milliseconds(100);
      now_.wall = now_.wall + milliseconds(100);
      core_.tick(now_);
      collect();
    }
  }
  void collect() {
    for (Effect& each : core_.take_effects(now_)) {
      if (const auto* spool = std::get_if<effect::Spool>(&each)) core_.spooled(spool->record.batch);
      effects_.push_back(std::move(each));
    }
    EXPECT_EQ(core_.sanity_check(), "");
  }
  void end_block() {
    JobReport report;
    report.job_id = block_.job_id;
    report.job_name = block_.job_name;
    report.state = JobReport::State::kEnded;
    report.end = BlockEnd::kCancelled;
    core_.provider_reported(std::vector{report}, now_);
    collect();
  }
  void leave(TaskState state, FailureClass failure) {
    wire::Results results;
    results.batch = 1;
    auto& item = results.results.emplace_back();
    item.submission = placement_.submission;
    for (std::uint32_t i = 0; i < 3; ++i) {
      TaskOutcome outcome;
      outcome.index = i;
      outcome.state = state;
      outcome.failure = failure;
      outcome.data_size = 1;
      item.outcomes.push_back(outcome);
    }
    core_.results_left(block_.id, placement_.pilot, kFile,
                       wire::make_message(results, {Bytes(std::string("abc"))}), now_);
    collect();
  }
  template <class E>
  std::size_t count() const {
    return static_cast<std::size_t>(
        std::count_if(effects_.begin(), effects_.end(),
                      [](const Effect& each) { return std::holds_alternative<E>(each); }));
  }
  std::uint64_t held() const { return core_.queue().held_tasks(); }

  Now now_{{seconds(1)}, {std::chrono::hours(24)}};
  BlockRecord block_;
  PlacementRecord placement_;
  Core core_;
  Effects effects_;
};

TEST_F(LeftResults, AreLookedForAtTheEndOfTheBlockAndTakenOnce) {
  EXPECT_EQ(count<effect::CollectLeft>(), 0u);
  end_block();
  EXPECT_EQ(count<effect::CollectLeft>(), 1u);
  leave(TaskState::kSucceeded, FailureClass::kNone);
  EXPECT_EQ(count<effect::Spool>(), 1u);
  collect();
  ASSERT_EQ(count<effect::DropLeft>(), 1u);
  EXPECT_EQ(held(), 0u);
  // Nothing is charged and nothing goes back to the relay when the pilot is given up.
  pass(seconds(10));
  EXPECT_EQ(core_.counters().retries, 0u);
  EXPECT_EQ(core_.counters().finished, 3u);
  EXPECT_TRUE(core_.pilots().all().empty());
}

TEST_F(LeftResults, ASecondLookComesBeforeTheTasksAreLost) {
  end_block();
  pass(seconds(2));
  EXPECT_EQ(count<effect::CollectLeft>(), 1u);
  while (count<effect::CollectLeft>() < 2 && held() > 0) pass(Duration{0});
  EXPECT_EQ(held(), 3u);  // not lost yet: shared storage may be slow to show the file
  leave(TaskState::kSucceeded, FailureClass::kNone);
  pass(seconds(10));
  EXPECT_EQ(core_.counters().retries, 0u);
  EXPECT_EQ(core_.counters().finished, 3u);
}

TEST_F(LeftResults, WithoutAnyTheTasksAreLost) {
  end_block();
  pass(seconds(10));
  EXPECT_EQ(core_.counters().retries, 3u);
  EXPECT_EQ(held(), 0u);
}

// Whether they are tried again depends on the submission's header, which the relay has.
TEST_F(LeftResults, FailuresWaitForSomebodyWhoCanJudgeThem) {
  end_block();
  leave(TaskState::kFailed, FailureClass::kUserError);
  pass(seconds(10));
  EXPECT_EQ(core_.counters().retries, 0u);
  EXPECT_EQ(held(), 3u);
  wire::EndpointWelcome welcome;
  welcome.epoch = 1;
  core_.relay_message(wire::make_message(welcome), now_);
  pass(seconds(70));
  EXPECT_EQ(core_.counters().finished, 3u);
  EXPECT_EQ(count<effect::DropLeft>(), 1u);
}

TEST_F(LeftResults, TheSameFileAgainChangesNothing) {
  end_block();
  leave(TaskState::kFailed, FailureClass::kUserError);
  leave(TaskState::kFailed, FailureClass::kUserError);
  wire::EndpointWelcome welcome;
  welcome.epoch = 1;
  core_.relay_message(wire::make_message(welcome), now_);
  pass(seconds(70));
  EXPECT_EQ(core_.counters().finished, 3u);
  EXPECT_EQ(count<effect::DropLeft>(), 1u);
}

}  // namespace
}  // namespace farcall::interchange
