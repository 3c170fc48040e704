#include "staging/flatten.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "python.h"

namespace farcall::staging {
namespace {

using nlohmann::json;
using testing::ElementsAre;

std::vector<std::string> shown(const Flat& flat) {
  std::vector<std::string> lines;
  for (const Leaf& leaf : flat.leaves) lines.push_back(leaf.path + ":" + leaf.signature());
  return lines;
}
std::vector<std::string> of_json(const char* text, const std::string& root = "") {
  const Value value = value_from_json(json::parse(text));
  return shown(flatten(value, root));
}

TEST(Flatten, DictsAreFoldersAndRectangularListsAreArrays) {
  EXPECT_THAT(of_json(R"({"a": 1, "b": {"c": 2.5, "d": "x"}, "e": true, "f": null})"),
              ElementsAre("a:<i8[]", "b/c:<f8[]", "b/d:text[]", "e:|b1[]"));
  EXPECT_THAT(of_json("[[1, 2, 3], [4, 5, 6.5]]"), ElementsAre("value:<f8[2,3]"));
  EXPECT_THAT(of_json("[[1], [2, 3]]"), ElementsAre("value/0:<i8[1]", "value/1:<i8[2]"));
  EXPECT_THAT(of_json(R"([1, "a"])"), ElementsAre("value/0:<i8[]", "value/1:text[]"));
  EXPECT_THAT(of_json(R"([{"x": 1}, 2, [3]])", "r"),
              ElementsAre("r/0/x:<i8[]", "r/1:<i8[]", "r/2:<i8[1]"));
  EXPECT_THAT(of_json("[]"), ElementsAre("value:<f8[0]"));
  EXPECT_THAT(of_json("[[], []]"), ElementsAre("value:<f8[2,0]"));
  EXPECT_THAT(of_json("[[], [1]]"), ElementsAre("value/0:<f8[0]", "value/1:<i8[1]"));
  EXPECT_THAT(of_json("[1, [2]]"), ElementsAre("value/0:<i8[]", "value/1:<i8[1]"));
  EXPECT_THAT(of_json("[[[1, 2]], [[3, 4]]]"), ElementsAre("value:<i8[2,1,2]"));
}

TEST(Flatten, LongListsOfDifferentThingsAreOneText) {
  json list = json::array();
  for (int i = 0; i < 100; ++i) list.push_back({{"i", i}});
  const Value value = value_from_json(list);
  const Flat flat = flatten(value, "");
  ASSERT_EQ(flat.leaves.size(), 1u);
  EXPECT_EQ(json::parse(flat.leaves[0].texts[0]), list);
}

TEST(Flatten, ValuesAreThoseOfTheList) {
  const Value value = value_from_json(json::parse("[[1, 2], [3, 4]]"));
  const Flat flat = flatten(value, "");
  for (std::uint64_t i = 0; i < 4; ++i)
    EXPECT_EQ(element_as_int(flat.leaves.at(0).array, i), static_cast<std::int64_t>(i) + 1);
}

TEST(Flatten, ArraysOfPython) {
  const std::string payload = python_value(
      "{'u': np.zeros((2, 3), 'f4'), 'same': [np.ones(2), np.ones(2)], 'not': [np.ones(2), "
      "np.ones(3)], "
      "'names': np.array(['ü', 'abc']), 'raw': b'xx', 'odd': {1, 2}}");
  auto value = decode_value(payload);
  ASSERT_TRUE(value) << value.error().message;
  const Flat flat = flatten(*value, "");
  EXPECT_THAT(shown(flat),
              testing::UnorderedElementsAre("u:<f4[2,3]", "same:<f8[2,2]", "not/0:<f8[2]",
                                            "not/1:<f8[3]", "names:text[2]"));
  EXPECT_TRUE(flat.opaque);
  ASSERT_EQ(flat.binaries.size(), 1u);
  for (const Leaf& leaf : flat.leaves) {
    if (!leaf.text) continue;
    EXPECT_THAT(leaf.texts, ElementsAre("ü", "abc"));
  }
}

TEST(Flatten, NamesThatHdf5WouldTakeForPaths) {
  EXPECT_EQ(path_part("a/b"), "a%2Fb");
  EXPECT_EQ(path_part("."), "%2E");
  EXPECT_EQ(path_part(""), "%");
  EXPECT_EQ(path_part("50%"), "50%25");
  EXPECT_EQ(path_part("a.b"), "a.b");
}

}  // namespace
}  // namespace farcall::staging
