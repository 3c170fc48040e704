#include "base/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace farcall {

namespace {

using nlohmann::json;

std::string_view type_text(KeyType type) {
  switch (type) {
    case KeyType::kString:
      return "a text";
    case KeyType::kInteger:
      return "a whole number";
    case KeyType::kNumber:
      return "a number";
    case KeyType::kBool:
      return "true or false";
    case KeyType::kDuration:
      return "a duration such as 90, 30s, 10m, 1.5h or 00:10:00";
    case KeyType::kStringList:
      return "a list of texts";
    case KeyType::kStringMap:
      return "a map of texts";
    case KeyType::kMap:
      return "a map";
  }
  return "";
}

std::string found_text(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kScalar:
      return "'" + node.scalar + "'";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMapping:
      return "a map";
  }
  return "";
}

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    return std::nullopt;
  return value;
}

std::optional<bool> parse_bool(const std::string& text) {
  for (const char* yes : {"true", "True", "yes", "on"})
    if (text == yes) return true;
  for (const char* no : {"false", "False", "no", "off"})
    if (text == no) return false;
  return std::nullopt;
}

// One table against one mapping; collects instead of stopping.
class Checker {
 public:
  Checker(std::vector<ConfigProblem>& problems, std::vector<ConfigProblem>& warnings)
      : problems_(problems), warnings_(warnings) {}

  void map(const YamlNode& node, const std::vector<ConfigKey>& keys, const std::string& path,
           json& values) {
    if (!values.is_object()) values = json::object();
    if (node.kind != YamlNode::Kind::kMapping && node.kind != YamlNode::Kind::kNull) {
      problem(node, fmt::format("{} is {}, expected a map", path.empty() ? "the file" : path,
                                found_text(node)));
      return;
    }
    for (const auto& [name, value] : node.entries) entry(name, value, keys, path, values);
    for (const ConfigKey& key : keys) {
      if (values.contains(key.name)) continue;
      if (key.required && node.find(key.name) == nullptr)
        problem(node, fmt::format("the key '{}' is missing: {}", join(path, key.name), key.help));
      if (key.type == KeyType::kMap && !key.keys.empty() && key.default_value.is_null()) {
        map(YamlNode{}, optional_only(key.keys), join(path, key.name), values[key.name]);
      } else {
        values[key.name] = key.default_value;
      }
    }
  }

 private:
  static std::string join(const std::string& path, const std::string& name) {
    return path.empty() ? name : path + "." + name;
  }
  // A map that is absent as a whole is not also accused of each key that it lacks.
  static std::vector<ConfigKey> optional_only(std::vector<ConfigKey> keys) {
    for (ConfigKey& key : keys) key.required = false;
    return keys;
  }
  void problem(const YamlNode& node, std::string text) {
    problems_.push_back({node.line, node.column, std::move(text)});
  }

  void entry(const YamlNode& name, const YamlNode& value, const std::vector<ConfigKey>& keys,
             const std::string& path, json& values) {
    auto key = std::find_if(keys.begin(), keys.end(),
                            [&](const ConfigKey& k) { return k.name == name.scalar; });
    const std::string full = join(path, name.scalar);
    if (key == keys.end()) {
      std::vector<std::string> known;
      for (const ConfigKey& k : keys) known.push_back(k.name);
      auto nearest = suggest(name.scalar, known);
      problem(name, fmt::format("unknown key '{}'{}", full,
                                nearest ? fmt::format("; did you mean '{}'?", join(path, *nearest))
                                        : std::string()));
      return;
    }
    if (key->ignored)
      warnings_.push_back({name.line, name.column,
                           fmt::format("the key '{}' has no meaning here and is ignored{}", full,
                                       key->help.empty() ? "" : ": " + key->help)});
    if (value.kind == YamlNode::Kind::kNull) {
      if (key->required) problem(value, fmt::format("'{}' has no value: {}", full, key->help));
      if (key->type != KeyType::kMap) values[key->name] = key->default_value;
      return;
    }
    if (key->ignored) {
      values[key->name] = key->default_value;
      return;
    }
    this->value(value, *key, full, values[key->name]);
  }

  void value(const YamlNode& node, const ConfigKey& key, const std::string& full, json& out) {
    out = key.default_value;  // also when it is wrong, so that later checks see a whole config
    switch (key.type) {
      case KeyType::kMap:
        if (key.keys.empty()) {
          out = plain(node);
        } else {
          map(node, key.keys, full, out);
        }
        return;
      case KeyType::kStringList:
        if (node.kind == YamlNode::Kind::kScalar) {
          out = json::array({node.scalar});
        } else if (node.kind == YamlNode::Kind::kSequence &&
                   std::all_of(node.items.begin(), node.items.end(), is_scalar)) {
          out = json::array();
          for (const YamlNode& item : node.items) out.push_back(item.scalar);
        } else {
          wrong(node, key, full);
        }
        return;
      case KeyType::kStringMap:
        if (node.kind != YamlNode::Kind::kMapping ||
            !std::all_of(node.entries.begin(), node.entries.end(),
                         [](const auto& e) { return is_scalar(e.second); })) {
          wrong(node, key, full);
          return;
        }
        out = json::object();
        for (const auto& [name, item] : node.entries) out[name.scalar] = item.scalar;
        return;
      default:
        if (node.kind != YamlNode::Kind::kScalar) {
          wrong(node, key, full);
        } else {
          scalar(node, key, full, out);
        }
    }
  }

  static bool is_scalar(const YamlNode& node) {
    return node.kind == YamlNode::Kind::kScalar || node.kind == YamlNode::Kind::kNull;
  }
  static json plain(const YamlNode& node) {
    if (node.kind == YamlNode::Kind::kSequence) {
      json list = json::array();
      for (const YamlNode& item : node.items) list.push_back(plain(item));
      return list;
    }
    if (node.kind == YamlNode::Kind::kMapping) {
      json object = json::object();
      for (const auto& [name, item] : node.entries) object[name.scalar] = plain(item);
      return object;
    }
    if (node.kind == YamlNode::Kind::kNull) return nullptr;
    if (!node.quoted) {
      if (auto flag = parse_bool(node.scalar)) return *flag;
      if (auto number = parse_number(node.scalar)) {
        if (*number == std::floor(*number) && std::abs(*number) < 1e15)
          return static_cast<std::int64_t>(*number);
        return *number;
      }
    }
    return node.scalar;
  }

  void wrong(const YamlNode& node, const ConfigKey& key, const std::string& full) {
    problem(node,
            fmt::format("'{}' is {}, expected {}", full, found_text(node), type_text(key.type)));
  }

  void scalar(const YamlNode& node, const ConfigKey& key, const std::string& full, json& out) {
    if (key.type == KeyType::kString) {
      if (!key.choices.empty() &&
          std::find(key.choices.begin(), key.choices.end(), node.scalar) == key.choices.end()) {
        auto nearest = suggest(node.scalar, key.choices);
        problem(node, fmt::format("'{}' is '{}', expected one of {}{}", full, node.scalar,
                                  fmt::join(key.choices, ", "),
                                  nearest ? fmt::format("; did you mean '{}'?", *nearest) : ""));
        return;
      }
      out = node.scalar;
      return;
    }
    if (key.type == KeyType::kBool) {
      if (auto flag = parse_bool(node.scalar)) {
        out = *flag;
      } else {
        wrong(node, key, full);
      }
      return;
    }
    std::optional<double> number;
    if (key.type == KeyType::kDuration) {
      if (auto seconds = parse_duration(node.scalar)) number = *seconds;
    } else {
      number = parse_number(node.scalar);
    }
    const bool whole = number && *number == std::floor(*number) && std::abs(*number) < 9e15;
    if (!number || (key.type == KeyType::kInteger && !whole)) {
      wrong(node, key, full);
      return;
    }
    if ((key.minimum && *number < *key.minimum) || (key.maximum && *number > *key.maximum)) {
      problem(node, fmt::format("'{}' is {}, expected {}", full, node.scalar, bounds(key)));
      return;
    }
    if (key.type == KeyType::kInteger) {
      out = static_cast<std::int64_t>(*number);
    } else {
      out = *number;
    }
  }

  static std::string bounds(const ConfigKey& key) {
    const std::string unit = key.unit.empty() ? "" : " " + key.unit;
    if (key.minimum && key.maximum)
      return fmt::format("{} to {}{}", *key.minimum, *key.maximum, unit);
    return key.minimum ? fmt::format("{}{} or more", *key.minimum, unit)
                       : fmt::format("{}{} or less", *key.maximum, unit);
  }

  std::vector<ConfigProblem>& problems_;
  std::vector<ConfigProblem>& warnings_;
};

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace

std::optional<std::string> suggest(std::string_view word, const std::vector<std::string>& known) {
  const std::string* best = nullptr;
  std::size_t best_distance = 3;
  for (const std::string& candidate : known) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance && distance < candidate.size()) {
      best = &candidate;
      best_distance = distance;
    }
  }
  if (best != nullptr) return *best;
  for (const std::string& candidate : known)
    if (word.size() >= 3 && (candidate.starts_with(word) || word.starts_with(candidate)))
      return candidate;
  return std::nullopt;
}

Result<double> parse_duration(std::string_view text) {
  auto bad = [&] {
    return fail(ErrorCode::kInvalidArgument, "'{}' is no duration: expected {}", text,
                "seconds, or a number with s, m, h or d, or HH:MM:SS");
  };
  if (text.empty()) return bad();
  if (text.find(':') != std::string_view::npos) {
    // [D-]HH:MM:SS or MM:SS, as Slurm and PBS write it.
    double days = 0, total = 0;
    if (const auto dash = text.find('-'); dash != std::string_view::npos) {
      auto value = parse_number(text.substr(0, dash));
      if (!value) return bad();
      days = *value;
      text.remove_prefix(dash + 1);
    }
    for (int parts = 0; parts < 3; ++parts) {
      const auto colon = text.find(':');
      auto value = parse_number(text.substr(0, colon));
      if (!value || *value < 0) return bad();
      total = total * 60 + *value;
      if (colon == std::string_view::npos) return days * 86400 + total;
      text.remove_prefix(colon + 1);
    }
    return bad();
  }
  double factor = 1;
  switch (text.back()) {
    case 's':
      factor = 1;
      break;
    case 'm':
      factor = 60;
      break;
    case 'h':
      factor = 3600;
      break;
    case 'd':
      factor = 86400;
      break;
    default:
      factor = 0;
  }
  auto value = parse_number(factor == 0 ? text : text.substr(0, text.size() - 1));
  if (!value || *value < 0) return bad();
  return *value * (factor == 0 ? 1 : factor);
}

void check_config_part(const YamlNode& node, const std::vector<ConfigKey>& keys,
                       const std::string& path, nlohmann::json& values,
                       std::vector<ConfigProblem>& problems, std::vector<ConfigProblem>& warnings) {
  Checker(problems, warnings).map(node, keys, path, values);
}

Error config_error(const std::string& file_name, std::vector<ConfigProblem> problems) {
  std::stable_sort(problems.begin(), problems.end(),
                   [](const ConfigProblem& a, const ConfigProblem& b) {
                     return std::pair(a.line, a.column) < std::pair(b.line, b.column);
                   });
  std::string text;
  for (const ConfigProblem& problem : problems)
    text += fmt::format("{}{}:{}:{}: {}", text.empty() ? "" : "\n", file_name, problem.line,
                        problem.column, problem.text);
  return {ErrorCode::kConfig, text};
}

Result<ConfigDocument> check_config(const YamlNode& root, const std::vector<ConfigKey>& keys,
                                    const std::string& file_name) {
  ConfigDocument document;
  std::vector<ConfigProblem> problems;
  check_config_part(root, keys, "", document.values, problems, document.warnings);
  if (!problems.empty()) return fail(config_error(file_name, std::move(problems)));
  return document;
}

std::string config_reference(const std::vector<ConfigKey>& keys, const std::string& path) {
  std::string text = "| key | type | default | bounds | meaning |\n|---|---|---|---|---|\n", below;
  for (const ConfigKey& key : keys) {
    const std::string full = path.empty() ? key.name : path + "." + key.name;
    std::string limits = key.choices.empty() ? "" : fmt::format("{}", fmt::join(key.choices, ", "));
    if (key.minimum) limits += fmt::format("from {}", *key.minimum);
    if (key.maximum) limits += fmt::format("{}to {}", key.minimum ? " " : "", *key.maximum);
    text += fmt::format("| `{}` | {}{} | {} | {} | {}{} |\n", full, type_text(key.type),
                        key.unit.empty() ? "" : ", " + key.unit,
                        key.default_value.is_null() ? (key.required ? "required" : "none")
                                                    : "`" + key.default_value.dump() + "`",
                        limits, key.ignored ? "(accepted, no meaning here) " : "", key.help);
    if (!key.keys.empty())
      below += fmt::format("\n### `{}`\n\n{}", full, config_reference(key.keys, full));
  }
  return text + below;
}

}  // namespace farcall
