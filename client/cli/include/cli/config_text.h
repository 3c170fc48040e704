// The commented config.yaml that `farcall endpoint configure` writes. Pure.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace farcall::cli {

// A YAML mapping that keeps order and comments.
class ConfigText {
 public:
  // Sets a scalar (or flow value such as [a, b]) at a dotted path; a new key goes to the end of its
  // mapping. kInvalidArgument when the path goes through a scalar or has an empty part.
  Result<void> set(std::string_view path, std::string_view value, std::string comment = "");
  std::string text() const;

 private:
  struct Node {
    std::string key;
    std::string value;
    std::string comment;  // lines in front of it
    std::vector<Node> children;
  };
  static void write(const Node& node, int depth, std::string& out);
  std::vector<Node> roots_;
};

// "engine.provider.partition=debug" -> its two parts.
Result<std::pair<std::string, std::string>> split_assignment(std::string_view text);
// As YAML: unchanged when it is a plain scalar or flow value there, else in double quotes.
std::string yaml_value(std::string_view value);
// What a new endpoint starts with. kInvalidArgument for a name that cannot be a folder's.
Result<ConfigText> default_config(const std::string& endpoint, const std::string& provider);

}  // namespace farcall::cli
