#include "interchange/core/blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace farcall::interchange {
namespace {

using testing::HasSubstr;

// Blocks between a disk that is quick and a scheduler that the test plays.
class BlocksTest : public testing::Test {
 protected:
  void start() { blocks.emplace(settings, Rng(1), effects); }
  void SetUp() override {
    settings.endpoint_name = "cluster";
    settings.scaling.init_blocks = 1;
    settings.scaling.max_blocks = 2;
    settings.scaling.walltime_s = 3600;
    demand.slots_per_node = 1;
    demand.cores = demand.tasks = 1;
  }

  template <class E>
  std::vector<E> take() {
    std::vector<E> found;
    std::erase_if(effects, [&](Effect& any) {
      if (!std::holds_alternative<E>(any)) return false;
      found.push_back(std::get<E>(any));
      return true;
    });
    return found;
  }
  // Time goes by in ticks; what is to be saved is saved at once.
  void pass(Duration time) {
    for (Duration end = now.mono.since_start + time; now.mono.since_start < end;) step();
  }
  void step() {
    now.mono = now.mono + seconds(1);
    now.wall = now.wall + seconds(1);
    blocks->tick(demand, now);
    for (const auto& each : take<effect::SaveBlock>()) {
      disk[each.block.id] = each.block;
      blocks->saved(each.block.id, each.serial, now);
    }
    for (const auto& each : take<effect::QueryBlocks>()) {
      queries.push_back(now.mono);
      if (answer) blocks->reported(answer(each.job_ids), now);
    }
  }
  BlockId submit(const std::string& job) {
    const auto calls = take<effect::SubmitBlock>();
    EXPECT_EQ(calls.size(), 1u);
    if (calls.empty()) return {};
    blocks->submitted(calls[0].block, job, now);
    return calls[0].block;
  }
  std::vector<JobReport> all(const std::vector<std::string>& ids, JobReport::State state) {
    std::vector<JobReport> reports;
    for (const auto& id : ids) {
      JobReport report;
      report.job_id = id;
      report.state = state;
      report.word = "so";
      reports.push_back(report);
    }
    return reports;
  }
  void calls_home(BlockId block, std::uint64_t load) {
    demand.use[block].pilots = 1;
    demand.use[block].calls_home = true;
    demand.use[block].load = load;
    demand.use[block].cores = 4;
    blocks->pilot_called(block, true, now);
  }
  // The process ends and starts again with what is on disk.
  void restart() {
    std::vector<BlockRecord> records;
    for (const auto& [id, record] : disk) records.push_back(record);
    effects.clear();
    start();
    blocks->recover(records, now);
  }

  Settings settings;
  Effects effects;
  std::optional<Blocks> blocks;
  Demand demand;
  Now now{{seconds(1000)}, WallTime::from_milliseconds(1'700'000'000'000)};
  std::map<BlockId, BlockRecord> disk;
  std::vector<MonoTime> queries;
  std::function<Result<std::vector<JobReport>>(const std::vector<std::string>&)> answer;
};

TEST_F(BlocksTest, AnIntentInDoubtIsLookedForAndAJobUnderItsNameIsTheOne) {
  start();
  step();
  const auto calls = take<effect::SubmitBlock>();
  ASSERT_EQ(calls.size(), 1u);
  restart();
  step();
  EXPECT_TRUE(take<effect::SubmitBlock>().empty());
  const auto finds = take<effect::FindBlock>();
  ASSERT_EQ(finds.size(), 1u);
  EXPECT_EQ(finds[0].job_name, calls[0].job_name);
  blocks->found(finds[0].block, std::vector<std::string>{"7"}, now);
  EXPECT_EQ(blocks->find(calls[0].block)->state, BlockState::kQueued);
  EXPECT_EQ(blocks->find(calls[0].block)->job_id, "7");
}

TEST_F(BlocksTest, AJobThatWakesUpUnderAnAbandonedNameIsCancelled) {
  settings.lookup_grace = seconds(20);
  start();
  step();
  const auto first = take<effect::SubmitBlock>().at(0);
  blocks->submitted(first.block, fail(ErrorCode::kOutcomeUnknown, "timed out"), now);
  std::vector<effect::SubmitBlock> next;
  for (int i = 0; i < 60 && next.empty(); ++i) {
    step();
    for (const auto& find : take<effect::FindBlock>())
      blocks->found(find.block, std::vector<std::string>(), now);
    next = take<effect::SubmitBlock>();
  }
  ASSERT_EQ(next.size(), 1u);
  EXPECT_NE(next[0].job_name, first.job_name);
  EXPECT_EQ(blocks->find(first.block)->state, BlockState::kAbandoned);
  std::vector<effect::CancelJobs> cancels;
  for (int i = 0; i < 600 && cancels.empty(); ++i) {
    step();
    for (const auto& find : take<effect::FindBlock>())
      blocks->found(find.block, std::vector<std::string>{"8"}, now);
    cancels = take<effect::CancelJobs>();
  }
  ASSERT_EQ(cancels.size(), 1u);
  EXPECT_EQ(cancels[0].job_ids, std::vector<std::string>{"8"});
}

TEST_F(BlocksTest, ManyAbandonedNamesDoNotKeepACancelWaiting) {
  start();
  std::vector<BlockRecord> records;
  for (std::uint8_t n = 1; n <= 50; ++n) {
    BlockRecord record;
    record.id = BlockId{{n}};
    record.job_name = "fc-" + std::to_string(n);
    record.state = BlockState::kAbandoned;
    record.since_ms = now.wall.milliseconds_since_epoch();
    records.push_back(record);
  }
  blocks->recover(records, now);
  pass(std::chrono::minutes(5));
  EXPECT_EQ(take<effect::FindBlock>().size(), 1u);  // its answer has not come
  // Those of two days ago are not looked for any more.
  now.wall = now.wall + std::chrono::hours(48);
  start();
  blocks->recover(records, now);
  pass(std::chrono::minutes(5));
  EXPECT_TRUE(take<effect::FindBlock>().empty());
}

TEST_F(BlocksTest, AnAbandonedNameThatIsListedForEverDoesNotKeepOthersFromBeingLookedFor) {
  settings.lookup_grace = seconds(1);
  start();
  std::vector<BlockRecord> records;
  for (std::uint8_t n = 1; n <= 2; ++n) {
    BlockRecord record;
    record.id = BlockId{{n}};
    record.job_name = "fc-" + std::to_string(n);
    record.state = BlockState::kAbandoned;
    record.since_ms = now.wall.milliseconds_since_epoch();
    records.push_back(record);
  }
  blocks->recover(records, now);
  int first = 0, second = 0;
  for (int i = 0; i < 60; ++i) {
    pass(seconds(2));  // a look takes longer than the time until the next one is due
    for (const auto& find : take<effect::FindBlock>()) {
      const bool is_first = find.job_name == "fc-1";
      ++(is_first ? first : second);
      blocks->found(find.block,
                    is_first ? std::vector<std::string>{"6"} : std::vector<std::string>(), now);
    }
  }
  EXPECT_GT(second, 0) << "its job may be there";
  EXPECT_GT(first, 0);
  EXPECT_LT(first, 20) << "ever more seldom";
}

TEST_F(BlocksTest, ASchedulerThatIsAwaySaysNothingAboutAJob) {
  start();
  step();
  const BlockId block = submit("1");
  calls_home(block, 1);
  answer = [](const auto&) { return fail(ErrorCode::kSchedulerUnavailable, "connect failure"); };
  pass(std::chrono::hours(1));
  EXPECT_EQ(blocks->find(block)->state, BlockState::kRunning);
  EXPECT_GT(blocks->pace().unanswered(), 3);
  EXPECT_LE(queries.size(), 20u);  // ever more seldom, up to five minutes
  EXPECT_TRUE(take<effect::SubmitBlock>().empty());
  EXPECT_THAT(blocks->explain_wait(now), HasSubstr("connect failure"));
}

TEST_F(BlocksTest, AnIdThatNowIsAnotherJobIsNotCancelled) {
  start();
  step();
  const BlockId block = submit("1");
  answer = [&](const auto& ids) {
    auto reports = all(ids, JobReport::State::kRunning);
    for (auto& report : reports) report.job_name = "somebody-elses";
    return reports;
  };
  pass(seconds(8));
  blocks->end(block, "not wanted", now);
  pass(std::chrono::minutes(5));
  EXPECT_TRUE(take<effect::CancelJobs>().empty());
  EXPECT_EQ(blocks->find(block)->state, BlockState::kEnded);
}

TEST_F(BlocksTest, PilotsThatCallHomeAreBelievedBeforeASchedulerThatHasForgotten) {
  start();
  step();
  const BlockId block = submit("1");
  calls_home(block, 1);
  answer = [&](const auto& ids) {
    auto reports = all(ids, JobReport::State::kUnknown);
    for (auto& report : reports) report.listed = false;
    return reports;
  };
  pass(std::chrono::minutes(20));
  EXPECT_EQ(blocks->find(block)->state, BlockState::kRunning);
  demand.use[block].calls_home = false;
  pass(std::chrono::minutes(5));
  EXPECT_EQ(blocks->find(block)->state, BlockState::kEnded);
}

TEST_F(BlocksTest, OneQueryForAllJobsPerInterval) {
  settings.scaling.max_blocks = 8;
  demand.cores = demand.tasks = 10000;
  start();
  step();
  int jobs = 0;
  std::vector<BlockId> made;
  for (const auto& call : take<effect::SubmitBlock>()) {
    blocks->submitted(call.block, std::to_string(++jobs), now);
    made.push_back(call.block);
  }
  ASSERT_EQ(jobs, 8);
  answer = [&](const auto& ids) {
    EXPECT_EQ(ids.size(), 8u);
    return all(ids, JobReport::State::kRunning);
  };
  for (BlockId block : made) calls_home(block, 1);
  pass(std::chrono::minutes(10));
  EXPECT_LE(queries.size(), 21u);
  EXPECT_GE(queries.size(), 15u);
  for (std::size_t i = 2; i < queries.size(); ++i)
    EXPECT_GE(queries[i] - queries[i - 1], settings.scheduler_interval);
  EXPECT_EQ(blocks->pace().calls_last_hour(now), static_cast<int>(queries.size()) + 8);
}

TEST_F(BlocksTest, ARefusalIsShownAndAfterThreeNobodyAsksUntilResume) {
  start();
  int asked = 0;
  for (int i = 0; i < 1200; ++i) {
    step();
    for (const auto& call : take<effect::SubmitBlock>()) {
      ++asked;
      blocks->submitted(call.block, fail(ErrorCode::kSchedulerRefused, "Invalid account"), now);
    }
  }
  EXPECT_EQ(asked, 3);
  EXPECT_THAT(blocks->paused(), HasSubstr("refused 3 blocks in a row: Invalid account"));
  EXPECT_THAT(blocks->paused(), HasSubstr("farcall endpoint resume cluster"));
  demand.cores = demand.tasks = 1;
  blocks->resume();
  step();
  EXPECT_EQ(take<effect::SubmitBlock>().size(), 1u);
  EXPECT_EQ(blocks->paused(), "");
}

TEST_F(BlocksTest, ASubmitLimitMeansWaitAndNotPause) {
  start();
  for (int i = 0; i < 1200; ++i) {
    step();
    for (const auto& call : take<effect::SubmitBlock>())
      blocks->submitted(call.block, fail(ErrorCode::kSchedulerLimit, "QOSMaxSubmitJobPerUser"),
                        now);
  }
  EXPECT_EQ(blocks->paused(), "");
  EXPECT_EQ(blocks->last_error(), "QOSMaxSubmitJobPerUser");
}

TEST_F(BlocksTest, BlocksThatDieBeforeAPilotCallsAreNotAskedForForEver) {
  demand.cores = demand.tasks = 1;
  start();
  int asked = 0;
  answer = [&](const auto& ids) {
    auto reports = all(ids, JobReport::State::kEnded);
    for (auto& report : reports) {
      report.end = BlockEnd::kFailed;
      report.reason = "NonZeroExitCode";
    }
    return reports;
  };
  for (int i = 0; i < 1200; ++i) {
    step();
    for (const auto& call : take<effect::SubmitBlock>())
      blocks->submitted(call.block, std::to_string(++asked), now);
  }
  EXPECT_EQ(asked, 3);
  EXPECT_THAT(blocks->paused(), HasSubstr("3 blocks in a row came to nothing"));
  EXPECT_THAT(blocks->paused(), HasSubstr("NonZeroExitCode"));
  EXPECT_THAT(blocks->paused(), HasSubstr("job.out"));
}

// As on a scheduler that cannot be told which nodes a job must not get.
TEST_F(BlocksTest, BlocksThatGetBadNodesOnlyAreNotAskedForForEver) {
  start();
  int asked = 0;
  answer = [&](const auto& ids) {
    auto reports = all(ids, JobReport::State::kEnded);
    for (auto& report : reports) report.end = BlockEnd::kCompleted;
    return reports;
  };
  for (int i = 0; i < 1200; ++i) {
    step();
    for (const auto& call : take<effect::SubmitBlock>()) {
      blocks->submitted(call.block, std::to_string(++asked), now);
      blocks->pilot_called(call.block, false, now);
    }
  }
  EXPECT_EQ(asked, 3);
  EXPECT_THAT(blocks->paused(), HasSubstr("job 3 got no node but such as are bad"));
  blocks->resume();
  step();
  EXPECT_EQ(take<effect::SubmitBlock>().size(), 1u);
}

TEST_F(BlocksTest, TheBudgetCountsWhatBlocksMayUse) {
  settings.scaling.core_hours_max = 10;
  settings.scaling.cores_per_node = 4;
  settings.scaling.max_blocks = 5;
  demand.cores = demand.tasks = 100;
  start();
  step();
  int jobs = 0;
  std::vector<BlockId> made;
  for (const auto& call : take<effect::SubmitBlock>()) {
    blocks->submitted(call.block, std::to_string(++jobs), now);
    made.push_back(call.block);
  }
  EXPECT_EQ(jobs, 2);  // of four core-hours each
  EXPECT_THAT(blocks->explain_wait(now), HasSubstr("no further block: it may use 4.00 core-hours"));
  answer = [&](const auto& ids) { return all(ids, JobReport::State::kRunning); };
  for (BlockId block : made) calls_home(block, 1);
  pass(seconds(1800));
  EXPECT_NEAR(blocks->core_hours_used(now), 4, 0.05);
  EXPECT_NEAR(blocks->core_hours_committed(now), 4, 0.05);
  restart();  // what was used is not forgotten
  EXPECT_NEAR(blocks->core_hours_used(now), 4, 0.05);
}

TEST_F(BlocksTest, ADrainCancelsWhatWaitsAndLetsEndWhatRuns) {
  demand.cores = demand.tasks = 2;
  start();
  step();
  auto calls = take<effect::SubmitBlock>();
  ASSERT_EQ(calls.size(), 2u);
  blocks->submitted(calls[0].block, std::string("1"), now);
  blocks->submitted(calls[1].block, std::string("2"), now);
  calls_home(calls[0].block, 1);
  blocks->drain_all("drained", now);
  EXPECT_EQ(blocks->take_drained(), std::vector<BlockId>{calls[0].block});
  EXPECT_EQ(blocks->find(calls[1].block)->state, BlockState::kEnding);
  pass(seconds(60));
  EXPECT_EQ(blocks->find(calls[0].block)->state, BlockState::kRunning);
  EXPECT_TRUE(blocks->drains(calls[0].block));
  EXPECT_TRUE(take<effect::SubmitBlock>().empty());
  demand.use[calls[0].block].load = 0;
  step();
  EXPECT_EQ(blocks->find(calls[0].block)->state, BlockState::kEnding);
  blocks->resume();
  pass(seconds(2));
  EXPECT_EQ(take<effect::SubmitBlock>().size(), 2u);
}

}  // namespace
}  // namespace farcall::interchange
