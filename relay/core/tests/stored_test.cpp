// Large results at endpoints: listed, released, and gone with their submission.
#include <gmock/gmock.h>

#include "rig.h"

namespace farcall::relay {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Stored : public testing::Test {
 protected:
  Rig rig;
  PeerId ann = rig.client();
  FunctionId function = rig.function(ann);
  EndpointId endpoint = rig.endpoint(ann);
  PeerId there = rig.interchange(endpoint);
  const std::string hash = content_hash("large"), file_hash = content_hash("file");
  static constexpr std::int64_t kDay = 86'400'000;

  struct Question {
    std::uint64_t request = 0;
    std::string method;
    json parameters;
  };
  // What the interchange is asked, in order; takes it away.
  std::vector<Question> questions(PeerId peer) {
    std::vector<Question> all;
    std::vector<wire::Message> rest;
    for (wire::Message& m : rig.inbox[peer]) {
      if (m.type != wire::MessageType::kCall) {
        rest.push_back(std::move(m));
        continue;
      }
      const auto call = *wire::decode<wire::Call>(m);
      all.push_back({call.request, call.method, json::parse(m.payload.at(0).view())});
    }
    rig.inbox[peer] = std::move(rest);
    return all;
  }
  Question question(PeerId peer) {
    auto all = questions(peer);
    EXPECT_EQ(all.size(), 1u);
    return all.empty() ? Question{} : all[0];
  }
  void answer(PeerId peer, const Question& asked, const json& with) {
    rig.send(peer, wire::Reply{asked.request, 0, ""}, {Bytes(with.dump())});
  }
  SubmissionHeader finished(const std::string& group = "", std::uint32_t count = 2) {
    auto header = rig.header(endpoint, function);
    header.group = group;
    rig.submit(ann, header, 0, count, true);
    rig.grant(there, 100);
    return header;
  }
  void end(const SubmissionHeader& header, std::uint32_t index, const std::string& data = "J1") {
    TaskOutcome outcome = Rig::outcome(index);
    outcome.data_size = data.size();
    rig.send(there, wire::Results{++rig.batches, {{header.submission, {outcome}}}}, {Bytes(data)});
  }
  json file(const std::string& task, const std::string& which, const std::string& kind) {
    return {{"task", task},           {"hash", which},    {"kind", kind},   {"bytes", 5},
            {"written_ms", now_ms()}, {"state", "there"}, {"removed_ms", 0}};
  }
  std::int64_t now_ms() const { return rig.now.wall.milliseconds_since_epoch(); }
  // The request of a call that waits for the interchange.
  std::uint64_t ask(PeerId peer, const std::string& method, const json& p) {
    EXPECT_EQ(rig.call(peer, method, p), nullptr);
    return rig.requests;
  }
  static std::string id(const SubmissionHeader& header, std::uint32_t index) {
    return TaskId{header.submission, index}.string();
  }
};

TEST_F(Stored, TheListIsTheEndpointsWithWhatTheRelayKnows) {
  const auto header = finished("night");
  end(header, 0);
  end(header, 1,
      wire::pack_blob_payload({{hash, 5}, {file_hash, 5}},
                              R"([[0,null],[1,"run/out.h5",{"file":"run/out.h5"}]])", ""));
  const auto strangers = id(rig.header(endpoint, function), 0);
  const auto request = ask(ann, "task.stored", {{"endpoint", "cluster"}, {"limit", 7}});
  const auto asked = question(there);
  EXPECT_EQ(asked.method, "stored.list");
  EXPECT_EQ(asked.parameters, json({{"after", ""}, {"limit", 7}}));
  json gone = file(id(header, 0), hash, "result");
  gone.update({{"state", "expired"}, {"removed_ms", 77}});
  answer(there, asked,
         {{"keep_ms", 30 * kDay},
          {"last", "x"},
          {"more", true},
          {"files",
           {gone, file(strangers, hash, "result"), file(id(header, 7), hash, "result"),
            file("../x", hash, "result"), file(id(header, 1), file_hash, "file"),
            file(id(header, 1), hash, "result")}}});
  const json page = rig.answer(ann, request);
  EXPECT_EQ(page["after"], "x");
  const json& files = page["stored"];
  ASSERT_EQ(files.size(), 3u);
  EXPECT_EQ(files[0]["state"], "expired");
  EXPECT_EQ(files[0]["there"], false);
  EXPECT_EQ(files[0]["removed_ms"], 77);
  EXPECT_EQ(files[1]["name"], "run/out.h5");
  EXPECT_EQ(files[1]["there"], true);
  EXPECT_EQ(files[2]["name"], "");
  EXPECT_EQ(files[2]["task_id"], id(header, 1));
  EXPECT_EQ(files[2]["group"], "night");
  EXPECT_EQ(files[2]["endpoint"], "cluster");
  EXPECT_EQ(files[2]["expires_ms"], now_ms() + 30 * kDay);
  // Once it has been collected it goes earlier than the endpoint alone would have it.
  rig.send(ann, wire::Collected{{{header.submission, RangeSet{{0, 2}}}}});
  const auto again = ask(ann, "task.stored", {{"endpoint", "cluster"}, {"after", "x"}});
  const auto second = question(there);
  EXPECT_EQ(second.parameters["after"], "x");
  answer(there, second,
         {{"keep_ms", 30 * kDay},
          {"last", ""},
          {"more", false},
          {"files", {file(id(header, 1), hash, "result")}}});
  const json last = rig.answer(ann, again);
  EXPECT_EQ(last["after"], nullptr);
  EXPECT_EQ(last["stored"][0]["expires_ms"], now_ms() + 7 * kDay);
}

TEST_F(Stored, AnEndpointThatIsAwayOrSpeaksNonsenseIsSaidToBe) {
  EXPECT_THAT(rig.call(ann, "task.stored", {{"endpoint", "other"}})["text"],
              HasSubstr("no endpoint other of ann"));
  const auto request = ask(ann, "task.stored", {{"endpoint", "cluster"}});
  answer(there, question(there), {{"files", 7}});
  EXPECT_THAT(rig.answer(ann, request)["text"],
              HasSubstr("the answer of endpoint cluster cannot be read"));
  rig.apply(rig.core->gone(there, rig.now));
  EXPECT_EQ(rig.call(ann, "task.stored", {{"endpoint", "cluster"}})["text"],
            "endpoint cluster is not connected");
}

TEST_F(Stored, AReleaseIsOneQuestionToEachEndpointAboutWhatHasEnded) {
  const auto first = finished("night", 5), second = finished("night");
  for (std::uint32_t index : {0U, 1U, 3U}) end(first, index);
  end(second, 0);
  const auto request = ask(ann, "task.release", {{"group", "night"}});
  const auto asked = question(there);
  EXPECT_EQ(asked.method, "stored.release");
  EXPECT_EQ(asked.parameters["tasks"], json({{first.submission.string(), {0, 2, 3, 4}},
                                             {second.submission.string(), {0, 1}}}));
  answer(there, asked, {{"files", 3}, {"bytes", 15}, {"hashes", {hash}}, {"more", true}});
  EXPECT_EQ(rig.answer(ann, request),
            json({{"files", 3}, {"bytes", 15}, {"more", true}, {"failed", json::array()}}));
}

TEST_F(Stored, WhatIsNotThereAnyMoreIsNoError) {
  const auto header = finished();
  const json none = rig.call(ann, "task.release", {{"tasks", {id(header, 0)}}});
  EXPECT_EQ(none["files"], 0);  // it has not ended
  EXPECT_TRUE(questions(there).empty());
  EXPECT_THAT(
      rig.call(ann, "task.release", {{"tasks", {id(rig.header(endpoint, function), 0)}}})["text"],
      HasSubstr("no task"));
  EXPECT_THAT(rig.call(ann, "task.release", {{"group", "day"}})["text"],
              HasSubstr("no group day of ann"));
  EXPECT_EQ(rig.call(ann, "task.release", json::object())["text"],
            "task.release needs \"tasks\" or \"group\"");
  end(header, 0);
  end(header, 1);
  rig.pass(std::chrono::hours(31 * 24));  // forgotten
  EXPECT_EQ(rig.call(ann, "task.release", {{"tasks", {id(header, 0)}}})["files"], 0);
}

TEST_F(Stored, AnEndpointThatIsAwayKeepsWhatItHasAndThatIsSaid) {
  const auto header = finished();
  end(header, 0);
  rig.apply(rig.core->gone(there, rig.now));
  const json answer = rig.call(ann, "task.release", {{"tasks", {id(header, 0)}}});
  EXPECT_EQ(answer["files"], 0);
  EXPECT_EQ(answer["failed"], json::array({{{"endpoint", "cluster"},
                                            {"error", "unreachable"},
                                            {"text", "endpoint cluster is not connected"}}}));
}

TEST_F(Stored, TheCopyThatTheRelayHasGoesWithIt) {
  const auto header = finished();
  end(header, 0);
  const json wanted{{"task", id(header, 0)}, {"hash", hash}, {"size", 5}};
  const auto bring = [&] {
    EXPECT_EQ(rig.call(ann, "task.bring", wanted)["here"], false);
    const auto pull = std::get<PullBlob>(std::exchange(rig.blob_effects, {}).at(0));
    rig.apply(rig.core->blob_pulled(pull, {}, rig.now));
    EXPECT_EQ(rig.call(ann, "task.bring", wanted)["here"], true);
  };
  const auto release = [&] {
    ask(ann, "task.release", {{"tasks", {id(header, 0)}}});
    answer(there, question(there),
           {{"files", 1}, {"bytes", 5}, {"hashes", {hash}}, {"more", false}});
  };
  bring();
  release();
  ASSERT_EQ(rig.blob_effects.size(), 1u);
  EXPECT_EQ(std::get<DropBlob>(std::exchange(rig.blob_effects, {})[0]).hash, hash);
  bring();
  ask(ann, "task.drop", wanted);
  answer(there, question(there), json::object());
  EXPECT_EQ(std::get<DropBlob>(std::exchange(rig.blob_effects, {}).at(0)).hash, hash);
  // What a client has sent itself stays: it may name it in what it submits next.
  bring();
  rig.send(ann, wire::BlobOffer{{{hash, 5}}});
  const auto pull = std::get<PullBlob>(std::exchange(rig.blob_effects, {}).at(0));
  rig.apply(rig.core->blob_pulled(pull, {}, rig.now));
  release();
  EXPECT_TRUE(rig.blob_effects.empty());
  EXPECT_EQ(rig.call(ann, "task.bring", wanted)["here"], true);
}

TEST_F(Stored, WhatComesDamagedIsLost) {
  const auto header = finished();
  end(header, 0);
  const json wanted{{"task", id(header, 0)}, {"hash", hash}, {"size", 5}};
  rig.call(ann, "task.bring", wanted);
  const auto pull = std::get<PullBlob>(std::exchange(rig.blob_effects, {}).at(0));
  rig.apply(rig.core->blob_pulled(pull, fail(ErrorCode::kCorrupt, "another hash"), rig.now));
  const json said = rig.call(ann, "task.bring", wanted);
  EXPECT_EQ(error_from_number(said["error"].get<int>()), ErrorCode::kResultLost);
  EXPECT_EQ(said["text"], "it is damaged at its endpoint: another hash; run the task again");
}

TEST_F(Stored, TheyGoWithTheirSubmission) {
  const auto header = finished();
  end(header, 0);
  end(header, 1);
  rig.send(ann, wire::Collected{{{header.submission, RangeSet{{0, 2}}}}});
  rig.pass(std::chrono::hours(6 * 24));
  EXPECT_TRUE(questions(there).empty());
  rig.auto_commit = false;
  rig.pass(std::chrono::hours(2 * 24));
  EXPECT_TRUE(questions(there).empty());  // not before it is durable
  rig.auto_commit = true;
  rig.settle();
  const auto asked = question(there);
  EXPECT_EQ(asked.method, "stored.forget");
  const json all{{"tasks", {{header.submission.string(), {0, 0xffffffffU}}}}};
  EXPECT_EQ(asked.parameters, all);
  answer(there, asked, json::object());
  // Whoever was away then, or before the relay was started again, is told when it comes.
  rig.restart();
  there = rig.interchange(endpoint);
  EXPECT_EQ(question(there).parameters, all);
  rig.pass(std::chrono::hours(31 * 24));
  rig.apply(rig.core->gone(there, rig.now));
  there = rig.interchange(endpoint);
  EXPECT_TRUE(questions(there).empty());
}

TEST_F(Stored, ManyForgottenOnesAreToldInSeveralMessages) {
  for (int i = 0; i < 1001; ++i) {
    const auto header = finished("", 1);
    end(header, 0);
  }
  rig.apply(rig.core->gone(there, rig.now));
  rig.pass(std::chrono::hours(31 * 24));
  there = rig.interchange(endpoint);
  const auto asked = questions(there);
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_EQ(asked[0].parameters["tasks"].size() + asked[1].parameters["tasks"].size(), 1001u);
}

}  // namespace
}  // namespace farcall::relay
