#include "upload.h"

#include <gtest/gtest.h>

#include "credit_window.h"

namespace farcall::client {
namespace {

SubmissionHeader header() {
  SubmissionHeader header;
  header.submission.bytes[0] = 7;
  header.label = "test";
  return header;
}

wire::SubmitResult acknowledged(const Upload& upload, RangeSet received, bool sealed = false) {
  return {upload.header().submission, std::move(received), sealed, 0, ""};
}

TEST(Upload, CutsByCountAndSizeOnly) {
  Upload upload(header(), {});
  for (std::size_t i = 0; i < wire::kChunkTasksMax + 1; ++i) upload.add(Bytes("x"));
  upload.add(Bytes(std::string(wire::kChunkBytesMax, 'a')));
  upload.add(Bytes("y"));
  upload.seal();
  auto part = upload.next_part(100 << 20);
  ASSERT_TRUE(part);
  ASSERT_EQ(part->part.chunks.size(), 4u);
  EXPECT_EQ(part->part.chunks[0].sizes.size(), wire::kChunkTasksMax);
  EXPECT_EQ(part->part.chunks[1].sizes.size(), 1u);
  EXPECT_EQ(part->part.chunks[2].first, wire::kChunkTasksMax + 1);
  EXPECT_EQ(part->part.chunks[3].sizes.size(), 1u);
  EXPECT_EQ(part->payload.size(), 4u);
  EXPECT_TRUE(part->part.seal);
  EXPECT_EQ(part->part.count, wire::kChunkTasksMax + 3);
}

TEST(Upload, TheHeaderGoesOncePerSession) {
  Upload upload(header(), {});
  upload.add(Bytes("a"));
  upload.cut();
  EXPECT_TRUE(upload.next_part(1)->part.header);
  upload.add(Bytes("b"));
  upload.cut();
  EXPECT_FALSE(upload.next_part(1)->part.header);
  EXPECT_FALSE(upload.next_part(1));
  upload.restart();
  auto again = upload.next_part(1 << 20);
  EXPECT_TRUE(again->part.header);
  EXPECT_EQ(again->part.chunks.size(), 2u);
}

TEST(Upload, WhatIsAcknowledgedIsNotSentAgainAndFreesMemory) {
  Upload upload(header(), {});
  upload.add(Bytes("a"));
  upload.cut();
  upload.add(Bytes("b"));
  upload.seal();
  (void)upload.next_part(1 << 20);
  EXPECT_GT(upload.unacknowledged_bytes(), 0u);
  upload.acknowledge(acknowledged(upload, {{0, 1}}));
  EXPECT_FALSE(upload.all_durable());
  upload.restart();
  auto again = upload.next_part(1 << 20);
  ASSERT_EQ(again->part.chunks.size(), 1u);
  EXPECT_EQ(again->part.chunks[0].first, 1u);
  EXPECT_TRUE(again->part.seal);
  upload.acknowledge(acknowledged(upload, {{1, 2}}, true));
  EXPECT_EQ(upload.unacknowledged_bytes(), 0u);
  EXPECT_TRUE(upload.all_durable());
}

TEST(Upload, ChunksThatTheRelayHasFromAnEarlierLifeAreSkipped) {
  Upload upload(header(), {{0, 1024}});
  for (int i = 0; i < 1500; ++i) upload.add(Bytes("x"));
  upload.seal();
  auto part = upload.next_part(1 << 20);
  ASSERT_EQ(part->part.chunks.size(), 1u);
  EXPECT_EQ(part->part.chunks[0].first, 1024u);
}

TEST(Upload, ARefusalIsFinal) {
  Upload upload(header(), {});
  upload.add(Bytes("x"));
  upload.seal();
  (void)upload.next_part(1 << 20);
  upload.acknowledge({upload.header().submission,
                      {},
                      false,
                      static_cast<int>(ErrorCode::kExists),
                      "another header"});
  upload.restart();
  EXPECT_FALSE(upload.next_part(1 << 20));
  ASSERT_TRUE(upload.error());
  EXPECT_EQ(upload.error()->code, ErrorCode::kExists);
}

TEST(CreditWindow, GrowsOnlyByWhatWasConsumed) {
  CreditWindow window(100, 1000);
  EXPECT_EQ(window.take_grant()->tasks, 100u);
  EXPECT_FALSE(window.take_grant());
  window.receive(40, 400);
  EXPECT_FALSE(window.take_grant()) << "nothing was consumed";
  window.release(10, 100);
  EXPECT_FALSE(window.take_grant()) << "too little to be worth a message";
  window.release(30, 300);
  auto grant = window.take_grant();
  ASSERT_TRUE(grant);
  EXPECT_EQ(grant->tasks, 140u);
  EXPECT_EQ(grant->bytes, 1400u);
}

TEST(CreditWindow, WhatIsHeldOverAReconnectStillCounts) {
  CreditWindow window(100, 1000);
  (void)window.take_grant();
  window.receive(60, 600);
  window.restart();
  auto grant = window.take_grant();
  ASSERT_TRUE(grant);
  EXPECT_EQ(grant->tasks, 40u);
  window.release(60, 600);
  EXPECT_EQ(window.take_grant()->tasks, 100u);
}

}  // namespace
}  // namespace farcall::client
