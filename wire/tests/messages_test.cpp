#include <gtest/gtest.h>

#include "wire/codec.h"
#include "wire/shell_result.h"

namespace farcall::wire {
namespace {

TEST(Codec, RoundTripsNestedValues) {
  Results results;
  results.batch = 42;
  TaskOutcome outcome;
  outcome.index = 7;
  outcome.attempt = 2;
  outcome.state = TaskState::kFailed;
  outcome.failure = FailureClass::kLost;
  outcome.host = "n1";
  results.results.push_back({SubmissionId{{1, 2, 3}}, {outcome}});
  auto back = decode<Results>(make_message(results));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->batch, 42u);
  EXPECT_EQ(back->results, results.results);
}

TEST(Codec, ShellResultsAreAnArrayOfEightAndKeepAnyBytes) {
  ShellResult result{"echo x",
                     std::string("\xff\0x", 3),
                     "warn",
                     -9,
                     "subprocess.CalledProcessError",
                     true,
                     70'000,
                     4};
  const std::string packed = encode(result);
  EXPECT_EQ(packed[0], '\x98');
  auto back = decode<ShellResult>(Bytes(packed));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, result);
}

TEST(Codec, AShorterMessageLeavesLaterFieldsAtTheirDefaults) {
  Hello hello;
  hello.software = "farcall 0.1.0";
  // [["farcall", 1]] : a ClientHello of a peer that knows two fields of Hello and no more.
  std::string packed(
      "\x91\x92\xa7"
      "farcall"
      "\x01",
      11);
  auto back = decode<ClientHello>(Bytes(packed));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->hello.version, 1);
  EXPECT_EQ(back->invitation, "");
}

TEST(Codec, RefusesRubbishWithItsSize) {
  for (const std::string& text : {std::string("\xc1"), std::string(), std::string("\x93\x01", 2),
                                  std::string("\x91\xa1x", 3)}) {
    auto back = decode<ResultsAck>(Bytes(text));
    ASSERT_FALSE(back);
    EXPECT_EQ(back.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(back.error().message.find(std::to_string(text.size()) + " bytes"), std::string::npos);
  }
}

TEST(Header, CarriesEnvelopeAndBody) {
  Message message = make_message(Credit{5, 6});
  Envelope envelope{static_cast<std::uint16_t>(message.type), 77, 3};
  auto header = unpack_header(Bytes(pack_header(envelope, message)));
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->envelope, envelope);
  EXPECT_EQ(decode<Credit>(header->body)->bytes, 6u);
  EXPECT_EQ(unpack_header(Bytes(std::string("GET / HTTP/1.1"))).error().message,
            "not a farcall message: 14 bytes without its mark");
}

}  // namespace
}  // namespace farcall::wire
