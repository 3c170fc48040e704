#include "wire/results_file.h"

#include <gtest/gtest.h>

#include "wire/codec.h"

namespace farcall::wire {
namespace {

Message two_results() {
  Results results;
  results.batch = 7;
  SubmissionOutcomes& one = results.results.emplace_back();
  one.submission = SubmissionId{{1, 2, 3}};
  one.outcomes.resize(2);
  one.outcomes[0].data_size = 3;
  one.outcomes[1].index = 5;
  one.outcomes[1].data_size = 2;
  return make_message(results, {Bytes(std::string("abcde"))});
}

TEST(ResultsFile, GivesBackWhatWasPacked) {
  const Message message = two_results();
  const auto back = unpack_results_file(Bytes(pack_results_file(message)));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->type, MessageType::kResults);
  EXPECT_EQ(back->body.view(), message.body.view());
  ASSERT_EQ(back->payload.size(), 1u);
  EXPECT_EQ(back->payload[0].view(), "abcde");
}

TEST(ResultsFile, ItsFirstLineIsWhatTheFormatSays) {
  const Message message = two_results();
  EXPECT_EQ(pack_results_file(message),
            fmt::format("farcall-results 1 {} 5\n", message.body.size()) +
                std::string(message.body.view()) + "abcde");
}

TEST(ResultsFile, IsRefusedWhereverItWasCutOff) {
  const std::string file = pack_results_file(two_results());
  for (std::size_t size = 0; size < file.size(); ++size) {
    const auto back = unpack_results_file(Bytes(file.substr(0, size)));
    ASSERT_FALSE(back) << size;
    EXPECT_EQ(back.error().code, ErrorCode::kCorrupt) << size;
  }
  EXPECT_FALSE(unpack_results_file(Bytes(file + "x")));
}

TEST(ResultsFile, SaysWhatIsWrong) {
  const auto text = [](std::string file) {
    return unpack_results_file(Bytes(std::move(file))).error().message;
  };
  EXPECT_EQ(text("hello\n"), "6 bytes without the first line of a results file");
  EXPECT_EQ(text("farcall-results 2 0 0\n"), "a results file of version 2, this farcall knows 1");
  EXPECT_EQ(text("farcall-results 1 4 4\nabc"),
            "a results file with 3 bytes after its first line, which says 4 and 4");
  Message more = two_results();
  more.payload[0] = Bytes(std::string("abcdef"));
  EXPECT_EQ(text(pack_results_file(more)),
            "a results file with 6 bytes of data, its outcomes claim 5");
}

}  // namespace
}  // namespace farcall::wire
