#include <gmock/gmock.h>

#include "rig.h"

namespace farcall::relay {
namespace {

class Blobs : public testing::Test {
 protected:
  Rig rig;
  PeerId ann = rig.client();
  FunctionId function = rig.function(ann);
  EndpointId endpoint = rig.endpoint(ann);
  const wire::BlobRef blob{content_hash("large"), 5}, other{content_hash("larger"), 6};

  // As the server does it: what is pulled is here at once, unless it is in `failing`.
  std::map<std::string, Error> failing;
  std::string scope;  // of the latest offer
  void offer(PeerId peer, const wire::BlobRef& which) {
    rig.send(peer, wire::BlobOffer{{which}});
    for (auto& what : std::exchange(rig.blob_effects, {}))
      if (auto* pull = std::get_if<PullBlob>(&what)) {
        scope = pull->scope;
        Result<void> outcome;
        if (failing.contains(which.hash)) outcome = fail(Error(failing.at(which.hash)));
        rig.apply(rig.core->blob_pulled(*pull, outcome, rig.now));
      }
  }
  wire::BlobState state(PeerId peer) {
    auto states = rig.take<wire::BlobState>(peer);
    EXPECT_EQ(states.size(), 1u);
    return states.empty() ? wire::BlobState{} : states[0];
  }
  SubmissionHeader submit(PeerId peer, const std::vector<wire::BlobRef>& blobs) {
    const auto header = rig.header(endpoint, function);
    const std::string set = blobs.empty() ? "J" : wire::pack_blob_payload(blobs, "[]", "");
    wire::SubmitPart part{
        header.submission, header, {{0, {1, static_cast<std::uint32_t>(set.size())}}}, true, 2};
    rig.send(peer, wire::Submit{{part}}, {Bytes("J" + set)});
    return header;
  }
  void finish(const SubmissionHeader& header) {
    const PeerId peer = rig.interchange(endpoint);
    rig.grant(peer, 100);
    rig.results(peer, header.submission, {Rig::outcome(0), Rig::outcome(1)});
  }
  // The text of the refusal; empty: it was taken.
  std::string register_with(const wire::BlobRef& which) {
    wire::RegisterFunction m{++rig.requests, {}};
    m.function.name = "g";
    rig.send(ann, m, {Bytes(wire::pack_blob_payload({which}, "[[0,null]]", ""))});
    return rig.answer(ann, rig.requests).value("text", "");
  }
  std::vector<std::string> dropped() {
    std::vector<std::string> hashes;
    for (auto& what : std::exchange(rig.blob_effects, {}))
      if (auto* drop = std::get_if<DropBlob>(&what)) hashes.push_back(drop->hash);
    return hashes;
  }
};

TEST_F(Blobs, AnOfferIsAnsweredWhenItIsHere) {
  rig.send(ann, wire::BlobOffer{{blob, other}});
  ASSERT_EQ(rig.blob_effects.size(), 2u);
  EXPECT_TRUE(rig.take<wire::BlobState>(ann).empty());
  const auto pull = std::get<PullBlob>(rig.blob_effects[0]);
  EXPECT_EQ(pull.blob, blob);
  rig.apply(rig.core->blob_pulled(pull, {}, rig.now));
  EXPECT_EQ(state(ann).error, 0);
  rig.apply(rig.core->blob_pulled(std::get<PullBlob>(rig.blob_effects[1]),
                                  fail(ErrorCode::kIo, "No space left on device"), rig.now));
  EXPECT_EQ(state(ann).text, "No space left on device");
}

TEST_F(Blobs, ANameThatIsNoHashIsRefused) {
  rig.send(ann, wire::BlobOffer{{{"../../etc/passwd", 5}}});
  EXPECT_TRUE(rig.blob_effects.empty());
  EXPECT_EQ(state(ann).text, "a blob is offered under a name that is no hash");
}

TEST_F(Blobs, TasksWhoseBlobsAreNotHereAreRefused) {
  offer(ann, blob);
  const auto header = submit(ann, {blob, other});
  const auto ack = rig.ack(ann);
  EXPECT_EQ(error_from_number(ack.error), ErrorCode::kNotFound);
  EXPECT_EQ(ack.text, "submission " + header.submission.string() + ": task 1 needs blob " +
                          other.hash +
                          " of 6 bytes, which is not at this relay: send it, and then this again");
  failing[other.hash] = {ErrorCode::kIo, "full"};
  offer(ann, other);
  submit(ann, {other});
  EXPECT_NE(rig.ack(ann).error, 0);
  failing.clear();
  offer(ann, other);
  submit(ann, {blob, other});
  EXPECT_EQ(rig.ack(ann).error, 0);
}

TEST_F(Blobs, ADamagedListIsRefused) {
  const auto header = rig.header(endpoint, function);
  const std::string set("B\0\0\0\2\0\0\0", 8);
  rig.send(ann, wire::Submit{{{header.submission, header, {{0, {8}}}, true, 1}}}, {Bytes(set)});
  EXPECT_EQ(error_from_number(rig.ack(ann).error), ErrorCode::kInvalidArgument);
}

TEST_F(Blobs, WhatAnUnfinishedTaskNeedsStaysAndThenGoes) {
  offer(ann, blob);
  offer(ann, other);
  const auto header = submit(ann, {blob});
  ASSERT_EQ(rig.ack(ann).error, 0);
  rig.pass(std::chrono::hours(2));
  EXPECT_EQ(dropped(), std::vector<std::string>{other.hash});
  rig.restart();
  rig.apply(rig.core->blob_found(scope, blob, rig.now));
  rig.pass(std::chrono::hours(2));
  EXPECT_TRUE(dropped().empty());
  finish(header);
  rig.pass(std::chrono::minutes(30));
  EXPECT_TRUE(dropped().empty());  // the next submission may want it
  rig.pass(std::chrono::minutes(31));
  EXPECT_EQ(dropped(), std::vector<std::string>{blob.hash});
}

TEST_F(Blobs, AFunctionKeepsItsOwn) {
  EXPECT_THAT(register_with(blob), testing::HasSubstr("function g needs blob " + blob.hash));
  offer(ann, blob);
  EXPECT_EQ(register_with(blob), "");
  rig.pass(std::chrono::hours(2));
  EXPECT_TRUE(dropped().empty());
  rig.call(ann, "function.delete", {{"function", "g"}});
  rig.pass(std::chrono::hours(2));
  EXPECT_EQ(dropped(), std::vector<std::string>{blob.hash});
}

TEST_F(Blobs, AResultIsBroughtFromItsEndpointWhenItIsWanted) {
  const auto header = submit(ann, {});
  const std::string task = TaskId{header.submission, 0}.string();
  const nlohmann::json wanted{{"task", task}, {"hash", blob.hash}, {"size", blob.size}};
  EXPECT_EQ(rig.call(ann, "task.bring", wanted)["text"],
            "the result of task " + task +
                " is on endpoint cluster, which is not connected: ask again when it is");
  const PeerId there = rig.interchange(endpoint);
  EXPECT_EQ(rig.call(ann, "task.bring", wanted)["here"], false);
  EXPECT_EQ(rig.call(ann, "task.bring", wanted)["here"], false);
  auto asked = std::exchange(rig.blob_effects, {});
  ASSERT_EQ(asked.size(), 1u);  // once, however often it is asked for
  const auto pull = std::get<PullBlob>(asked[0]);
  EXPECT_EQ(pull.peer, there);
  rig.apply(rig.core->blob_pulled(pull, fail(ErrorCode::kUnreachable, "it has gone"), rig.now));
  EXPECT_EQ(rig.call(ann, "task.bring", wanted)["text"], "it has gone");
  EXPECT_EQ(rig.call(ann, "task.bring", wanted)["here"], false);
  asked = std::exchange(rig.blob_effects, {});
  ASSERT_EQ(asked.size(), 1u);
  rig.apply(rig.core->blob_pulled(std::get<PullBlob>(asked[0]), {}, rig.now));
  EXPECT_EQ(rig.call(ann, "task.bring", wanted)["here"], true);
  EXPECT_TRUE(rig.take<wire::BlobState>(there).empty());
  rig.pass(std::chrono::minutes(61));
  EXPECT_EQ(dropped(), std::vector<std::string>{blob.hash});
}

TEST_F(Blobs, TheyAreTheirOwnersAlone) {
  const auto invitation =
      rig.call(ann, "invite", {{"user", "bob"}})["invitation"].get<std::string>();
  const PeerId bob = rig.client("key-bob", invitation.substr(invitation.rfind('|') + 1));
  offer(ann, blob);
  rig.send(bob, wire::BlobGet{blob, 0, 5});
  rig.send(ann, wire::BlobGet{blob, 0, 5});
  const auto asked = std::exchange(rig.blob_effects, {});
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_NE(std::get<ServeBlob>(asked[0]).scope, std::get<ServeBlob>(asked[1]).scope);
  wire::RegisterFunction m{++rig.requests, {}};
  m.function.name = "g";
  rig.send(bob, m, {Bytes(wire::pack_blob_payload({blob}, "[]", ""))});
  EXPECT_EQ(error_from_number(rig.answer(bob, rig.requests)["error"].get<int>()),
            ErrorCode::kNotFound);
}

}  // namespace
}  // namespace farcall::relay
