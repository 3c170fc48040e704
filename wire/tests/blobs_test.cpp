#include "wire/blobs.h"

#include <gtest/gtest.h>

#include "wire/blob_payload.h"

namespace farcall::wire {
namespace {

const std::string kOne(64, 'a'), kTwo(64, '0');

TEST(BlobPayload, NamesItsBlobs) {
  const std::string payload =
      pack_blob_payload({{kOne, 5}, {kTwo, std::uint64_t{1} << 40}}, "[0,\"x\"]", "Prest");
  const auto refs = blob_refs(payload);
  ASSERT_TRUE(refs);
  EXPECT_EQ(*refs, (std::vector<BlobRef>{{kOne, 5}, {kTwo, std::uint64_t{1} << 40}}));
  EXPECT_EQ(payload.substr(8 + 2 * 72 + 4), "[0,\"x\"]Prest");
}

TEST(BlobPayload, OtherFormsNameNone) {
  for (const char* payload : {"", "J{}", "P\x80", "{\"entry\":\"B\"}"})
    EXPECT_TRUE(blob_refs(payload).value().empty()) << payload;
}

TEST(BlobPayload, EveryCutOfTheListIsFound) {
  const std::string payload = pack_blob_payload({{kOne, 5}, {kTwo, 6}}, "[]", "");
  for (std::size_t size = 1; size < 8 + 2 * 72; ++size) {
    const auto refs = blob_refs(payload.substr(0, size));
    ASSERT_FALSE(refs) << size;
    EXPECT_NE(refs.error().message.find("no whole list of its"), std::string::npos);
  }
}

TEST(BlobPayload, SaysWhereTheyBelongUnlessItIsCutOff) {
  const std::string payload = pack_blob_payload({{kOne, 5}, {kTwo, 6}}, "[[0,1]]", "Jrest");
  const auto parts = blob_places(payload);
  ASSERT_TRUE(parts);
  EXPECT_EQ(parts->places, "[[0,1]]");
  EXPECT_EQ(parts->rest, "Jrest");
  for (std::size_t size = 0; size < payload.size() - 5; ++size)
    EXPECT_FALSE(blob_places(std::string_view(payload).substr(0, size))) << size;
}

TEST(BlobPayload, OnlyHashesBecomeNamesOfFiles) {
  std::string payload = pack_blob_payload({{kOne, 5}}, "[]", "");
  payload.replace(8, 6, "../../");
  const auto refs = blob_refs(payload);
  ASSERT_FALSE(refs);
  EXPECT_EQ(refs.error().message, "a payload names a blob with something that is no hash");
}

}  // namespace
}  // namespace farcall::wire
