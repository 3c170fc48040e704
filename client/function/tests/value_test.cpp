#include "farcall/value.h"

#include <gtest/gtest.h>

namespace farcall {
namespace {

template <class T>
T there_and_back(const T& value) {
  return from_value<T>(unpack_value(pack_value(to_value(value))));
}

template <class T>
std::string error_of(const char* json) {
  try {
    from_value<T>(Value::parse(json), "argument 1");
  } catch (const ValueError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Value, KeepsWhatItIsGiven) {
  EXPECT_EQ(there_and_back<std::int64_t>(INT64_MIN), INT64_MIN);
  EXPECT_EQ(there_and_back<std::uint64_t>(UINT64_MAX), UINT64_MAX);
  EXPECT_EQ(there_and_back(0.1), 0.1);
  EXPECT_EQ(there_and_back(std::string("a\"ß")), "a\"ß");
  EXPECT_EQ(there_and_back(std::optional<int>()), std::nullopt);
  using Nested = std::map<std::string, std::vector<std::tuple<int, bool, std::optional<double>>>>;
  const Nested nested{{"a", {{1, true, 2.5}, {2, false, std::nullopt}}}, {"b", {}}};
  EXPECT_EQ(there_and_back(nested), nested);
}

TEST(Value, TravelsAsMessagePackWhenJsonCannotSayIt) {
  EXPECT_EQ(pack_value(to_value(std::vector<double>{1, 2})), "J[1.0,2.0]");
  EXPECT_EQ(pack_value(to_value(std::vector<double>{NAN}))[0], 'M');
  EXPECT_TRUE(std::isnan(there_and_back(std::vector<double>{NAN})[0]));
  EXPECT_EQ(there_and_back(std::string("\xff")), "\xff");
  const std::vector<std::byte> bytes{std::byte{0}, std::byte{255}};
  EXPECT_EQ(there_and_back(bytes), bytes);
}

TEST(Value, SaysWhatIsWrong) {
  EXPECT_EQ(error_of<int>("\"x\""),
            "argument 1 is a text, \"x\"; expected a whole number from -2147483648 to 2147483647");
  EXPECT_EQ(error_of<std::int8_t>("200"),
            "argument 1 is a number, 200; expected a whole number from -128 to 127");
  EXPECT_EQ(error_of<std::uint32_t>("-1"),
            "argument 1 is a number, -1; expected a whole number from 0 to 4294967295");
  EXPECT_EQ(error_of<int>("1.5"),
            "argument 1 is a number, 1.5; expected a whole number from -2147483648 to 2147483647");
  EXPECT_EQ(error_of<std::vector<double>>("[1, \"a\"]"),
            "argument 1[1] is a text, \"a\"; expected a number");
  EXPECT_EQ((error_of<std::map<std::string, bool>>("{\"k\": 1}")),
            "argument 1['k'] is a number, 1; expected true or false");
  EXPECT_EQ((error_of<std::pair<int, int>>("[1]")),
            "argument 1 is a list, [1]; expected a list of 2");
  EXPECT_EQ(error_of<std::string>("null"), "argument 1 is null; expected a text");
}

TEST(Value, RefusesOtherBytes) {
  EXPECT_THROW(unpack_value(""), ValueError);
  EXPECT_THROW(unpack_value("Pxyz"), ValueError);
  EXPECT_THROW(unpack_value("J{"), ValueError);
  EXPECT_THROW(unpack_value("M\x92"), ValueError);
}

}  // namespace
}  // namespace farcall
