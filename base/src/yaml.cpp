// libyaml's events as a tree that remembers where each node stands.
#include <yaml.h>

#include <memory>

#include "base/config.h"

namespace farcall {

const YamlNode* YamlNode::find(std::string_view key) const {
  for (const auto& [name, value] : entries)
    if (name.scalar == key) return &value;
  return nullptr;
}

namespace {

constexpr int kDepthMax = 64;

class TreeParser {
 public:
  TreeParser(std::string_view text, const std::string& file_name) : file_name_(file_name) {
    FARCALL_CHECK(yaml_parser_initialize(&parser_) == 1, "libyaml cannot start");
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()),
                                 text.size());
  }
  ~TreeParser() {
    yaml_event_delete(&event_);
    yaml_parser_delete(&parser_);
  }
  TreeParser(const TreeParser&) = delete;

  Result<YamlNode> parse() {
    YamlNode root;
    root.line = root.column = 1;
    while (true) {
      if (auto ok = next(); !ok) return fail(ok.error());
      switch (event_.type) {
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
          break;
        case YAML_STREAM_END_EVENT:
          return root;
        default: {
          if (seen_) return problem(event_.start_mark, "a second document; expected one");
          seen_ = true;
          auto node = read_node(0);
          if (!node) return node;
          root = std::move(*node);
        }
      }
    }
  }

 private:
  tl::unexpected<Error> problem(const yaml_mark_t& mark, const std::string& text) {
    return fail(ErrorCode::kConfig, "{}:{}:{}: {}", file_name_, mark.line + 1, mark.column + 1,
                text);
  }
  Result<void> next() {
    yaml_event_delete(&event_);
    if (yaml_parser_parse(&parser_, &event_) == 1) return {};
    event_.type = YAML_NO_EVENT;
    return problem(parser_.problem_mark,
                   std::string("not valid YAML: ") +
                       (parser_.problem != nullptr ? parser_.problem : "unreadable"));
  }
  // From the current event.
  Result<YamlNode> read_node(int depth) {
    YamlNode node;
    node.line = static_cast<int>(event_.start_mark.line) + 1;
    node.column = static_cast<int>(event_.start_mark.column) + 1;
    if (depth > kDepthMax) return problem(event_.start_mark, "nested too deeply");
    switch (event_.type) {
      case YAML_SCALAR_EVENT: {
        const auto& scalar = event_.data.scalar;
        node.scalar.assign(reinterpret_cast<const char*>(scalar.value), scalar.length);
        node.quoted = scalar.style != YAML_PLAIN_SCALAR_STYLE;
        const bool empty = !node.quoted && (node.scalar.empty() || node.scalar == "~" ||
                                            node.scalar == "null" || node.scalar == "Null");
        node.kind = empty ? YamlNode::Kind::kNull : YamlNode::Kind::kScalar;
        return node;
      }
      case YAML_SEQUENCE_START_EVENT:
        return read_sequence(std::move(node), depth);
      case YAML_MAPPING_START_EVENT:
        return read_mapping(std::move(node), depth);
      case YAML_ALIAS_EVENT:
        return problem(event_.start_mark, "aliases (*name) are not supported here");
      default:
        return problem(event_.start_mark, "unexpected YAML");
    }
  }
  Result<YamlNode> read_sequence(YamlNode node, int depth) {
    node.kind = YamlNode::Kind::kSequence;
    while (true) {
      if (auto ok = next(); !ok) return fail(ok.error());
      if (event_.type == YAML_SEQUENCE_END_EVENT) return node;
      auto item = read_node(depth + 1);
      if (!item) return item;
      node.items.push_back(std::move(*item));
    }
  }
  Result<YamlNode> read_mapping(YamlNode node, int depth) {
    node.kind = YamlNode::Kind::kMapping;
    while (true) {
      if (auto ok = next(); !ok) return fail(ok.error());
      if (event_.type == YAML_MAPPING_END_EVENT) return node;
      const yaml_mark_t mark = event_.start_mark;
      auto key = read_node(depth + 1);
      if (!key) return key;
      if (key->kind != YamlNode::Kind::kScalar) return problem(mark, "a key must be a plain word");
      if (const YamlNode* earlier = node.find(key->scalar))
        return problem(mark, fmt::format("the key '{}' stands here a second time, first in line {}",
                                         key->scalar, earlier->line));
      if (auto ok = next(); !ok) return fail(ok.error());
      auto value = read_node(depth + 1);
      if (!value) return value;
      node.entries.emplace_back(std::move(*key), std::move(*value));
    }
  }

  std::string file_name_;
  yaml_parser_t parser_{};
  yaml_event_t event_{};
  bool seen_ = false;
};

}  // namespace

Result<YamlNode> parse_yaml(std::string_view text, const std::string& file_name) {
  return TreeParser(text, file_name).parse();
}

}  // namespace farcall
