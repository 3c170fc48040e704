// The methods of docs/protocol.md.
#include <gmock/gmock.h>

#include "rig.h"

namespace farcall::relay {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

struct RelayCalls : ::testing::Test, Rig {
  PeerId ann = client();
  FunctionId f = function(ann);
  EndpointId e = endpoint(ann);
  int error(const json& answer) { return answer.value("error", 0); }
};
int code(ErrorCode c) { return static_cast<int>(c); }

TEST_F(RelayCalls, Whoami) {
  const json got = call(ann, "whoami", json::object());
  EXPECT_EQ(got["user"], "ann");
  EXPECT_EQ(got["key"], "key-ann");
  EXPECT_EQ(got["address"], "tcp://relay:7400");
  EXPECT_EQ(got["generation"], "memory-1");
  EXPECT_GT(got["time_ms"], 0);
}

TEST_F(RelayCalls, UnknownMethodsAndBadParametersAreErrors) {
  EXPECT_EQ(error(call(ann, "task.nonsense", json::object())), code(ErrorCode::kInvalidArgument));
  EXPECT_EQ(error(call(ann, "task.list", json::array())), code(ErrorCode::kInvalidArgument));
  EXPECT_EQ(error(call(ann, "invite", {{"user", 5}})), code(ErrorCode::kInvalidArgument));
  EXPECT_EQ(error(call(ann, "endpoint.register", {{"name", "x"}, {"key", "short"}})),
            code(ErrorCode::kInvalidArgument));
}

TEST_F(RelayCalls, EndpointsAreRegisteredListedAndDeleted) {
  EXPECT_EQ(endpoint(ann), e) << "again with the same key";
  const PeerId x = interchange(e);
  send(x, wire::EndpointStatus{}, {Bytes(json{{"queued", 3}}.dump())});
  json got = call(ann, "endpoint.status", {{"endpoint", "cluster"}});
  EXPECT_EQ(got["online"], true);
  EXPECT_EQ(got["status"]["queued"], 3);
  EXPECT_EQ(got["host"], "login1");
  const std::string other = make_key_pair().public_key;
  got = call(ann, "endpoint.register", {{"name", "cluster"}, {"key", other}});
  EXPECT_EQ(got["endpoint_id"], e.string()) << "the key is replaced";
  EXPECT_EQ(refused.at(x).code, ErrorCode::kDenied);
  endpoint_keys["cluster"] = other;
  const auto h = header(e, f);
  submit(ann, h, 0, 4, true);
  got = call(ann, "endpoint.delete", {{"endpoint", e.string()}});
  EXPECT_EQ(error(got), code(ErrorCode::kBusy));
  EXPECT_THAT(got["text"].get<std::string>(), HasSubstr("4 unfinished tasks"));
  got = call(ann, "endpoint.delete", {{"endpoint", e.string()}, {"force", true}});
  EXPECT_EQ(got, json::object());
  EXPECT_EQ(call(ann, "endpoint.list", json::object())["endpoints"].size(), 0u);
  EXPECT_EQ(call(ann, "submission.list", json::object())["submissions"][0]["cancelled"], 4);
}

TEST_F(RelayCalls, FunctionsAreListedShownAndDeleted) {
  EXPECT_EQ(function(ann), f) << "the same content is the same function";
  const FunctionId other = function(ann, "other body");
  EXPECT_NE(other, f);
  EXPECT_EQ(call(ann, "function.list", json::object())["functions"].size(), 2u);
  send(ann, wire::Call{++requests, "function.show"},
       {Bytes(json{{"function", f.string()}}.dump())});
  ASSERT_EQ(inbox[ann].back().payload.size(), 2u);
  EXPECT_EQ(inbox[ann].back().payload[1].view(), "body");
  submit(ann, header(e, f), 0, 1, true);
  EXPECT_EQ(error(call(ann, "function.delete", {{"function", f.string()}})),
            code(ErrorCode::kBusy));
  EXPECT_EQ(call(ann, "function.delete", {{"function", other.string()}}), json::object());
  restart();
  ann = client();
  EXPECT_EQ(call(ann, "function.list", json::object())["functions"].size(), 1u);
}

TEST_F(RelayCalls, SubmissionsGroupsAndTasksAreListed) {
  auto h = header(e, f);
  h.group = "sweep";
  submit(ann, h, 0, 5, true);
  pass(std::chrono::seconds(1));
  const auto second = header(e, f);
  submit(ann, second, 0, 2, true);
  const PeerId x = interchange(e);
  grant(x, 3);
  results(x, h.submission, {outcome(0), outcome(1, TaskState::kFailed)});
  json got = call(ann, "submission.list", {{"limit", 1}});
  ASSERT_EQ(got["submissions"].size(), 1u);
  EXPECT_EQ(got["submissions"][0]["submission_id"], second.submission.string()) << "newest first";
  got = call(ann, "submission.list", {{"before", second.submission.string()}});
  ASSERT_EQ(got["submissions"].size(), 1u);
  EXPECT_EQ(got["submissions"][0]["succeeded"], 1);
  EXPECT_EQ(got["submissions"][0]["endpoint_name"], "cluster");
  got = call(ann, "group.list", json::object());
  EXPECT_EQ(got["groups"], json::parse(R"([{"group": "sweep", "submissions": 1, "tasks": 5,
      "succeeded": 1, "failed": 1, "cancelled": 0, "pending": 3}])"));
  auto states = [&](const json& p) {
    std::string all;
    const json got_tasks = call(ann, "task.list", p);
    for (const json& t : got_tasks["tasks"]) all += t["state"].get<std::string>() + " ";
    return all;
  };
  EXPECT_EQ(states({{"group", "sweep"}}), "succeeded failed delivered pending pending ");
  EXPECT_EQ(states({{"state", "failed"}}), "failed ");
  EXPECT_EQ(states({{"state", "pending"}, {"limit", 3}}), "pending pending pending ");
  EXPECT_EQ(
      states({{"submission", h.submission.string()}, {"after", TaskId{h.submission, 1}.string()}}),
      "delivered pending pending ");
}

TEST_F(RelayCalls, ArgumentsAreGivenBackChunkByChunk) {
  const auto h = header(e, f);
  submit(ann, h, 0, 3, false, 'x', 2);
  submit(ann, h, 10, 1, false, 'y', 4);
  restart();  // from the store from here on
  ann = client();
  const json p{{"submission", h.submission.string()}};
  auto payload = [&](std::uint32_t first) {
    json from = p;
    from["first"] = first;
    send(ann, wire::Call{++requests, "submission.arguments"}, {Bytes(from.dump())});
    const auto& frames = inbox[ann].back().payload;
    return frames.size() < 2 ? std::string("no payload") : frames[1].string();
  };
  EXPECT_EQ(payload(0), "xxxxxx") << "when it has been read from the store";
  EXPECT_EQ(answer(ann, requests), json::parse(R"({"first": 0, "sizes": [2, 2, 2]})"));
  EXPECT_EQ(payload(2), "xxxxxx") << "the chunk that holds it";
  EXPECT_EQ(payload(3), "yyyy") << "the next one";
  EXPECT_EQ(answer(ann, requests)["first"], 10);
  EXPECT_EQ(payload(11), "no payload");
  EXPECT_EQ(answer(ann, requests)["first"], nullptr);
  const std::string invitation =
      call(ann, "invite", {{"user", "bob"}})["invitation"].get<std::string>();
  const PeerId bob = client("key-bob", invitation.substr(invitation.rfind('|') + 1));
  EXPECT_EQ(error(call(bob, "submission.arguments", p)), code(ErrorCode::kNotFound));
  EXPECT_THAT(call(bob, "submission.arguments", p)["text"].get<std::string>(), HasSubstr("of bob"));
  auto_commit = false;
  submit(ann, h, 20, 1, true, 'z', 4);
  EXPECT_EQ(payload(20), "zzzz") << "from memory, before it is durable";
}

TEST_F(RelayCalls, ArgumentsThatTheStoreCannotReadAreSaid) {
  const auto h = header(e, f);
  submit(ann, h, 0, 3, true);
  restart();
  ann = client();
  auto_commit = false;
  const json p{{"submission", h.submission.string()}};
  send(ann, wire::Call{++requests, "submission.arguments"}, {Bytes(p.dump())});
  ASSERT_EQ(loads.size(), 1u);
  loads.clear();
  apply(core->chunk_loaded(h.submission, 0, std::nullopt, now));
  const json got = answer(ann, requests);
  EXPECT_EQ(error(got), code(ErrorCode::kIo));
  EXPECT_THAT(got["text"].get<std::string>(), HasSubstr("cannot be read from the relay's store"));
}

TEST_F(RelayCalls, StatusOfATaskTellsHowItEnded) {
  const auto h = header(e, f);
  submit(ann, h, 0, 2, true);
  const PeerId x = interchange(e);
  grant(x, 3);
  TaskOutcome o = outcome(1, TaskState::kFailed, 2);
  o.signal = 9;
  results(x, h.submission, {o});
  json got = call(ann, "task.status", {{"task", TaskId{h.submission, 1}.string()}});
  EXPECT_EQ(got["state"], "failed");
  EXPECT_EQ(got["attempt"], 2);
  EXPECT_EQ(got["failure"], "crash");
  EXPECT_EQ(got["signal"], 9);
  EXPECT_EQ(got["host"], "n1");
  got = call(ann, "task.status", {{"task", TaskId{h.submission, 0}.string()}});
  EXPECT_EQ(got["state"], "delivered");
  got = call(ann, "task.status", {{"task", TaskId{h.submission, 7}.string()}});
  EXPECT_EQ(error(got), code(ErrorCode::kNotFound));
}

TEST_F(RelayCalls, ExplainAsksTheInterchangeAndDoesNotWaitForEver) {
  const auto h = header(e, f);
  submit(ann, h, 0, 2, true);
  const json p{{"task", TaskId{h.submission, 0}.string()}};
  json got = call(ann, "task.explain", p);
  EXPECT_THAT(got["lines"].dump(), HasSubstr("not connected and never was"));
  const PeerId x = interchange(e);
  EXPECT_EQ(call(ann, "task.explain", p), nullptr) << "the interchange has not answered";
  const auto asked = take<wire::Call>(x);
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0].method, "explain");
  send(x, wire::Reply{asked[0].request, 0, ""}, {Bytes(json{{"lines", {"no node yet"}}}.dump())});
  got = answer(ann, requests);
  EXPECT_THAT(got["lines"].dump(), HasSubstr("no node yet"));
  EXPECT_EQ(call(ann, "task.explain", p), nullptr);
  pass(std::chrono::seconds(6));
  got = answer(ann, requests);
  EXPECT_THAT(got["lines"].dump(), HasSubstr("did not answer in time"));
}

TEST_F(RelayCalls, AWholeGroupIsCancelled) {
  auto h = header(e, f);
  h.group = "g";
  submit(ann, h, 0, 5, false);
  EXPECT_EQ(call(ann, "task.cancel", {{"group", "g"}})["cancelled"], 5);
  submit(ann, h, 5, 1);
  EXPECT_EQ(ack(ann).error, code(ErrorCode::kCancelled)) << "no part is taken after that";
  EXPECT_EQ(error(call(ann, "task.cancel", {{"group", "no such"}})), code(ErrorCode::kNotFound));
}

}  // namespace
}  // namespace farcall::relay
