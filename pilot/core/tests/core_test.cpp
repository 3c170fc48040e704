#include "harness.h"

namespace farcall::pilot::test {
namespace {

using namespace std::chrono_literals;

TEST(Core, StartsAsManyAsItHasSlotsAndQueuesTheRest) {
  Bench bench(2);
  bench.welcome();
  bench.dispatch(1, {{0, "Ja"}, {1, "Jbb"}, {2, "Jccc"}});
  ASSERT_EQ(bench.started.size(), 2u);
  EXPECT_EQ(bench.started[1].work.arguments.view(), "Jbb");
  EXPECT_EQ(bench.started[1].work.function->body.view(), "body");
  EXPECT_EQ(bench.core->queued(), 1u);
  bench.succeed(ref(1, 0), "J42");
  ASSERT_EQ(bench.started.size(), 3u);
  ASSERT_EQ(bench.delivered.size(), 1u);
  EXPECT_EQ(bench.delivered[0].data.view(), "J42");
  EXPECT_EQ(bench.delivered[0].outcome.host, "n1");
}

TEST(Core, WideTasksHoldTheirCores) {
  Bench bench(4);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}}, 1, {FunctionKind::kShell, 0, 3});
  EXPECT_EQ(bench.started.size(), 1u);
  bench.succeed(ref(1, 0));
  EXPECT_EQ(bench.started.size(), 2u);
}

TEST(Core, KeepsResultsUntilAcknowledgedAndSendsThemAfterEachWelcome) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}});
  bench.succeed(ref(1, 0), "J1");
  EXPECT_EQ(bench.batches, (std::vector<std::uint64_t>{1}));
  bench.core->on_down(bench.now);
  bench.succeed(ref(1, 1), "J2");  // while nobody listens
  EXPECT_EQ(bench.batches.size(), 1u);
  EXPECT_EQ(bench.hello().unacknowledged, 2u);
  bench.welcome();
  EXPECT_EQ(bench.batches, (std::vector<std::uint64_t>{1, 1, 2}));
  bench.ack({1});
  EXPECT_EQ(bench.core->unacknowledged(), 1u);
  bench.ack({2});
  EXPECT_EQ(bench.hello().unacknowledged, 0u);
}

TEST(Core, HelloNamesWhatItHolds) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}}, 3);
  bench.core->on_down(bench.now);
  const wire::PilotHello hello = bench.hello();
  EXPECT_EQ(hello.holds, (std::vector<wire::AttemptRef>{ref(1, 0, 3), ref(1, 1, 3)}));
  EXPECT_EQ(hello.epoch, 1u);
}

TEST(Core, AbandonedAttemptsAreKilledAndForgotten) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}});
  bench.core->on_down(bench.now);
  bench.hello();
  bench.welcome({ref(1, 0), ref(1, 1)});
  EXPECT_EQ(bench.kills, (std::vector<wire::AttemptRef>{ref(1, 0)}));
  // Dispatched again before it is dead: starts when it is.
  bench.dispatch(1, {{0, "Jnew"}});
  EXPECT_EQ(bench.started.size(), 1u);
  bench.killed(ref(1, 0));
  ASSERT_EQ(bench.started.size(), 2u);
  EXPECT_EQ(bench.started[1].work.arguments.view(), "Jnew");
  EXPECT_TRUE(bench.delivered.empty());
}

TEST(Core, CancelOfAQueuedTaskIsAnOutcomeAtOnce) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}});
  bench.cancel({ref(1, 1), ref(1, 7)});
  ASSERT_EQ(bench.delivered.size(), 1u);
  EXPECT_EQ(bench.delivered[0].outcome.state, TaskState::kCancelled);
  EXPECT_EQ(bench.delivered[0].outcome.started_ms, 0);
  EXPECT_EQ(failure_json(bench.delivered[0].data)["message"],
            "the task was cancelled before it was started on n1");
}

TEST(Core, CancelOfARunningTaskKillsItFirst) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}});
  bench.began(ref(1, 0));
  bench.cancel({ref(1, 0)});
  bench.cancel({ref(1, 0)});
  EXPECT_EQ(bench.kills.size(), 1u);
  EXPECT_TRUE(bench.delivered.empty());
  bench.killed(ref(1, 0));
  ASSERT_EQ(bench.delivered.size(), 1u);
  EXPECT_EQ(bench.delivered[0].outcome.failure, FailureClass::kCancelled);
  EXPECT_EQ(bench.core->running(), 0u);
}

TEST(Core, AResultThatCameBeforeTheCancelTookEffectStands) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}});
  bench.cancel({ref(1, 0)});
  bench.succeed(ref(1, 0), "J5");
  ASSERT_EQ(bench.delivered.size(), 1u);
  EXPECT_EQ(bench.delivered[0].outcome.state, TaskState::kSucceeded);
}

TEST(Core, WalltimeCountsFromTheBeginningAndKills) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}}, 1, {FunctionKind::kPythonSource, 1500, 1});
  bench.advance(10s);  // handed over, but not begun
  EXPECT_TRUE(bench.kills.empty());
  bench.began(ref(1, 0));
  EXPECT_LE(*bench.core->next_deadline(), bench.now.mono + 1500ms);
  bench.advance(1499ms);
  EXPECT_TRUE(bench.kills.empty());
  bench.advance(1ms);
  ASSERT_EQ(bench.kills.size(), 1u);
  bench.killed(ref(1, 0));
  ASSERT_EQ(bench.delivered.size(), 1u);
  EXPECT_EQ(bench.delivered[0].outcome.failure, FailureClass::kTimeExceeded);
  const auto json = failure_json(bench.delivered[0].data);
  EXPECT_EQ(json["limit"], "walltime 1.5 s");
  EXPECT_EQ(json["class"], "time_exceeded");
}

TEST(Core, ReturnedTasksStartAgainAndAreNotCharged) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}});
  bench.core->on_returned(ref(1, 0), bench.now);
  bench.settle();
  ASSERT_EQ(bench.started.size(), 2u);
  EXPECT_EQ(bench.started[1].work.ref, ref(1, 0));
  EXPECT_TRUE(bench.delivered.empty());
}

TEST(Core, WhatBeganAndEndsThroughAnothersFaultGoesBackAndDoesNotStartHereAgain) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}}, 1, {FunctionKind::kShell, 1500, 1});
  bench.began(ref(1, 0));
  bench.core->on_down(bench.now);
  bench.core->on_returned(ref(1, 0), bench.now);
  bench.settle();
  EXPECT_EQ(bench.hello().holds, (std::vector{ref(1, 1), ref(1, 0)}));
  bench.welcome({});
  ASSERT_EQ(bench.handed_back.size(), 1u);
  EXPECT_EQ(bench.handed_back[0], std::make_pair(ref(1, 0), FailureClass::kCrash));
  ASSERT_EQ(bench.started.size(), 2u);
  EXPECT_EQ(bench.started[1].work.ref, ref(1, 1));
  EXPECT_EQ(bench.hello().holds, std::vector{ref(1, 1)});
}

TEST(Core, StopHandsBackWhatIsQueuedAtOnceAndWhatStillRunsAtTheDeadline) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}});
  bench.stop(2000);
  ASSERT_EQ(bench.handed_back.size(), 1u);
  EXPECT_EQ(bench.handed_back[0], std::make_pair(ref(1, 1), FailureClass::kNone));
  bench.dispatch(1, {{2, "J"}});  // crossed the Stop on its way
  EXPECT_EQ(bench.handed_back.size(), 2u);
  bench.advance(1999ms);
  EXPECT_TRUE(bench.kills.empty());
  bench.advance(1ms);
  ASSERT_EQ(bench.kills.size(), 1u);
  bench.killed(ref(1, 0));
  ASSERT_EQ(bench.handed_back.size(), 3u);
  EXPECT_EQ(bench.handed_back[2], std::make_pair(ref(1, 0), FailureClass::kAllocationEnded));
  ASSERT_EQ(bench.exits.size(), 1u);
  EXPECT_EQ(bench.exits[0].code, 0);
  EXPECT_EQ(bench.exits[0].why, "the block is idle");
}

TEST(Core, StopWaitsForTheLastAcknowledgementButNotForEver) {
  for (bool acknowledged : {true, false}) {
    Bench bench(1);
    bench.welcome();
    bench.dispatch(1, {{0, "J"}});
    bench.stop(60000);
    bench.succeed(ref(1, 0));
    EXPECT_TRUE(bench.exits.empty());
    if (acknowledged)
      bench.ack({1});
    else
      bench.advance(3s);
    ASSERT_EQ(bench.exits.size(), 1u) << acknowledged;
    EXPECT_EQ(bench.exits[0].why, acknowledged
                                      ? "the block is idle"
                                      : "the block is idle; 1 results were not acknowledged");
  }
}

TEST(Core, CutOffItStartsNothingMoreAndEndsWhenNobodyComes) {
  Settings settings;
  settings.lost_timeout = 20s;
  settings.orphan_timeout = 60s;
  Bench bench(1, settings);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}, {2, "J"}});
  bench.core->on_down(bench.now);
  bench.advance(19s);
  bench.succeed(ref(1, 0));
  EXPECT_EQ(bench.started.size(), 2u);  // prefetched work goes on until the lost-timeout
  EXPECT_EQ(*bench.core->next_deadline(), bench.now.mono + 1s);
  bench.advance(1s);
  EXPECT_EQ(*bench.core->next_deadline(), bench.now.mono + 4s);  // the result is saved then
  bench.advance(4s);
  EXPECT_EQ(bench.saved.size(), 1u);
  EXPECT_EQ(*bench.core->next_deadline(), bench.now.mono + 56s);
  bench.advance(56s);
  EXPECT_TRUE(bench.exits.empty());  // it still runs
  bench.succeed(ref(1, 1));
  EXPECT_EQ(bench.started.size(), 2u);
  ASSERT_EQ(bench.exits.size(), 1u);
  EXPECT_EQ(bench.exits[0].code, 1);
  EXPECT_EQ(bench.exits[0].why, "no interchange has answered for 80 s; 2 results were not taken");
}

std::vector<std::uint32_t> indices_in(const wire::Message& saved) {
  std::vector<std::uint32_t> all;
  std::uint64_t bytes = 0;
  const auto results = wire::decode<wire::Results>(saved);
  for (const auto& item : results->results)
    for (const auto& outcome : item.outcomes) {
      all.push_back(outcome.index);
      bytes += outcome.data_size;
    }
  EXPECT_EQ(saved.payload.at(0).size(), bytes);
  return all;
}

TEST(Core, WhatNobodyTakesIsSavedOnceAndDroppedWhenItWasTaken) {
  Settings settings;
  settings.save_after = 5s;
  Bench bench(4, settings);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}, {2, "J"}, {3, "J"}});
  bench.succeed(ref(1, 0));  // sent, not acknowledged
  bench.core->on_down(bench.now);
  bench.succeed(ref(1, 1), "J22");
  EXPECT_TRUE(bench.saved.empty());
  bench.advance(5s);
  ASSERT_EQ(bench.saved.size(), 1u);
  EXPECT_EQ(indices_in(bench.saved[0]), (std::vector<std::uint32_t>{0, 1}));
  bench.succeed(ref(1, 2));
  bench.advance(9s);
  EXPECT_EQ(bench.saved.size(), 1u);  // less and less often
  bench.advance(1s);
  ASSERT_EQ(bench.saved.size(), 2u);
  EXPECT_EQ(indices_in(bench.saved[1]), (std::vector<std::uint32_t>{2}));
  bench.welcome();
  bench.ack({1, 2});
  EXPECT_EQ(bench.dropped, 0);  // the third batch is not safe yet
  bench.ack({3});
  EXPECT_EQ(bench.dropped, 1);
  bench.succeed(ref(1, 3));
  bench.ack({4});
  EXPECT_EQ(bench.dropped, 1);
  EXPECT_EQ(bench.saved.size(), 2u);
}

TEST(Core, AtTheEndOfTheBlockWhatIsNotAcknowledgedIsSavedAtOnce) {
  Bench bench(2);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}});
  bench.core->on_down(bench.now);
  bench.succeed(ref(1, 0));
  bench.core->on_terminate("received TERM", 1s, bench.now);
  bench.settle();
  ASSERT_EQ(bench.saved.size(), 1u);  // before whoever sent TERM loses patience
  bench.succeed(ref(1, 1));
  ASSERT_EQ(bench.saved.size(), 2u);
  EXPECT_EQ(indices_in(bench.saved[1]), (std::vector<std::uint32_t>{1}));
  bench.advance(3s);
  ASSERT_EQ(bench.exits.size(), 1u);
  EXPECT_EQ(bench.saved.size(), 2u);
}

TEST(Core, AnInterchangeThatDoesNotAnswerAtTheEndCostsNoResults) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}});
  bench.stop(60000);
  bench.succeed(ref(1, 0));
  EXPECT_TRUE(bench.saved.empty());
  bench.advance(3s);
  ASSERT_EQ(bench.exits.size(), 1u);
  ASSERT_EQ(bench.saved.size(), 1u);
  EXPECT_EQ(indices_in(bench.saved[0]), (std::vector<std::uint32_t>{0}));
}

TEST(Core, TheHighestEpochWins) {
  Bench bench(1);
  bench.welcome({}, 5);
  bench.core->on_down(bench.now);
  EXPECT_EQ(bench.hello().epoch, 5u);
  bench.welcome({}, 4);
  ASSERT_EQ(bench.redials.size(), 1u);
  EXPECT_EQ(bench.redials[0], "an interchange of epoch 4 answered, but epoch 5 has taken over");
  bench.dispatch(1, {{0, "J"}});
  EXPECT_TRUE(bench.started.empty());
  bench.hello();
  bench.welcome({}, 6);
  bench.dispatch(1, {{0, "J"}});
  EXPECT_EQ(bench.started.size(), 1u);
}

TEST(Core, RunningIsToldOnlyOfWhatIsOlderThan100ms) {
  Bench bench(2);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}});
  bench.began(ref(1, 0));
  bench.began(ref(1, 1));
  bench.advance(50ms);
  bench.succeed(ref(1, 0));
  bench.advance(60ms);
  ASSERT_EQ(bench.running.size(), 1u);
  EXPECT_EQ(bench.running[0].running[0].ranges, (RangeSet{{1, 2}}));
  bench.advance(5s);
  EXPECT_EQ(bench.running.size(), 1u);  // nothing changed
  bench.succeed(ref(1, 1));
  bench.advance(100ms);
  ASSERT_EQ(bench.running.size(), 2u);
  EXPECT_TRUE(bench.running[1].running[0].ranges.empty());
}

TEST(Core, NotesAreMergedAndToldBeforeTheOutcome) {
  Bench bench(2);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}});
  bench.core->on_note(ref(1, 0), {true, 1, 4, "too early", "", "", 0, 0});  // it has not begun
  bench.settle();
  EXPECT_TRUE(bench.notes.empty());
  bench.began(ref(1, 0));
  bench.core->on_note(ref(1, 0), {true, 1, 4, "one", "ab", "", 0, 0});
  bench.settle();
  ASSERT_EQ(bench.notes.size(), 1u);
  bench.core->on_note(ref(1, 0), {true, 2, 4, "two", "cd", "", 2, 0});
  bench.core->on_note(ref(1, 0), {false, 0, 0, "", "ef", "!", 4, 0});
  bench.settle();
  EXPECT_EQ(bench.notes.size(), 1u);  // not so soon
  EXPECT_EQ(bench.core->next_deadline(), bench.now.mono + 100ms);
  bench.advance(100ms);
  ASSERT_EQ(bench.notes.size(), 2u);
  const wire::TaskNote& note = bench.notes[1].first.items.at(0).notes.at(0);
  EXPECT_EQ(std::tuple(note.index, note.done, note.text, note.out_offset, note.out_size),
            std::tuple(0u, 2.0, std::string("two"), 2u, 4u));
  EXPECT_EQ(bench.notes[1].second, "cdef!");
  bench.core->on_note(ref(1, 0), {true, 4, 4, "done", "", "", 0, 0});
  bench.sent.clear();
  bench.succeed(ref(1, 0));
  EXPECT_EQ(bench.sent, (std::vector{wire::kNotesType, wire::MessageType::kResults}));
}

TEST(Core, NotesThatNobodyCanHearAreDropped) {
  Bench bench(1);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}});
  bench.began(ref(1, 0));
  bench.core->on_down(bench.now);
  bench.core->on_note(ref(1, 0), {true, 1, 4, "", "", "", 0, 0});
  bench.welcome();
  bench.advance(1s);
  EXPECT_TRUE(bench.notes.empty());
  // Of output that is too much the end is kept.
  bench.core->on_note(ref(1, 0), {false, 0, 0, "", std::string(100'000, 'x') + "y", "", 0, 0});
  bench.settle();
  ASSERT_EQ(bench.notes.size(), 1u);
  EXPECT_EQ(bench.notes[0].second.size(), 65536u);
  EXPECT_EQ(bench.notes[0].second.back(), 'y');
  EXPECT_EQ(bench.notes[0].first.items.at(0).notes.at(0).out_offset, 100'001u - 65536u);
}

TEST(Core, HeartbeatsAsOftenAsTheWelcomeSays) {
  Bench bench(1);
  wire::PilotWelcome welcome;
  welcome.heartbeat_ms = 500;
  welcome.slots = 1;
  bench.core->on_message(wire::make_message(welcome), bench.now);
  bench.settle();
  for (int i = 0; i < 4; ++i) bench.advance(250ms);
  EXPECT_EQ(std::count(bench.sent.begin(), bench.sent.end(), wire::MessageType::kPilotStatus), 3);
}

TEST(Core, ShortPythonFunctionsLineUpBehindEachOtherAndLongOnesDoNot) {
  Bench bench(1);
  bench.welcome();
  std::vector<std::pair<std::uint32_t, std::string>> tasks;
  for (std::uint32_t i = 0; i < 60; ++i) tasks.emplace_back(i, "J");
  bench.dispatch(1, tasks);
  for (std::uint32_t i = 0; i < 32; ++i) {
    EXPECT_EQ(bench.started.size(), i + 1);
    bench.succeed(ref(1, i), "J", 2);
  }
  EXPECT_EQ(bench.core->running(), 5u);  // one, and four behind it
  EXPECT_FALSE(bench.started[32].line_up);
  EXPECT_TRUE(bench.started[33].line_up);
  bench.succeed(ref(1, 32), "J", 900);
  bench.succeed(ref(1, 33), "J", 2);
  EXPECT_EQ(bench.core->running(), 3u);
}

TEST(Core, TheShorterAFunctionTheMoreOfItLinesUp) {
  Bench bench(1);
  bench.welcome();
  std::vector<std::pair<std::uint32_t, std::string>> tasks;
  for (std::uint32_t i = 0; i < 500; ++i) tasks.emplace_back(i, "J");
  bench.dispatch(1, tasks);
  for (std::uint32_t i = 0; i < 32; ++i) bench.succeed(ref(1, i), "J", 0);
  EXPECT_EQ(bench.core->lined_up(), 128u);
  EXPECT_EQ(bench.core->running(), 129u);
}

TEST(Core, ABrokenDispatchBeginsANewSession) {
  Bench bench(1);
  bench.welcome();
  wire::Dispatch message;
  message.groups.push_back({submission(1), {{0, 1, 5}}});
  bench.core->on_message(wire::make_message(message, {Bytes(std::string("J"))}), bench.now);
  bench.settle();
  ASSERT_EQ(bench.redials.size(), 1u);
  EXPECT_NE(bench.redials[0].find("whose header never came"), std::string::npos);
}

TEST(Core, AnEndedBlockDeliversWhatItHasAndStops) {
  Bench bench(0 + 1);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}});
  bench.core->on_down(bench.now);
  bench.succeed(ref(1, 0));
  bench.slots_ = 0;
  bench.welcome();
  EXPECT_EQ(bench.delivered.size(), 1u);
  bench.stop(0);
  EXPECT_TRUE(bench.exits.empty());
  bench.ack({1});
  EXPECT_EQ(bench.exits.size(), 1u);
}

// The clock of the bench stands at 1000 s; five seconds before the end nothing may run any more.
TEST(Core, ATaskThatNeedsMoreThanIsLeftGoesBackUnstarted) {
  Settings settings;
  settings.allocation_end = MonoTime{1100s};
  Bench bench(1, settings);
  bench.welcome();
  EXPECT_EQ(bench.hello().remaining_s, 95);
  bench.dispatch(1, {{0, "J"}}, 1, {FunctionKind::kShell, 96'000});
  EXPECT_TRUE(bench.started.empty());
  ASSERT_EQ(bench.handed_back.size(), 1u);
  EXPECT_EQ(bench.handed_back[0].second, FailureClass::kTimeExceeded);
  bench.dispatch(2, {{0, "J"}}, 1, {FunctionKind::kShell, 95'000});
  EXPECT_EQ(bench.started.size(), 1u);
}

TEST(Core, WhatStillRunsIsGivenBackBeforeTheAllocationEnds) {
  Settings settings;
  settings.allocation_end = MonoTime{1100s};
  Bench bench(1, settings);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}});
  bench.began(ref(1, 0));
  bench.advance(94s);
  EXPECT_TRUE(bench.kills.empty());
  EXPECT_EQ(bench.core->next_deadline(), MonoTime{1095s});
  bench.advance(1s);
  ASSERT_EQ(bench.kills.size(), 1u);
  bench.killed(ref(1, 0));
  ASSERT_EQ(bench.handed_back.size(), 2u);
  EXPECT_EQ(bench.handed_back[0],
            (std::pair{ref(1, 1), FailureClass::kNone}));  // never started: charged nothing
  EXPECT_EQ(bench.handed_back[1], (std::pair{ref(1, 0), FailureClass::kAllocationEnded}));
  EXPECT_EQ(bench.exits.size(), 1u);
}

// Slurm's scancel sends SIGTERM to every process of the job, and a task may die of it before us.
TEST(Core, WhatDiedOfTheSignalThatEndsTheJobIsGivenBackAndNoResult) {
  Bench bench(2);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}});
  for (std::uint32_t index : {0u, 1u}) {
    bench.began(ref(1, index));
    Finished finished{ref(1, index), {}, Bytes(std::string("R"))};
    finished.outcome.state = TaskState::kSucceeded;
    finished.outcome.exit_code = 143;
    bench.core->on_finished(std::move(finished), bench.now);
    bench.settle();
    if (index == 0) {
      bench.advance(1s);  // nobody ends the job: it was the task's own affair
      EXPECT_EQ(bench.delivered.size(), 1u);
    }
  }
  bench.core->on_terminate("received TERM", 1s, bench.now);
  bench.settle();
  EXPECT_EQ(bench.delivered.size(), 1u);
  ASSERT_EQ(bench.handed_back.size(), 1u);
  EXPECT_EQ(bench.handed_back[0], (std::pair{ref(1, 1), FailureClass::kAllocationEnded}));
}

// One that Slurm's controller does not know is killed without a warning, in any order.
TEST(Core, WhatWasKilledIsReportedOnlyOnceWeKnowThatWeWereNot) {
  Bench bench(2);
  bench.welcome();
  bench.dispatch(1, {{0, "J"}, {1, "J"}});
  for (std::uint32_t index : {0u, 1u}) {
    bench.began(ref(1, index));
    Finished finished{ref(1, index), {}, Bytes(std::string("R"))};
    finished.outcome.state = index == 0 ? TaskState::kSucceeded : TaskState::kFailed;
    finished.outcome.failure = index == 0 ? FailureClass::kNone : FailureClass::kMemoryExceeded;
    finished.outcome.signal = 9;
    bench.core->on_finished(std::move(finished), bench.now);
    bench.settle();
  }
  ASSERT_EQ(bench.delivered.size(), 1u);  // we killed that one ourselves
  EXPECT_EQ(bench.delivered[0].ref, ref(1, 1));
  bench.advance(1s);
  EXPECT_EQ(bench.delivered.size(), 2u);
}

}  // namespace
}  // namespace farcall::pilot::test
