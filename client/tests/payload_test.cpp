#include "farcall/payload.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace farcall {
namespace {

using nlohmann::json;

TEST(Payload, ArgumentsLeaveOutWhatIsEmpty) {
  EXPECT_EQ(json_arguments(json::array({1}), json::object()).view(), R"(J{"args":[1]})");
  EXPECT_EQ(json_arguments(nullptr, {{"a", 2}}).view(), R"(J{"kwargs":{"a":2}})");
  EXPECT_EQ(json_arguments(nullptr, nullptr).view(), "J{}");
}

TEST(Payload, ShellResultsKeepAnyBytes) {
  const ShellResult result{"cat x", std::string("\xff\0y", 3), "warning\n", -9, "", true};
  auto back = decode_shell_result(encode_shell_result(result));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->out, result.out);
  EXPECT_EQ(back->err, result.err);
  EXPECT_EQ(back->returncode, -9);
  EXPECT_TRUE(back->truncated);
  auto value = value_as_json(encode_shell_result(result));
  ASSERT_TRUE(value && *value);
  EXPECT_EQ((**value)["returncode"], -9);
}

TEST(Payload, AShellResultAsTheNodeAgentPacksIt) {
  const std::string packed = std::string("S\x96\xa2ls\xc4\x01x\xc4\x00\x02\xa0\xc2", 13);
  auto back = decode_shell_result(packed);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->command, "ls");
  EXPECT_EQ(back->out, "x");
  EXPECT_EQ(back->returncode, 2);
}

TEST(Payload, DamagedShellResultsAreErrors) {
  const std::string whole = encode_shell_result({"a", "b", "c", 1, "", false});
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(decode_shell_result(std::string_view(whole).substr(0, size))) << size;
}

TEST(Payload, FailuresHaveAHeadAndAPickle) {
  const std::string data = encode_failure({{"type", "ValueError"},
                                           {"module", "builtins"},
                                           {"message", "no"},
                                           {"class", "user_error"},
                                           {"traceback", "Traceback…"}},
                                          std::string("\x80\x05", 2));
  auto failure = decode_failure(data);
  ASSERT_TRUE(failure) << failure.error().message;
  EXPECT_EQ(failure_line(*failure), "ValueError: no");
  EXPECT_EQ(failure->pickle.size(), 2u);
  EXPECT_EQ(failure->failure_class, "user_error");
  for (std::size_t size = 0; size < data.size() - 2; ++size)
    EXPECT_FALSE(decode_failure(std::string_view(data).substr(0, size))) << size;
}

TEST(Payload, ValuesAsJson) {
  EXPECT_EQ(**value_as_json("J[1,2]"), json::array({1, 2}));
  EXPECT_EQ(**value_as_json("P\x80\x05K\x07."), 7);
  EXPECT_FALSE(*value_as_json("P\x80\x05\x8c\x02os\x8c\x06system\x93."));
  EXPECT_FALSE(value_as_json("P\x80\x05")) << "cut off";
  const std::string_view arrays(
      "N\0\0\0"
      "5\0\0\0"
      "{\"value\":{\"$a\":0},\"arrays\":[[\"|u1\",[2]]],\"sizes\":[2]}\0\0\0\x01\x02",
      66);
  EXPECT_EQ(**value_as_json(arrays), json::array({1, 2}));
  EXPECT_FALSE(value_as_json("J[1,"));
  EXPECT_FALSE(value_as_json("?"));
}

}  // namespace
}  // namespace farcall
