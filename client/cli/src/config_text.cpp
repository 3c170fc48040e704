#include "cli/config_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/config.h"

namespace farcall::cli {

Result<void> ConfigText::set(std::string_view path, std::string_view value, std::string comment) {
  std::vector<Node>* level = &roots_;
  std::string_view left = path;
  while (true) {
    const std::size_t dot = left.find('.');
    const std::string key(left.substr(0, dot));
    if (key.empty())
      return fail(ErrorCode::kInvalidArgument,
                  "\"{}\" is no path of keys such as "
                  "engine.provider.partition",
                  path);
    auto found = std::find_if(level->begin(), level->end(),
                              [&](const Node& node) { return node.key == key; });
    if (found == level->end()) found = level->insert(level->end(), Node{key, "", "", {}});
    if (dot == left.npos) {
      if (!found->children.empty())
        return fail(ErrorCode::kInvalidArgument, "{} holds further keys ({}.{}, …), not a value",
                    path, path, found->children.front().key);
      found->value = value;
      if (!comment.empty()) found->comment = std::move(comment);
      return {};
    }
    if (!found->value.empty())
      return fail(ErrorCode::kInvalidArgument, "{} holds the value {}, no further keys",
                  path.substr(0, path.size() - left.size() + dot), found->value);
    level = &found->children;
    left.remove_prefix(dot + 1);
  }
}

void ConfigText::write(const Node& node, int depth, std::string& out) {
  const std::string indent(static_cast<std::size_t>(depth) * 2, ' ');
  std::string_view comment = node.comment;
  while (!comment.empty()) {
    const std::size_t end = std::min(comment.find('\n'), comment.size());
    out += indent + "# " + std::string(comment.substr(0, end)) + "\n";
    comment.remove_prefix(std::min(end + 1, comment.size()));
  }
  out += indent + node.key + ":";
  if (node.children.empty()) out += " " + yaml_value(node.value);
  out += "\n";
  for (const Node& child : node.children) write(child, depth + 1, out);
}

std::string ConfigText::text() const {
  std::string out;
  for (const Node& node : roots_) {
    if (!out.empty()) out += "\n";
    write(node, 0, out);
  }
  return out;
}

Result<std::pair<std::string, std::string>> split_assignment(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == text.npos || equals == 0)
    return fail(ErrorCode::kInvalidArgument,
                "\"{}\": expected KEY=VALUE, such as engine.provider.partition=debug", text);
  return std::pair{std::string(text.substr(0, equals)), std::string(text.substr(equals + 1))};
}

std::string yaml_value(std::string_view value) {
  if (value.empty()) return "\"\"";
  const bool flow = value[0] == '[' || value[0] == '{' || value[0] == '"';
  if (value.find('\n') == value.npos) {
    auto parsed = parse_yaml("k: " + std::string(value), "value");
    const YamlNode* node = parsed ? parsed->find("k") : nullptr;
    if (node && (flow || (node->kind == YamlNode::Kind::kScalar && node->scalar == value)))
      return std::string(value);
  }
  return nlohmann::json(std::string(value)).dump();
}

Result<ConfigText> default_config(const std::string& endpoint, const std::string& provider) {
  const bool bad = endpoint.empty() || endpoint.size() > 128 || endpoint[0] == '.' ||
                   endpoint[0] == '-' || endpoint.find_first_of("/\\\"'` \t\n") != endpoint.npos;
  if (bad)
    return fail(ErrorCode::kInvalidArgument,
                "\"{}\" cannot be an endpoint's name: up to 128 characters without blanks, quotes "
                "and slashes, not beginning with a dot or dash",
                endpoint);
  const bool slurm = provider == "slurm" || provider == "SlurmProvider";
  const bool local = provider == "local" || provider == "LocalProvider";
  const bool pbs = provider == "pbs" || provider == "pbspro" || provider == "PBSProProvider";
  ConfigText config;
  std::vector<std::array<std::string, 3>> lines = {
      {"display_name", endpoint, "What this endpoint is called in lists."},
      {"engine.provider.type",
       slurm   ? "SlurmProvider"
       : local ? "LocalProvider"
       : pbs   ? "PBSProProvider"
               : provider,
       "Where nodes come from: LocalProvider (this host), SlurmProvider, PBSProProvider, or a "
       "module "
       "of your own."},
  };
  if (slurm || pbs) {
    lines.push_back({"engine.provider.walltime", "\"01:00:00\"", "Of one batch job, HH:MM:SS."});
    lines.push_back({"engine.provider.nodes_per_block", "1", "Nodes of one batch job."});
  }
  lines.push_back({"engine.provider.init_blocks", "0", "Blocks that are started at once."});
  lines.push_back({"engine.provider.min_blocks", "0", "Blocks that are kept when idle."});
  lines.push_back({"engine.provider.max_blocks", "1", "Never more blocks than this."});
  for (const auto& [path, value, comment] : lines)
    if (auto done = config.set(path, value, comment); !done) return fail(done.error());
  return config;
}

}  // namespace farcall::cli
