// Each promise of the relay's protocol, event by event.
#include <gmock/gmock.h>

#include "model/offer.h"
#include "rig.h"
#include "test_support/logs.h"

namespace farcall::relay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct RelayCore : ::testing::Test, Rig {
  PeerId ann = client();
  FunctionId f = function(ann);
  EndpointId e = endpoint(ann);
};

RangeSet r(std::uint32_t first, std::uint32_t last) { return RangeSet{{first, last}}; }
int code(ErrorCode c) { return static_cast<int>(c); }

TEST_F(RelayCore, AnswersASubmissionOnlyAfterTheCommit) {
  auto_commit = false;
  const auto h = header(e, f);
  submit(ann, h, 0, 10, true);
  EXPECT_THAT(take<wire::SubmitAck>(ann), IsEmpty());
  commit();
  const auto result = ack(ann);
  EXPECT_EQ(result.error, 0);
  EXPECT_EQ(result.received, r(0, 10));
  EXPECT_TRUE(result.sealed);
  submit(ann, header(e, f), 0, 5);  // not committed: lost
  restart();
  const auto list = call(client(), "submission.list", nlohmann::json::object())["submissions"];
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0]["received"], 10);
}

TEST_F(RelayCore, WhileTheDiskIsFullNothingNewIsTakenAndWhatIsOnItsWayWaits) {
  test::expect_error_log(
      "nothing new is kept or acknowledged until there is room: database or disk is full");
  auto_commit = false;
  const auto h = header(e, f);
  submit(ann, h, 0, 10, true);
  apply(core->store_stuck({ErrorCode::kIo, "database or disk is full"}, now));
  submit(ann, h, 0, 10, true);  // from a client that has connected again
  EXPECT_THAT(take<wire::SubmitAck>(ann), IsEmpty());
  const auto other = header(e, f);
  submit(ann, other, 0, 10, true);
  const auto no = ack(ann);
  EXPECT_EQ(no.submission, other.submission);
  EXPECT_EQ(no.error, code(ErrorCode::kIo));
  EXPECT_EQ(no.text,
            "the relay cannot keep anything new: database or disk is full; what it has "
            "acknowledged is safe, send this again when it has room");
  wire::RegisterFunction m{++requests, {}};
  m.function.name = "other";
  send(ann, m, {Bytes(std::string("body"))});
  EXPECT_EQ(answer(ann, requests)["text"], no.text);
  EXPECT_EQ(call(client(), "endpoint.status", {{"endpoint", "cluster"}})["name"], "cluster");
  EXPECT_EQ(call(client(), "whoami", nlohmann::json::object())["store_error"], no.text);
  for (const char* method : {"invite", "endpoint.register", "endpoint.delete", "task.cancel"})
    EXPECT_EQ(call(ann, method, nlohmann::json::object())["text"], no.text) << method;

  commit();
  EXPECT_EQ(call(ann, "whoami", nlohmann::json::object())["store_error"], "");
  EXPECT_EQ(ack(ann).error, 0);
  submit(ann, other, 0, 10, true);
  commit();
  EXPECT_EQ(ack(ann).submission, other.submission);
  EXPECT_EQ(core->counters().tasks_received, 20u);
}

TEST_F(RelayCore, TheSamePartAgainWaitsForTheCommitOfTheFirst) {
  auto_commit = false;
  const auto h = header(e, f);
  submit(ann, h, 0, 10);
  submit(ann, h, 0, 10);
  EXPECT_THAT(take<wire::SubmitAck>(ann), IsEmpty());
  commit();
  EXPECT_EQ(ack(ann).error, 0);
  EXPECT_EQ(core->counters().tasks_received, 10u);
}

TEST_F(RelayCore, OtherContentUnderTheSameIdIsRefused) {
  auto h = header(e, f);
  submit(ann, h, 0, 10);
  ASSERT_EQ(ack(ann).error, 0);
  submit(ann, h, 0, 10, false, 'b');
  EXPECT_EQ(ack(ann).error, code(ErrorCode::kExists));
  h.priority = 5;
  submit(ann, h, 10, 10);
  const auto other = ack(ann);
  EXPECT_EQ(other.error, code(ErrorCode::kExists));
  EXPECT_THAT(other.text, HasSubstr("other options"));
}

TEST_F(RelayCore, RefusesWhatItDoesNotKnow) {
  auto h = header(e, FunctionId{{9}});
  submit(ann, h, 0, 1);
  EXPECT_EQ(ack(ann).error, code(ErrorCode::kNotFound));
  h = header(EndpointId{{9}}, f);
  submit(ann, h, 0, 1);
  EXPECT_EQ(ack(ann).error, code(ErrorCode::kNotFound));
  send(ann, wire::Submit{{{header(e, f).submission, std::nullopt, {}, false, 0}}});
  EXPECT_THAT(ack(ann).text, HasSubstr("send it with one"));
}

TEST_F(RelayCore, WhatTheEndpointCanNeverRunIsRefusedWhenItIsSubmitted) {
  const PeerId x = interchange(e);
  const auto status = [&](std::uint32_t cores) {
    const Offer offer{1, {cores, cores, 0, 8000}, true, 0, 0, 0};
    send(x, wire::EndpointStatus{},
         {Bytes(nlohmann::json{{"offer", nlohmann::json::parse(offer.dump())}}.dump())});
  };
  auto h = header(e, f);
  h.resources.cores = 5;
  status(4);
  submit(ann, h, 0, 1);
  const auto refused_as = ack(ann);
  EXPECT_EQ(refused_as.error, code(ErrorCode::kInvalidArgument));
  EXPECT_EQ(refused_as.text,
            "endpoint cluster can never run this: it needs 5 cores, but the largest node of this "
            "endpoint has 4 cores");
  status(8);  // a larger node has come
  submit(ann, h, 0, 1);
  EXPECT_EQ(ack(ann).error, 0);
}

TEST_F(RelayCore, ASealFixesTheCount) {
  const auto h = header(e, f);
  submit(ann, h, 0, 10, true);
  ASSERT_EQ(ack(ann).error, 0);
  submit(ann, h, 10, 1);
  EXPECT_THAT(ack(ann).text, HasSubstr("sealed at 10"));
  submit(ann, h, 0, 10, true);
  EXPECT_EQ(ack(ann).error, 0) << "again is harmless";
}

TEST_F(RelayCore, NotSealedForAnHourIsCancelled) {
  const auto h = header(e, f);
  submit(ann, h, 0, 10);
  ack(ann);
  grant(ann, 100);
  send(ann, wire::Watch{{{h.submission, {}, true, false}}});
  pass(std::chrono::minutes(59));
  EXPECT_THAT(outcomes(ann), IsEmpty());
  pass(std::chrono::minutes(2));
  const auto got = outcomes(ann);
  ASSERT_EQ(got.size(), 10u);
  EXPECT_EQ(got.at(3).state, TaskState::kCancelled);
  submit(ann, h, 10, 1);
  EXPECT_EQ(ack(ann).error, code(ErrorCode::kCancelled));
}

TEST_F(RelayCore, DeliversUnderCreditInTasksAndNothingTwice) {
  const auto h = header(e, f);
  submit(ann, h, 0, 100, true);
  const PeerId x = interchange(e);
  EXPECT_THAT(work(x), IsEmpty()) << "no credit yet";
  grant(x, 30);
  EXPECT_EQ(work(x)[h.submission], r(0, 30));
  grant(x, 30);
  EXPECT_THAT(work(x), IsEmpty()) << "credit is cumulative";
  grant(x, 1000);
  EXPECT_EQ(work(x)[h.submission], r(30, 100));
}

TEST_F(RelayCore, CreditInBytesLetsOneLargerSetThrough) {
  const auto h = header(e, f);
  submit(ann, h, 0, 4, true, 'a', 100);
  const PeerId x = interchange(e);
  grant(x, 1000, 10);
  EXPECT_EQ(work(x)[h.submission], r(0, 1));
  grant(x, 1000, 250);
  EXPECT_EQ(work(x)[h.submission], r(1, 3));
}

TEST_F(RelayCore, HeaderAndFunctionComeOnceInASession) {
  const auto h = header(e, f);
  submit(ann, h, 0, 4);
  PeerId x = interchange(e);
  grant(x, 1000);
  auto w = take<wire::Work>(x);
  ASSERT_EQ(w.size(), 1u);
  ASSERT_EQ(w[0].functions.size(), 1u);
  EXPECT_EQ(w[0].functions[0].id, f);
  ASSERT_EQ(w[0].submissions.size(), 1u);
  EXPECT_EQ(w[0].submissions[0].owner, "ann");
  submit(ann, h, 4, 4);
  w = take<wire::Work>(x);
  ASSERT_EQ(w.size(), 1u);
  EXPECT_THAT(w[0].functions, IsEmpty());
  EXPECT_THAT(w[0].submissions, IsEmpty());
  x = interchange(e);
  grant(x, 1000);
  w = take<wire::Work>(x);
  ASSERT_FALSE(w.empty());
  EXPECT_EQ(w[0].functions.size(), 1u) << "a new session";
}

TEST_F(RelayCore, DeliveryWaitsForTheCommit) {
  const PeerId x = interchange(e);
  grant(x, 100);
  auto_commit = false;
  submit(ann, header(e, f), 0, 4, true);
  EXPECT_THAT(work(x), IsEmpty());
  commit();
  EXPECT_EQ(work(x).size(), 1u);
}

TEST_F(RelayCore, PriorityThenAge) {
  auto late = header(e, f), urgent = header(e, f);
  const auto old = header(e, f);
  urgent.priority = -1;
  submit(ann, old, 0, 1, true);
  pass(std::chrono::seconds(1));
  submit(ann, late, 0, 1, true);
  submit(ann, urgent, 0, 1, true);
  const PeerId x = interchange(e);
  std::vector<SubmissionId> order;
  for (std::uint64_t i = 1; i <= 3; ++i) {
    grant(x, i);
    for (const auto& [id, ranges] : work(x)) order.push_back(id);
  }
  EXPECT_THAT(order, ElementsAre(urgent.submission, old.submission, late.submission));
}

TEST_F(RelayCore, AHelloSaysWhatIsHeldAndTheRestIsSentAgain) {
  const auto h = header(e, f);
  submit(ann, h, 0, 10, true);
  PeerId x = interchange(e);
  grant(x, 10);
  EXPECT_EQ(work(x)[h.submission], r(0, 10));
  results(x, h.submission, {outcome(0)});
  const SubmissionId stranger = header(e, f).submission;
  x = interchange(e, {.holds = {{h.submission, r(0, 4)}, {stranger, r(0, 2)}}});
  const auto welcome = take<wire::EndpointWelcome>(x);
  ASSERT_EQ(welcome.size(), 1u);
  std::map<SubmissionId, RangeSet> forget;
  for (const auto& item : welcome[0].forget) forget[item.submission] = item.ranges;
  EXPECT_EQ(forget[h.submission], r(0, 1));
  EXPECT_EQ(forget[stranger], r(0, 2));
  grant(x, 100);
  EXPECT_EQ(work(x)[h.submission], r(4, 10));
}

TEST_F(RelayCore, ArgumentsComeFromTheStoreAfterARestart) {
  const auto h = header(e, f);
  submit(ann, h, 0, 10, true, 'q');
  restart();
  const PeerId x = interchange(e);
  grant(x, 100);
  const auto& box = inbox[x];
  ASSERT_EQ(box.back().type, wire::MessageType::kWork);
  EXPECT_EQ(box.back().payload.back().view(), std::string(30, 'q'));
  EXPECT_GT(core->counters().chunk_loads, 0u);
  EXPECT_EQ(work(x)[h.submission], r(0, 10));
}

TEST_F(RelayCore, ResultsAreAcknowledgedAfterTheCommitAndRecordedOnce) {
  const auto h = header(e, f);
  submit(ann, h, 0, 3, true);
  const PeerId x = interchange(e);
  grant(x, 10);
  auto_commit = false;
  results(x, h.submission, {outcome(0), outcome(1, TaskState::kFailed)});
  results(x, h.submission, {outcome(0, TaskState::kFailed), outcome(1)});
  EXPECT_THAT(acked(x), IsEmpty());
  commit();
  EXPECT_THAT(acked(x), ElementsAre(1, 2));
  EXPECT_EQ(core->counters().outcomes_recorded, 2u);
  EXPECT_EQ(core->counters().outcomes_superseded, 2u);
}

TEST_F(RelayCore, AFailureCountsOnlyFromTheNewestAttemptASuccessFromAny) {
  const auto h = header(e, f);
  submit(ann, h, 0, 2, true);
  const PeerId x = interchange(e);
  grant(x, 10);
  send(x, wire::Attempts{{{h.submission, {{0, 2, {}}, {1, 3, {}}}}}});
  results(x, h.submission, {outcome(0, TaskState::kFailed, 1)});
  EXPECT_EQ(core->counters().outcomes_recorded, 0u);
  results(x, h.submission, {outcome(0, TaskState::kFailed, 2), outcome(1)});
  EXPECT_EQ(core->counters().outcomes_recorded, 2u);
}

// The interchange takes the acknowledgement for the end of the task, so it has to get it again.
TEST_F(RelayCore, ATaskWhoseOnlyFailureWasOutdatedIsDeliveredAgain) {
  const auto h = header(e, f);
  submit(ann, h, 0, 1, true);
  const PeerId x = interchange(e);
  grant(x, 10);
  ASSERT_EQ(take<wire::Work>(x).size(), 1u);
  send(x, wire::Attempts{{{h.submission, {{0, 2, {}}}}}});
  results(x, h.submission, {outcome(0, TaskState::kFailed, 1)});
  commit();
  const auto w = take<wire::Work>(x);
  ASSERT_EQ(w.size(), 1u);
  ASSERT_EQ(w[0].chunks.size(), 1u);
  EXPECT_EQ(w[0].chunks[0].run, r(0, 1));
  results(x, h.submission, {outcome(0, TaskState::kSucceeded, 2)});
  EXPECT_EQ(core->counters().outcomes_recorded, 1u);
}

TEST_F(RelayCore, SpentAttemptsComeBackToANewInterchange) {
  const auto h = header(e, f);
  submit(ann, h, 0, 3, true);
  PeerId x = interchange(e);
  grant(x, 10);
  TaskHistory history{1, 3, {}};
  history.failures[static_cast<int>(FailureClass::kLost)] = 2;
  send(x, wire::Attempts{{{h.submission, {history}}}});
  restart();
  x = interchange(e, {.instance = InstanceId{{2}}});
  grant(x, 10);
  const auto w = take<wire::Work>(x);
  ASSERT_EQ(w.size(), 1u);
  ASSERT_EQ(w[0].chunks.size(), 1u);
  EXPECT_THAT(w[0].chunks[0].histories, ElementsAre(history));
}

TEST_F(RelayCore, OutcomesOfUnknownTasksArePutAsideAndAcknowledged) {
  const PeerId x = interchange(e);
  results(x, header(e, f).submission, {outcome(0), outcome(1)});
  EXPECT_THAT(acked(x), ElementsAre(1));
  EXPECT_EQ(*store.count_aside(), 2u);
}

TEST_F(RelayCore, AWatchSendsWhatIsThereAndWhatComes) {
  const auto h = header(e, f);
  submit(ann, h, 0, 5, true);
  const PeerId x = interchange(e);
  grant(x, 10);
  results(x, h.submission, {outcome(0), outcome(1)});
  send(ann, wire::Watch{{{h.submission, r(1, 2), true, false}}});
  EXPECT_THAT(outcomes(ann), IsEmpty()) << "no credit";
  grant(ann, 2);
  EXPECT_EQ(outcomes(ann).count(0), 1u);
  results(x, h.submission, {outcome(4), outcome(2), outcome(3)});
  auto got = outcomes(ann);
  EXPECT_EQ(got.size(), 1u) << "one credit was left";
  EXPECT_EQ(got.count(4), 1u);
  grant(ann, 10);
  got = outcomes(ann);
  EXPECT_EQ(got.size(), 2u);
  EXPECT_EQ(core->counters().row_loads, 0u) << "all from memory";
}

TEST_F(RelayCore, AWatchReadsTheStoreAfterARestart) {
  const auto h = header(e, f);
  submit(ann, h, 0, 3, true);
  const PeerId x = interchange(e);
  grant(x, 10);
  results(x, h.submission, {outcome(0)});
  results(x, h.submission, {outcome(1), outcome(2)});
  restart();
  ann = client();
  grant(ann, 10);
  send(ann, wire::Watch{{{h.submission, r(0, 1), true, false}}});
  bool seen = false;
  for (const wire::Message& m : inbox[ann])
    if (m.type == wire::MessageType::kTaskResults) {
      EXPECT_EQ(m.payload.at(0).view(), "BBCC");
      seen = true;
    }
  EXPECT_TRUE(seen);
  EXPECT_EQ(outcomes(ann).size(), 2u);
  EXPECT_GT(core->counters().row_loads, 0u);
}

TEST_F(RelayCore, OutcomesGoOutOnlyAfterTheCommit) {
  const auto h = header(e, f);
  submit(ann, h, 0, 3, true);
  const PeerId x = interchange(e);
  grant(x, 10);
  grant(ann, 10);
  send(ann, wire::Watch{{{h.submission, {}, true, false}}});
  auto_commit = false;
  results(x, h.submission, {outcome(0)});
  EXPECT_THAT(outcomes(ann), IsEmpty());
  commit();
  EXPECT_EQ(outcomes(ann).size(), 1u);
}

// Or a client would take its last tasks for tasks that do not exist.
TEST_F(RelayCore, ProgressSaysSealedOnlyWhenEveryTaskOfItIsDurable) {
  const auto h = header(e, f);
  submit(ann, h, 0, 5);
  auto_commit = false;
  submit(ann, h, 5, 3, true);
  send(ann, wire::Watch{{{h.submission, {}, true, false}}});
  auto p = take<wire::Progress>(ann);
  ASSERT_EQ(p.size(), 1u);
  EXPECT_EQ(p[0].items.at(0).received, 5u);
  EXPECT_FALSE(p[0].items.at(0).sealed);
  commit();
  pass(std::chrono::milliseconds(200));
  p = take<wire::Progress>(ann);
  ASSERT_FALSE(p.empty());
  EXPECT_EQ(p.back().items.at(0).received, 8u);
  EXPECT_TRUE(p.back().items.at(0).sealed);
}

TEST_F(RelayCore, ProgressComesAtOnceAndThenTenTimesASecond) {
  const auto h = header(e, f);
  submit(ann, h, 0, 30, true);
  const PeerId x = interchange(e);
  grant(x, 100);
  send(ann, wire::Watch{{{h.submission, {}, false, false}}});
  auto p = take<wire::Progress>(ann);
  ASSERT_EQ(p.size(), 1u);
  EXPECT_EQ(p[0].items.at(0).received, 30u);
  for (std::uint32_t i = 0; i < 10; ++i) results(x, h.submission, {outcome(i)});
  EXPECT_THAT(take<wire::Progress>(ann), IsEmpty());
  ASSERT_TRUE(wake_at);
  EXPECT_LE(wake_at->since_start, (now.mono + std::chrono::milliseconds(100)).since_start);
  pass(std::chrono::milliseconds(100));
  p = take<wire::Progress>(ann);
  ASSERT_EQ(p.size(), 1u);
  EXPECT_EQ(p[0].items.at(0).succeeded, 10u);
  EXPECT_THAT(outcomes(ann), IsEmpty()) << "progress only";
}

TEST_F(RelayCore, AnUnknownSubmissionIsSaidToBe) {
  send(ann, wire::Watch{{{header(e, f).submission, {}, true, false}}});
  const auto p = take<wire::Progress>(ann);
  ASSERT_EQ(p.size(), 1u);
  EXPECT_EQ(p[0].items.at(0).error, code(ErrorCode::kNotFound));
}

TEST_F(RelayCore, RunningIsForwardedAndNeverStored) {
  const auto h = header(e, f);
  submit(ann, h, 0, 3, true);
  const PeerId x = interchange(e);
  grant(x, 10);
  send(ann, wire::Watch{{{h.submission, {}, false, false}}});
  take<wire::Progress>(ann);
  auto_commit = false;
  pass(std::chrono::seconds(1));
  send(x, wire::Running{{{h.submission, r(0, 2)}}});
  EXPECT_THAT(waiting, IsEmpty());
  const auto p = take<wire::Progress>(ann);
  ASSERT_EQ(p.size(), 1u);
  EXPECT_EQ(p[0].items.at(0).running, r(0, 2));
}

TEST_F(RelayCore, NotesGoToWhoeverWatchesAndTheLastProgressIsKept) {
  const auto h = header(e, f);
  submit(ann, h, 0, 2, true);
  const PeerId x = interchange(e);
  grant(x, 10);
  send(ann, wire::Watch{{{h.submission, {}, true, false}}});
  auto_commit = false;
  wire::TaskNote note;
  note.index = 1;
  note.has_progress = true;
  note.done = 3;
  note.total = 10;
  note.text = "meshing";
  note.out_size = 2;
  send(x, wire::Notes{{{h.submission, {note}}}}, {Bytes(std::string("hi"))});
  EXPECT_THAT(waiting, IsEmpty()) << "never stored";
  auto_commit = true;
  const auto got = take<wire::Notes>(ann);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].items.at(0).notes.at(0), note);
  const nlohmann::json status{{"task", TaskId{h.submission, 1}.string()}};
  EXPECT_EQ(call(ann, "task.status", status).at("progress"),
            (nlohmann::json{{"done", 3.0}, {"total", 10.0}, {"note", "meshing"}}));
  // Whoever comes later hears of the progress as well.
  const PeerId late = client();
  send(late, wire::Watch{{{h.submission, {}, true, false}}});
  const auto told = take<wire::Notes>(late);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].items.at(0).notes.at(0).text, "meshing");
  EXPECT_EQ(told[0].items.at(0).notes.at(0).out_size, 0u);
  // Of another endpoint, or damaged: dropped.
  const PeerId other = interchange(endpoint(ann, "other"), {.name = "other"});
  send(other, wire::Notes{{{h.submission, {note}}}}, {Bytes(std::string("hi"))});
  send(x, wire::Notes{{{h.submission, {note}}}}, {Bytes(std::string("h"))});
  EXPECT_THAT(take<wire::Notes>(ann), IsEmpty());
  results(x, h.submission, {outcome(1)});
  EXPECT_EQ(call(ann, "task.status", status).at("progress"), nullptr);
}

TEST_F(RelayCore, NotesThatAreTooMuchForAClientAreDroppedAndNothingElse) {
  const auto h = header(e, f);
  submit(ann, h, 0, 2, true);
  const PeerId x = interchange(e);
  grant(x, 10);
  send(ann, wire::Watch{{{h.submission, {}, true, false}}});
  send(ann, wire::Credit{10, 1 << 20});
  wire::TaskNote note;
  note.out_size = 200 << 10;
  for (int i = 0; i < 5; ++i)
    send(x, wire::Notes{{{h.submission, {note}}}}, {Bytes(std::string(note.out_size, 'x'))});
  EXPECT_EQ(take<wire::Notes>(ann).size(), 1u);
  pass(std::chrono::milliseconds(100));
  send(x, wire::Notes{{{h.submission, {note}}}}, {Bytes(std::string(note.out_size, 'x'))});
  EXPECT_EQ(take<wire::Notes>(ann).size(), 1u);
  results(x, h.submission, {outcome(0)});
  EXPECT_EQ(outcomes(ann).size(), 1u);
}

TEST_F(RelayCore, CancelsAtOnceWhatWasNotDelivered) {
  const auto h = header(e, f);
  submit(ann, h, 0, 10, true);
  PeerId x = interchange(e);
  grant(x, 4);
  work(x);
  auto got = call(ann, "task.cancel", {{"submission", h.submission.string()}});
  EXPECT_EQ(got, (nlohmann::json{{"cancelled", 6}, {"requested", 4}, {"finished", 0}}));
  auto cancels = take<wire::CancelTasks>(x);
  ASSERT_EQ(cancels.size(), 1u);
  EXPECT_EQ(cancels[0].items.at(0).ranges, r(0, 4));
  restart();
  x = interchange(e, {.holds = {{h.submission, r(0, 3)}}});
  cancels = take<wire::CancelTasks>(x);
  ASSERT_EQ(cancels.size(), 1u) << "the wish is durable";
  EXPECT_EQ(cancels[0].items.at(0).ranges, r(0, 3));
  grant(x, 100);
  EXPECT_THAT(work(x), IsEmpty()) << "a cancelled task is not delivered again";
  results(x, h.submission,
          {outcome(0, TaskState::kCancelled), outcome(1), outcome(2, TaskState::kFailed)});
  const auto list = call(client(), "submission.list", nlohmann::json::object());
  EXPECT_EQ(list["submissions"][0]["cancelled"], 8);
  EXPECT_EQ(list["submissions"][0]["succeeded"], 1) << "what came first counts";
  EXPECT_EQ(list["submissions"][0]["failed"], 1);
}

TEST_F(RelayCore, ForceRecordsTheCancelForAnEndpointThatIsAway) {
  const auto h = header(e, f);
  submit(ann, h, 0, 3, true);
  PeerId x = interchange(e);
  grant(x, 10);
  apply(core->gone(x, now));
  const nlohmann::json p{{"tasks", {TaskId{h.submission, 1}.string()}}};
  EXPECT_EQ(call(ann, "task.cancel", p)["requested"], 1);
  nlohmann::json forced = p;
  forced["force"] = true;
  EXPECT_EQ(call(ann, "task.cancel", forced)["cancelled"], 1);
  EXPECT_EQ(call(ann, "task.cancel", p)["finished"], 1);
  x = interchange(e, {.holds = {{h.submission, r(0, 3)}}});
  EXPECT_EQ(take<wire::EndpointWelcome>(x).at(0).forget.at(0).ranges, r(1, 2));
}

TEST_F(RelayCore, EpochsRiseWithTheInstanceAndAreDurable) {
  PeerId x = interchange(e);
  EXPECT_EQ(take<wire::EndpointWelcome>(x).at(0).epoch, 1u);
  x = interchange(e);
  EXPECT_EQ(take<wire::EndpointWelcome>(x).at(0).epoch, 1u) << "same instance";
  PeerId other = interchange(e, {.instance = InstanceId{{2}}});
  EXPECT_THAT(refused.at(other).message, HasSubstr("login1 with pid 77"));
  EXPECT_EQ(refused.at(other).code, ErrorCode::kBusy);
  auto_commit = false;
  other = interchange(e, {.instance = InstanceId{{2}}, .take_over = true});
  EXPECT_THAT(take<wire::EndpointWelcome>(other), IsEmpty()) << "committed before the welcome";
  commit();
  EXPECT_EQ(take<wire::EndpointWelcome>(other).at(0).epoch, 2u);
  EXPECT_EQ(refused.at(x).code, ErrorCode::kBusy);
  auto_commit = true;
  restart();
  other = interchange(e, {.instance = InstanceId{{3}}});
  EXPECT_EQ(take<wire::EndpointWelcome>(other).at(0).epoch, 3u);
}

TEST_F(RelayCore, AnotherKeyIsNotTheEndpoint) {
  wire::EndpointHello hello;
  hello.endpoint = e;
  apply(core->hello(99, "another key", wire::make_message(hello), now));
  EXPECT_EQ(refused.at(99).code, ErrorCode::kDenied);
}

TEST_F(RelayCore, AnotherVersionIsToldSo) {
  wire::ClientHello hello;
  hello.hello.version = hello.hello.oldest_version = 9;
  apply(core->hello(98, "key-ann", wire::make_message(hello), now));
  EXPECT_EQ(refused.at(98).code, ErrorCode::kVersion);
}

TEST_F(RelayCore, CollectedResultsGoAfterTheirTimeAndLeaveATombstone) {
  const auto h = header(e, f);
  submit(ann, h, 0, 1, true);
  const PeerId x = interchange(e);
  grant(x, 10);
  results(x, h.submission, {outcome(0)});
  ack(ann);
  for (int day = 0; day < 8; ++day) pass(std::chrono::hours(24));
  EXPECT_EQ(call(ann, "submission.list", nlohmann::json::object())["submissions"].size(), 1u);
  send(ann, wire::Collected{{{h.submission, r(0, 1)}}});
  for (int day = 0; day < 6; ++day) pass(std::chrono::hours(24));
  EXPECT_EQ(call(ann, "submission.list", nlohmann::json::object())["submissions"].size(), 1u);
  for (int day = 0; day < 2; ++day) pass(std::chrono::hours(24));
  EXPECT_EQ(call(ann, "submission.list", nlohmann::json::object())["submissions"].size(), 0u);
  restart();
  ann = client();
  submit(ann, h, 0, 1, true);
  EXPECT_EQ(ack(ann).error, code(ErrorCode::kExists));
}

TEST_F(RelayCore, NothingIsRemovedAfterAJumpOfTheClock) {
  const auto h = header(e, f);
  submit(ann, h, 0, 1, true);
  const PeerId x = interchange(e);
  grant(x, 10);
  results(x, h.submission, {outcome(0)});
  now.wall = now.wall + std::chrono::hours(24 * 365);
  pass(std::chrono::minutes(1));
  EXPECT_EQ(call(ann, "submission.list", nlohmann::json::object())["submissions"].size(), 1u);
}

TEST_F(RelayCore, AnInvitationEnrolsAKeyOnce) {
  const PeerId stranger = client("key-bob");
  EXPECT_EQ(refused.at(stranger).code, ErrorCode::kDenied);
  const auto got = call(ann, "invite", {{"user", "bob"}, {"ttl_s", 60}});
  const std::string text = got.at("invitation");
  EXPECT_THAT(text, HasSubstr("tcp://relay:7400|"));
  const std::string token = text.substr(text.rfind('|') + 1);
  const PeerId bob = client("key-bob", token);
  EXPECT_EQ(take<wire::ClientWelcome>(bob).at(0).user, "bob");
  EXPECT_EQ(refused.count(client("key-eve", token)), 1u) << "used once";
  EXPECT_EQ(call(bob, "invite", {{"user", "x"}})["error"], code(ErrorCode::kDenied));
  const std::string second = call(ann, "invite", {{"user", "bob"}, {"ttl_s", 60}})["invitation"];
  pass(std::chrono::seconds(61));
  const PeerId late = client("key-late", second.substr(second.rfind('|') + 1));
  EXPECT_EQ(refused.count(late), 1u);
  restart();
  EXPECT_EQ(take<wire::ClientWelcome>(client("key-bob")).at(0).user, "bob");
}

TEST_F(RelayCore, AUserSeesOnlyTheirOwn) {
  const auto h = header(e, f);
  submit(ann, h, 0, 1, true);
  const std::string text = call(ann, "invite", {{"user", "bob"}}).at("invitation");
  const PeerId bob = client("key-bob", text.substr(text.rfind('|') + 1));
  const auto none = nlohmann::json::object();
  EXPECT_EQ(call(bob, "submission.list", none)["submissions"].size(), 0u);
  EXPECT_EQ(call(bob, "endpoint.list", none)["endpoints"].size(), 0u);
  EXPECT_EQ(call(bob, "function.list", none)["functions"].size(), 0u);
  EXPECT_EQ(call(bob, "task.status", {{"task", TaskId{h.submission, 0}.string()}})["error"],
            code(ErrorCode::kNotFound));
  EXPECT_EQ(call(bob, "task.cancel", {{"submission", h.submission.string()}})["error"],
            code(ErrorCode::kNotFound));
  submit(bob, h, 0, 1, true);
  EXPECT_EQ(ack(bob).error, code(ErrorCode::kExists));
  send(bob, wire::Watch{{{h.submission, {}, true, false}}});
  EXPECT_EQ(take<wire::Progress>(bob).at(0).items.at(0).error, code(ErrorCode::kNotFound));
}

}  // namespace
}  // namespace farcall::relay
