#include "staging/value.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

namespace farcall::staging {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "elements are read as little-endian");

std::optional<DType> parse_dtype(std::string_view text) {
  if (text.size() < 3 || std::string_view("<>|=").find(text[0]) == std::string_view::npos)
    return std::nullopt;
  DType type;
  type.text = text;
  type.kind = text[1];
  type.big_endian = text[0] == '>';
  std::uint64_t size = 0;
  std::size_t at = 2;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9' && size < (1U << 20); ++at)
    size = size * 10 + static_cast<std::uint64_t>(text[at] - '0');
  const bool dated = type.kind == 'M' || type.kind == 'm';
  if (at != text.size() && !(dated && text[at] == '[')) return std::nullopt;
  if (size == 0 || size >= (1U << 20)) return std::nullopt;
  if (type.kind == 'U') size *= 4;
  type.size = static_cast<std::uint32_t>(size);
  auto is_one_of = [&](std::initializer_list<std::uint64_t> sizes) {
    for (const std::uint64_t one : sizes)
      if (one == size) return true;
    return false;
  };
  const bool known = (type.kind == 'b' && size == 1) ||
                     ((type.kind == 'i' || type.kind == 'u') && is_one_of({1, 2, 4, 8})) ||
                     (type.kind == 'f' && is_one_of({2, 4, 8})) ||
                     (type.kind == 'c' && is_one_of({8, 16})) || type.kind == 'S' ||
                     type.kind == 'U' || (dated && size == 8);
  return known ? std::optional(type) : std::nullopt;
}

std::uint64_t Array::count() const {
  std::uint64_t n = 1;
  for (const std::uint64_t extent : shape) n *= extent;
  return n;
}

namespace {

template <class T>
T element(const Array& array, std::uint64_t index) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, array.data.data() + index * array.dtype.size, sizeof(T));
  if (array.dtype.big_endian) std::reverse(bytes, bytes + sizeof(T));
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

double from_half(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f, fraction = bits & 0x3ff;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return fraction == 0 ? sign * HUGE_VAL : std::nan("");
  return sign *
         (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(fraction + 1024, exponent - 25));
}

}  // namespace

std::optional<std::int64_t> element_as_int(const Array& array, std::uint64_t index) {
  const DType& type = array.dtype;
  if (type.kind == 'b') return element<std::uint8_t>(array, index) != 0;
  if (type.kind == 'i') {
    if (type.size == 1) return element<std::int8_t>(array, index);
    if (type.size == 2) return element<std::int16_t>(array, index);
    if (type.size == 4) return element<std::int32_t>(array, index);
    return element<std::int64_t>(array, index);
  }
  if (type.kind != 'u') return std::nullopt;
  if (type.size == 1) return element<std::uint8_t>(array, index);
  if (type.size == 2) return element<std::uint16_t>(array, index);
  if (type.size == 4) return element<std::uint32_t>(array, index);
  const auto wide = element<std::uint64_t>(array, index);
  if (wide > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
  return static_cast<std::int64_t>(wide);
}

std::optional<double> element_as_double(const Array& array, std::uint64_t index) {
  const DType& type = array.dtype;
  if (type.kind == 'f') {
    if (type.size == 2) return from_half(element<std::uint16_t>(array, index));
    if (type.size == 4) return element<float>(array, index);
    return element<double>(array, index);
  }
  if (type.kind == 'u' && type.size == 8)
    return static_cast<double>(element<std::uint64_t>(array, index));
  if (auto whole = element_as_int(array, index)) return static_cast<double>(*whole);
  return std::nullopt;
}

Value value_from_json(const json& from) {
  switch (from.type()) {
    case json::value_t::boolean:
      return {from.get<bool>()};
    case json::value_t::number_unsigned:
      if (from.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX))
        return {from.get<double>()};
      [[fallthrough]];
    case json::value_t::number_integer:
      return {from.get<std::int64_t>()};
    case json::value_t::number_float:
      return {from.get<double>()};
    case json::value_t::string:
      return {from.get<std::string>()};
    case json::value_t::array: {
      List list;
      for (const json& item : from) list.push_back(value_from_json(item));
      return {std::move(list)};
    }
    case json::value_t::object: {
      Dict dict;
      for (const auto& [key, item] : from.items()) dict.emplace_back(key, value_from_json(item));
      return {std::move(dict)};
    }
    default:
      return {};
  }
}

namespace {

json finite(double number) { return std::isfinite(number) ? json(number) : json(nullptr); }

std::optional<json> element_to_json(const Array& array, std::uint64_t index) {
  const DType& type = array.dtype;
  if (type.kind == 'b') return json(element<std::uint8_t>(array, index) != 0);
  if (type.kind == 'u' && type.size == 8) return json(element<std::uint64_t>(array, index));
  if (type.kind == 'i' || type.kind == 'u') return json(*element_as_int(array, index));
  if (type.kind == 'f') return finite(*element_as_double(array, index));
  return std::nullopt;
}

// The sub-array with the first `depth` indices fixed, its first element at `at`, which moves on.
std::optional<json> array_to_json(const Array& array, std::size_t depth, std::uint64_t& at) {
  if (depth == array.shape.size()) return element_to_json(array, at++);
  json list = json::array();
  for (std::uint64_t i = 0; i < array.shape[depth]; ++i) {
    auto item = array_to_json(array, depth + 1, at);
    if (!item) return std::nullopt;
    list.push_back(std::move(*item));
  }
  return list;
}

struct ToJson {
  std::optional<json> operator()(std::monostate) const { return json(nullptr); }
  std::optional<json> operator()(bool value) const { return json(value); }
  std::optional<json> operator()(std::int64_t value) const { return json(value); }
  std::optional<json> operator()(double value) const { return finite(value); }
  std::optional<json> operator()(const std::string& value) const { return json(value); }
  std::optional<json> operator()(const Binary&) const { return std::nullopt; }
  std::optional<json> operator()(const Opaque&) const { return std::nullopt; }
  std::optional<json> operator()(const Array& array) const {
    std::uint64_t at = 0;
    return array_to_json(array, 0, at);
  }
  std::optional<json> operator()(const List& list) const {
    json items = json::array();
    for (const Value& item : list) {
      auto one = value_to_json(item);
      if (!one) return std::nullopt;
      items.push_back(std::move(*one));
    }
    return items;
  }
  std::optional<json> operator()(const Dict& dict) const {
    json object = json::object();
    for (const auto& [key, item] : dict) {
      auto one = value_to_json(item);
      if (!one) return std::nullopt;
      object[key] = std::move(*one);
    }
    return object;
  }
};

Result<Value> decode_json(std::string_view text) {
  const json value = json::parse(text, nullptr, false);
  if (value.is_discarded())
    return fail(ErrorCode::kCorrupt, "a JSON value of {} bytes cannot be parsed", text.size());
  return value_from_json(value);
}

}  // namespace

std::optional<json> value_to_json(const Value& value) { return std::visit(ToJson{}, value.data); }

Result<Value> decode_value(std::string_view payload) {
  if (payload.empty()) return Value{};
  switch (payload[0]) {
    case 'J':
      return decode_json(payload.substr(1));
    case 'N':
      return decode_native(payload);
    case 'P':
      return decode_plain_pickle(payload.substr(1));
    case 'D':
      return Value{Opaque{}};
    default:
      return fail(ErrorCode::kCorrupt, "a value begins with byte 0x{:02x}, expected J, N, P or D",
                  static_cast<unsigned char>(payload[0]));
  }
}

Result<std::optional<Arguments>> decode_arguments(std::string_view payload) {
  auto value = decode_value(payload);
  if (!value) return fail(value.error());
  Arguments arguments;
  if (!payload.empty() && payload[0] == 'J') {
    auto* content = std::get_if<Dict>(&value->data);
    if (content == nullptr)
      return fail(ErrorCode::kCorrupt, "an argument set in JSON is no object");
    for (auto& [key, part] : *content) {
      if (auto* list = std::get_if<List>(&part.data); list != nullptr && key == "args")
        arguments.positional = std::move(*list);
      else if (auto* dict = std::get_if<Dict>(&part.data); dict != nullptr && key == "kwargs")
        arguments.named = std::move(*dict);
      else  // "argv", "stdin" … of a shell task
        arguments.named.emplace_back(key, std::move(part));
    }
    return std::optional(std::move(arguments));
  }
  auto* pair = std::get_if<List>(&value->data);
  if (pair == nullptr || pair->size() != 2) return std::optional<Arguments>();
  auto* positional = std::get_if<List>(&(*pair)[0].data);
  auto* named = std::get_if<Dict>(&(*pair)[1].data);
  if (positional == nullptr || named == nullptr) return std::optional<Arguments>();
  arguments.positional = std::move(*positional);
  arguments.named = std::move(*named);
  return std::optional(std::move(arguments));
}

}  // namespace farcall::staging
