#include "base/config.h"

#include <gtest/gtest.h>

namespace farcall {
namespace {

std::vector<ConfigKey> table() {
  ConfigKey provider{.name = "provider", .type = KeyType::kMap};
  provider.keys = {
      {.name = "type", .choices = {"SlurmProvider", "LocalProvider"}, .required = true},
      {.name = "walltime", .type = KeyType::kDuration, .default_value = 600.0, .unit = "s"},
      {.name = "max_blocks",
       .type = KeyType::kInteger,
       .default_value = 1,
       .minimum = 0,
       .maximum = 10},
      {.name = "regex_job_id", .ignored = true, .help = "ids are parsed"},
  };
  for (auto& key : provider.keys) key.help = key.help.empty() ? "a sentence" : key.help;
  return {provider,
          {.name = "display_name"},
          {.name = "env", .type = KeyType::kStringMap, .default_value = nlohmann::json::object()},
          {.name = "debug", .type = KeyType::kBool, .default_value = false}};
}

Result<ConfigDocument> check(const std::string& text) {
  auto root = parse_yaml(text, "c.yaml");
  if (!root) return fail(root.error());
  return check_config(*root, table(), "c.yaml");
}

TEST(Config, FillsDefaultsAndConverts) {
  auto document =
      check("provider:\n  type: LocalProvider\n  walltime: 00:20:00\ndebug: yes\nenv: {A: 1}\n");
  ASSERT_TRUE(document) << document.error().message;
  EXPECT_EQ(document->values.dump(),
            R"({"debug":true,"display_name":null,"env":{"A":"1"},"provider":{"max_blocks":1,)"
            R"("regex_job_id":null,"type":"LocalProvider","walltime":1200.0}})");
}

TEST(Config, SaysAllThatIsWrongAtOnceWithItsPlace) {
  auto document = check(
      "provider:\n  type: SlurmProvder\n  wall_time: 5\n  max_blocks: eleven\ndebug: maybe\n"
      "env: [a]\n");
  ASSERT_FALSE(document);
  EXPECT_EQ(document.error().code, ErrorCode::kConfig);
  EXPECT_EQ(document.error().message,
            "c.yaml:2:9: 'provider.type' is 'SlurmProvder', expected one of SlurmProvider, "
            "LocalProvider; did you mean 'SlurmProvider'?\n"
            "c.yaml:3:3: unknown key 'provider.wall_time'; did you mean 'provider.walltime'?\n"
            "c.yaml:4:15: 'provider.max_blocks' is 'eleven', expected a whole number\n"
            "c.yaml:5:8: 'debug' is 'maybe', expected true or false\n"
            "c.yaml:6:6: 'env' is a list, expected a map of texts");
}

TEST(Config, MissingKeysBoundsAndIgnoredOnes) {
  EXPECT_EQ(check("provider:\n  max_blocks: 11\n").error().message,
            "c.yaml:2:3: the key 'provider.type' is missing: a sentence\n"
            "c.yaml:2:15: 'provider.max_blocks' is 11, expected 0 to 10");
  auto document = check("provider: {type: LocalProvider, regex_job_id: x}\n");
  ASSERT_TRUE(document);
  ASSERT_EQ(document->warnings.size(), 1u);
  EXPECT_EQ(document->warnings[0].text,
            "the key 'provider.regex_job_id' has no meaning here and is ignored: ids are parsed");
}

TEST(Config, NumbersThatNoIntegerHoldsAreNoWholeNumbers) {
  for (const char* text : {"1e300", "1.5", "inf", "0x10", "-9007199254740993000"}) {
    auto document = check(fmt::format("provider: {{type: LocalProvider, max_blocks: {}}}\n", text));
    ASSERT_FALSE(document) << text;
    EXPECT_EQ(
        document.error().message,
        fmt::format("c.yaml:1:45: 'provider.max_blocks' is '{}', expected a whole number", text));
  }
}

TEST(Config, AFileThatIsNoMapOrIsEmptySaysSo) {
  EXPECT_EQ(check("- a\n").error().message, "c.yaml:1:1: the file is a list, expected a map");
  auto empty = check("# nothing\n");
  ASSERT_TRUE(empty) << empty.error().message;
  EXPECT_EQ(empty->values["debug"], false);
}

TEST(Config, TheReferenceHasEveryKey) {
  const std::string page = config_reference(table());
  for (const char* expected :
       {"| `debug` | true or false | `false` |", "### `provider`\n",
        "| `provider.max_blocks` | a whole number | `1` | from 0 to 10 | a sentence |",
        "(accepted, no meaning here) ids are parsed"})
    EXPECT_NE(page.find(expected), std::string::npos) << expected << " in\n" << page;
}

TEST(Yaml, ErrorsNameTheirPlace) {
  EXPECT_EQ(parse_yaml("a: 1\nb: 2\na: 3\n", "f").error().message,
            "f:3:1: the key 'a' stands here a second time, first in line 1");
  EXPECT_EQ(parse_yaml("a: [1, 2\nb: 3\n", "f").error().message.substr(0, 24),
            "f:2:2: not valid YAML: d");
  EXPECT_EQ(parse_yaml("a: *x\n", "f").error().message,
            "f:1:4: aliases (*name) are not supported here");
  EXPECT_TRUE(parse_yaml("", "f"));
}

TEST(Duration, ReadsWhatSchedulersAndPeopleWrite) {
  EXPECT_EQ(*parse_duration("90"), 90);
  EXPECT_EQ(*parse_duration("1.5h"), 5400);
  EXPECT_EQ(*parse_duration("2d"), 172800);
  EXPECT_EQ(*parse_duration("00:10:00"), 600);
  EXPECT_EQ(*parse_duration("1-00:00:01"), 86401);
  for (const char* bad : {"", "x", "-5", "1:2:3:4", "5 m"})
    EXPECT_FALSE(parse_duration(bad)) << bad;
}

TEST(Suggest, NearWordsOnly) {
  EXPECT_EQ(suggest("endpont", {"endpoint", "relay"}), "endpoint");
  EXPECT_EQ(suggest("conf", {"configure", "relay"}), "configure");
  EXPECT_EQ(suggest("zebra", {"endpoint", "relay"}), std::nullopt);
}

}  // namespace
}  // namespace farcall
