#include "staging/value.h"

#include <fmt/ranges.h>
#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "python.h"

namespace farcall::staging {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

const Value* at(const Value& value, const std::string& key) {
  const auto* dict = value.as<Dict>();
  if (dict == nullptr) return nullptr;
  for (const auto& [name, item] : *dict)
    if (name == key) return &item;
  return nullptr;
}

TEST(DTypes, AreThoseOfNumpy) {
  EXPECT_EQ(parse_dtype("<f8")->size, 8u);
  EXPECT_TRUE(parse_dtype(">i4")->big_endian);
  EXPECT_EQ(parse_dtype("<U5")->size, 20u);
  EXPECT_EQ(parse_dtype("<M8[ns]")->kind, 'M');
  for (const char* text :
       {"", "f8", "<f3", "<f16", "<V8", "|O8", "<i", "<i8x", "|S0", "<S99999999"})
    EXPECT_FALSE(parse_dtype(text)) << text;
}

TEST(Native, ReadsWhatPythonWrites) {
  const std::string payload = python_value(
      "{'u': np.arange(6, dtype='<f4').reshape(2, 3), 't': (1, -2.5, None, True), 'nan': "
      "float('nan'), "
      "'inf': -np.inf, 's': np.float32(0.5), 'n': np.int8(-3), 'k': {1: 'a'}, 'b': b'xy', 'o': {1, "
      "2}}");
  ASSERT_EQ(payload[0], 'N');
  auto value = decode_value(payload);
  ASSERT_TRUE(value) << value.error().message;
  const auto* array = at(*value, "u")->as<Array>();
  ASSERT_NE(array, nullptr);
  EXPECT_THAT(array->shape, ElementsAre(2, 3));
  EXPECT_EQ((array->data.data() - payload.data()) % 16, 0);
  EXPECT_EQ(element_as_double(*array, 5), 5.0);
  EXPECT_EQ(value_to_json(*at(*value, "t")), json::array({1, -2.5, nullptr, true}));
  EXPECT_TRUE(std::isnan(*at(*value, "nan")->as<double>()));
  EXPECT_EQ(*at(*value, "inf")->as<double>(), -HUGE_VAL);
  EXPECT_EQ(*at(*value, "s")->as<double>(), 0.5);
  EXPECT_EQ(*at(*value, "n")->as<std::int64_t>(), -3);
  EXPECT_EQ(value_to_json(*at(*value, "k")), json({{"1", "a"}}));
  EXPECT_EQ(at(*value, "b")->as<Binary>()->data, "xy");
  EXPECT_NE(at(*value, "o")->as<Opaque>(), nullptr);
  EXPECT_FALSE(value_to_json(*value));
}

TEST(Native, ElementsOfEveryKindAreNumbers) {
  const std::vector<std::string> types = {"<f2", "<f4", "<f8", ">f8", "|i1", "<i2", "<i4",
                                          "<i8", ">i2", "|u1", "<u2", "<u4", "<u8", ">u8"};
  const std::string payload = python_value(
      fmt::format("[np.array([0, 1, 100], t) for t in '{}'.split()]", fmt::join(types, " ")));
  auto value = decode_value(payload);
  ASSERT_TRUE(value) << value.error().message;
  for (std::size_t i = 0; i < types.size(); ++i) {
    const Value& item = value->as<List>()->at(i);
    EXPECT_EQ(item.as<Array>()->dtype.text, types[i]);
    EXPECT_EQ(element_as_double(*item.as<Array>(), 2), 100.0) << types[i];
    EXPECT_EQ(value_to_json(item), json::array({0, 1, 100})) << types[i];
  }
  const std::string flags = python_value("np.array([[True], [False]])");
  EXPECT_EQ(value_to_json(*decode_value(flags)), json::parse("[[true], [false]]"));
  const std::string small = python_value("np.array([6e-8, np.inf], 'f2')");
  EXPECT_NEAR(*element_as_double(*decode_value(small)->as<Array>(), 0), 6e-8, 1e-9);
  EXPECT_EQ(value_to_json(*decode_value(small))->at(1), nullptr);
}

TEST(Native, DamagedPayloadsAreErrors) {
  const std::string whole = python_value("{'u': np.arange(5), 'v': np.ones(3)}");
  for (std::size_t size = 1; size < whole.size(); ++size)
    EXPECT_FALSE(decode_value(std::string_view(whole).substr(0, size))) << size;
  auto made = [](const std::string& head, const std::string& data = "") {
    const auto n = static_cast<char>(head.size());
    return decode_value(std::string("N\0\0\0", 4) + n + std::string(3, '\0') + head + data);
  };
  EXPECT_TRUE(made(R"({"value":1,"arrays":[],"sizes":[]})"));
  for (const char* head : {R"({"value":1,"arrays":[["<f8",[1]]],"sizes":[]})",
                           R"({"value":{"$a":0},"arrays":[],"sizes":[]})",
                           R"({"value":1,"arrays":[["<f8",[2]]],"sizes":[0]})",
                           R"({"value":1,"arrays":[["|O",[0]]],"sizes":[0]})",
                           R"({"value":1,"arrays":[["<f8",[-1]]],"sizes":[0]})",
                           R"({"value":{"$x":0},"arrays":[],"sizes":[]})",
                           R"({"value":1,"arrays":[["<f8",[4294967296,4294967296]]],"sizes":[0]})",
                           R"({"value":1,"arrays":5,"sizes":[0]})",
                           R"({"value":1,"arrays":[],"sizes":[18446744073709551615]})"})
    EXPECT_FALSE(made(head)) << head;
  EXPECT_THAT(decode_value("?").error().message, HasSubstr("expected J, N, P or D"));
}

TEST(Arguments, OfEveryForm) {
  auto json_set = decode_arguments(R"(J{"args":[1],"kwargs":{"x":2.5}})");
  ASSERT_TRUE(json_set && *json_set);
  EXPECT_EQ((*json_set)->positional.size(), 1u);
  EXPECT_EQ((*json_set)->named[0].first, "x");
  const std::string native = python_value("((np.arange(3), 2), {'scale': 3})");
  ASSERT_EQ(native[0], 'N');
  auto arrays = decode_arguments(native);
  ASSERT_TRUE(arrays && *arrays);
  EXPECT_NE((*arrays)->positional[0].as<Array>(), nullptr);
  EXPECT_EQ((*arrays)->named[0].first, "scale");
  const std::string pickled = python_value("((1, 'a'), {'y': 2})");
  ASSERT_EQ(pickled[0], 'P');
  auto plain = decode_arguments(pickled);
  ASSERT_TRUE(plain && *plain);
  EXPECT_EQ((*plain)->positional.size(), 2u);
  const std::string object = python_value("((complex(1, 2),), {})");
  auto opaque = decode_arguments(object);
  ASSERT_TRUE(opaque);
  EXPECT_FALSE(*opaque);
}

}  // namespace
}  // namespace farcall::staging
