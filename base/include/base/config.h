// YAML configuration checked against a table: every key has a type, default, unit, bounds and a
// sentence, from which the reference page is generated. All errors come at once, each with
// file:line:column, unknown keys with a suggestion.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace farcall {

enum class KeyType { kString, kInteger, kNumber, kBool, kDuration, kStringList, kStringMap, kMap };

struct ConfigKey {
  std::string name;
  KeyType type = KeyType::kString;
  nlohmann::json default_value;      // null: none; see `required`
  std::string unit;                  // "s", "MiB", "" …
  std::optional<double> minimum;     // inclusive
  std::optional<double> maximum;     // inclusive
  std::vector<std::string> choices;  // for strings; empty: any
  bool required = false;
  bool secret = false;          // never shown
  bool ignored = false;         // accepted for compatibility, has no meaning here; said once
  std::string help;             // one sentence
  std::vector<ConfigKey> keys;  // of a kMap
};

struct ConfigProblem {
  int line = 0;    // from 1
  int column = 0;  // from 1
  std::string text;
};

struct ConfigDocument {
  nlohmann::json values;                // every key of the table present, defaults filled in
  std::vector<ConfigProblem> warnings;  // ignored keys
};

// A YAML tree with the place of each node, as libyaml reports it.
struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMapping } kind = Kind::kNull;
  std::string scalar;
  bool quoted = false;
  std::vector<YamlNode> items;                         // of a sequence
  std::vector<std::pair<YamlNode, YamlNode>> entries;  // of a mapping, in order
  int line = 0, column = 0;

  const YamlNode* find(std::string_view key) const;
};

// kConfig with "file:line:column: what" when the text is no YAML (a duplicate key included).
Result<YamlNode> parse_yaml(std::string_view text, const std::string& file_name);

// kDuration is seconds in `values` and written as 90, "1.5h", "30s", "10m", "2d" or "HH:MM:SS".
// The error's message has a line "file:line:column: text" for each problem, in order.
Result<ConfigDocument> check_config(const YamlNode& root, const std::vector<ConfigKey>& keys,
                                    const std::string& file_name);
// As check_config, with the problems of one part; `path` ("engine.provider") stands in the texts.
void check_config_part(const YamlNode& node, const std::vector<ConfigKey>& keys,
                       const std::string& path, nlohmann::json& values,
                       std::vector<ConfigProblem>& problems, std::vector<ConfigProblem>& warnings);
Error config_error(const std::string& file_name, std::vector<ConfigProblem> problems);

// The reference page of a table, in Markdown.
std::string config_reference(const std::vector<ConfigKey>& keys, const std::string& path = "");
// The key of `known` nearest to `word` (edit distance at most 2, or a common prefix), if any.
std::optional<std::string> suggest(std::string_view word, const std::vector<std::string>& known);
// Seconds; kInvalidArgument names the text.
Result<double> parse_duration(std::string_view text);

}  // namespace farcall
