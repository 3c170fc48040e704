// The form with native arrays: 'N', three zero bytes, the length of the head, the head (JSON), then
// the buffers, each at a multiple of 16.
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "staging/value.h"

namespace farcall::staging {

using nlohmann::json;

namespace {

constexpr std::size_t kFixedBytes = kNativeFixedBytes;
constexpr int kDepthMax = 200;

std::uint64_t aligned(std::uint64_t offset) {
  return (offset + kNativeAlignment - 1) & ~(kNativeAlignment - 1);
}

tl::unexpected<Error> damaged(std::string_view what) {
  return fail(ErrorCode::kCorrupt, "a value with native arrays is damaged: {}", what);
}

class Reader {
 public:
  Result<Value> read(std::string_view payload) {
    if (payload.size() < kFixedBytes || payload[0] != 'N') return damaged("it is cut off");
    std::uint32_t head_size = 0;
    std::memcpy(&head_size, payload.data() + 4, sizeof(head_size));
    if (head_size > payload.size() - kFixedBytes) return damaged("its head is cut off");
    auto head = read_head(payload.substr(kFixedBytes, head_size), &payload);
    if (!head) return fail(head.error());
    return std::move(head->value);
  }

  // `payload`: where the buffers are; null: they are elsewhere.
  Result<NativeHead> read_head(std::string_view text, const std::string_view* payload) {
    const json head = json::parse(text, nullptr, false);
    if (!head.is_object() || !head.contains("value") || !head.contains("arrays") ||
        !head.contains("sizes"))
      return damaged("its head is not JSON with value, arrays and sizes");
    try {
      auto sizes = head["sizes"].get<std::vector<std::uint64_t>>();
      if (auto read = read_arrays(head["arrays"], sizes, kFixedBytes + text.size(), payload); !read)
        return fail(read.error());
      auto value = value_of(head["value"], 0);
      if (!value) return fail(value.error());
      return NativeHead{std::move(*value), std::move(arrays_), std::move(sizes)};
    } catch (const json::exception& error) {
      return damaged(error.what());
    }
  }

 private:
  Result<void> read_arrays(const json& types, const std::vector<std::uint64_t>& sizes,
                           std::uint64_t at, const std::string_view* payload) {
    for (std::size_t index = 0; index < sizes.size(); ++index) {
      const std::uint64_t size = sizes[index];
      at = aligned(at);
      if (payload != nullptr && (at > payload->size() || size > payload->size() - at))
        return damaged(fmt::format("buffer {} of {} bytes is cut off", index, size));
      if (index < types.size()) {
        auto array = array_of(types[index], size);
        if (!array) return fail(array.error());
        array->buffer = index;
        if (payload != nullptr) array->data = payload->substr(at, size);
        arrays_.push_back(std::move(*array));
      }
      at += size;
    }
    if (arrays_.size() != types.size()) return damaged("there are fewer buffers than arrays");
    return {};
  }

  static Result<Array> array_of(const json& description, std::uint64_t size) {
    const auto name = description.at(0).get<std::string>();
    auto type = parse_dtype(name);
    if (!type) return damaged(fmt::format("the element type \"{}\" is not known", name));
    Array array{*type, description.at(1).get<std::vector<std::uint64_t>>(), {}};
    std::uint64_t bytes = type->size;
    for (const std::uint64_t extent : array.shape)
      if (__builtin_mul_overflow(bytes, extent, &bytes)) return damaged("a shape is too large");
    if (bytes != size)
      return damaged(fmt::format("an array of {} bytes by its shape has {} bytes", bytes, size));
    return array;
  }

  Result<Value> value_of(const json& node, int depth) {
    if (depth > kDepthMax) return damaged("it is nested too deeply");
    if (node.is_array()) return list_of(node, depth);
    if (!node.is_object()) return value_from_json(node);
    if (node.size() == 1 && node.begin().key().starts_with('$'))
      return marked(node.begin().key(), node.begin().value(), depth);
    Dict dict;
    for (const auto& [key, item] : node.items()) {
      auto value = value_of(item, depth + 1);
      if (!value) return value;
      dict.emplace_back(key, std::move(*value));
    }
    return Value{std::move(dict)};
  }

  Result<Value> list_of(const json& node, int depth) {
    List list;
    for (const json& item : node) {
      auto value = value_of(item, depth + 1);
      if (!value) return value;
      list.push_back(std::move(*value));
    }
    return Value{std::move(list)};
  }

  Result<Value> marked(const std::string& mark, const json& content, int depth) {
    if (mark == "$t") return list_of(content, depth);
    if (mark == "$f") return Value{number_of(content)};
    if (mark == "$p") return Value{Opaque{}};
    if (mark == "$n") return scalar_of(content);
    if (mark == "$d") return pairs_of(content, depth);
    if (mark == "$frame") return frame_of(content, depth);
    if (mark != "$a" && mark != "$b") return damaged(fmt::format("the mark \"{}\"", mark));
    const auto index = content.get<std::size_t>();
    if (index >= arrays_.size()) return damaged(fmt::format("there is no array {}", index));
    if (mark == "$b") return Value{Binary{arrays_[index].data, index}};
    return Value{arrays_[index]};
  }

  static double number_of(const json& content) {
    if (content.is_number()) return content.get<double>();
    const auto name = content.get<std::string>();
    if (name == "nan") return std::numeric_limits<double>::quiet_NaN();
    return name == "-inf" ? -HUGE_VAL : HUGE_VAL;
  }

  // A numpy scalar: for those who read it here, as good as Python's own.
  static Result<Value> scalar_of(const json& content) {
    const auto type = parse_dtype(content.at(0).get<std::string>());
    const json& value = content.at(1);
    if (!type) return damaged("a scalar of an unknown type");
    if (type->kind == 'b') return Value{value.get<bool>()};
    if (type->kind == 'f') return Value{number_of(value)};
    return value_from_json(value);
  }

  Result<Value> pairs_of(const json& content, int depth) {
    Dict dict;
    for (const json& pair : content) {
      auto key = value_of(pair.at(0), depth + 1);
      auto value = value_of(pair.at(1), depth + 1);
      if (!key || !value) return damaged("a dict cannot be read");
      std::string text;
      if (const auto* name = key->as<std::string>())
        text = *name;
      else if (const auto shown = value_to_json(*key))
        text = shown->dump();
      else
        return Value{Opaque{}};
      dict.emplace_back(std::move(text), std::move(*value));
    }
    return Value{std::move(dict)};
  }

  // A pandas frame: its columns by name, and its index unless that only counts.
  Result<Value> frame_of(const json& content, int depth) {
    Dict dict;
    const auto add = [&](const std::string& name, const json& node) -> Result<void> {
      auto column = value_of(node, depth + 1);
      if (!column) return fail(column.error());
      dict.emplace_back(name, std::move(*column));
      return {};
    };
    if (content.at("index").is_object() || content.at("index").at(0).is_string())
      if (auto added = add("(index)", content.at("index")); !added) return fail(added.error());
    for (const json& column : content.at("columns"))
      if (auto added = add(column.at(0).get<std::string>(), column.at(1)); !added)
        return fail(added.error());
    return Value{std::move(dict)};
  }

  std::vector<Array> arrays_;
};

}  // namespace

Result<Value> decode_native(std::string_view payload) { return Reader().read(payload); }
Result<NativeHead> decode_native_head(std::string_view head) {
  return Reader().read_head(head, nullptr);
}

}  // namespace farcall::staging
