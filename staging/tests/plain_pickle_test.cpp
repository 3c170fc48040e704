#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "python.h"
#include "staging/value.h"

namespace farcall::staging {
namespace {

using nlohmann::json;

std::string pickled(const std::string& expression, int protocol = 5) {
  return python_bytes(fmt::format("out(pickle.dumps({}, {}))", expression, protocol));
}

TEST(PlainPickle, ReadsPlainValuesOfAllBinaryProtocols) {
  const char* expression =
      "{'i': [0, 1, -1, 255, 256, 65536, -2**31, 2**31, 2**62, -2**63], 'f': [0.0, -1.5, 1e300], "
      "'s': ['', 'ü', 'x' * 300], 't': ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), 'n': None, "
      "'b': [True, False], 'd': {}, 'l': [], 'nested': {'a': [{'b': [1.5] * 3}]}, 7: 'seven', "
      "'again': ['same text', 'same text', (1, 2)], 'long': list(range(3000))}";
  const json expected = json::parse(
      R"({"i": [0, 1, -1, 255, 256, 65536, -2147483648, 2147483648, 4611686018427387904, -9223372036854775808],
          "f": [0.0, -1.5, 1e300], "s": ["", "ü"], "t": [[], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4]], "n": null,
          "b": [true, false], "d": {}, "l": [], "nested": {"a": [{"b": [1.5, 1.5, 1.5]}]}, "7": "seven",
          "again": ["same text", "same text", [1, 2]]})");
  for (const int protocol : {2, 3, 4, 5}) {
    const std::string data = pickled(expression, protocol);
    auto value = decode_plain_pickle(data);
    ASSERT_TRUE(value) << value.error().message;
    auto shown = value_to_json(*value);
    ASSERT_TRUE(shown) << protocol;
    EXPECT_EQ((*shown)["long"].size(), 3000u);
    EXPECT_EQ((*shown)["s"][2], std::string(300, 'x'));
    shown->erase("long");
    (*shown)["s"].erase(2);
    EXPECT_EQ(*shown, expected) << protocol;
  }
}

TEST(PlainPickle, BytesAreBytes) {
  const std::string data = pickled("[b'a\\x00', b'y' * 300, bytearray(b'z')]");
  auto value = decode_plain_pickle(data);
  ASSERT_TRUE(value);
  const List& list = *value->as<List>();
  EXPECT_EQ(list.at(0).as<Binary>()->data, std::string_view("a\0", 2));
  EXPECT_EQ(list.at(1).as<Binary>()->data.size(), 300u);
  EXPECT_EQ(list.at(2).as<Binary>()->data, "z");
}

TEST(PlainPickle, EverythingElseIsOpaque) {
  for (const char* expression :
       {"complex(1, 2)", "__import__('datetime').date(2020, 1, 1)", "2**70", "np.arange(3)",
        "print", "[(lambda x: [x, x])([1])]", "{(1, complex(0)): 2}", "__import__('os').system"}) {
    const std::string data = pickled(expression);
    auto value = decode_plain_pickle(data);
    ASSERT_TRUE(value) << value.error().message;
    EXPECT_FALSE(value_to_json(*value)) << expression;
  }
}

TEST(PlainPickle, ABombOfReferencesEndsAsOpaque) {
  const std::string data = pickled(
      "(lambda f: f(f, 40))(lambda f, n: 1 if n == 0 else (lambda t: (t, t))((f(f, n - 1), 0)))");
  auto value = decode_plain_pickle(data);
  ASSERT_TRUE(value);
  EXPECT_NE(value->as<Opaque>(), nullptr);
}

TEST(PlainPickle, DamageIsAnErrorAndNeverACrash) {
  const std::string whole =
      pickled("{'a': [1, 2.5, 'text', (3, None)], 'b': b'bytes', 'c': 'text'}");
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(decode_plain_pickle(std::string_view(whole).substr(0, size))) << size;
  for (std::size_t at = 0; at < whole.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = whole;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << bit));
      (void)decode_plain_pickle(flipped);
    }
}

}  // namespace
}  // namespace farcall::staging
