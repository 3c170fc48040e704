#include "staging/flatten.h"

#include <fmt/ranges.h>

#include <cstring>
#include <nlohmann/json.hpp>

namespace farcall::staging {

namespace {

// A longer list of things that differ is one JSON text and not as many arrays.
constexpr std::size_t kItemsMax = 64;
const DType kFloatType = *parse_dtype("<f8"), kIntType = *parse_dtype("<i8"),
            kBoolType = *parse_dtype("|b1");

// What a rectangular list is made of.
enum class Kind { kNone, kBool, kInt, kFloat, kText, kArray, kMixed };

Kind kind_of(const Value& value) {
  if (value.as<bool>() != nullptr) return Kind::kBool;
  if (value.as<std::int64_t>() != nullptr) return Kind::kInt;
  if (value.as<double>() != nullptr) return Kind::kFloat;
  if (value.as<std::string>() != nullptr) return Kind::kText;
  if (const auto* array = value.as<Array>())
    return array->dtype.kind == 'U' ? Kind::kMixed : Kind::kArray;
  return Kind::kMixed;
}

Kind together(Kind a, Kind b) {
  if (a == Kind::kNone || a == b) return b;
  const bool numbers =
      (a == Kind::kInt && b == Kind::kFloat) || (a == Kind::kFloat && b == Kind::kInt);
  return numbers ? Kind::kFloat : Kind::kMixed;
}

// The shape of a list and the kind of its elements; kMixed when it is not rectangular.
struct Survey {
  std::vector<std::uint64_t> shape;
  Kind kind = Kind::kNone;
  const Array* first = nullptr;

  void look(const List& list, std::size_t depth) {
    if (depth == shape.size()) {
      if (kind != Kind::kNone) return fail();  // elements were met at a lesser depth
      shape.push_back(list.size());
    } else if (shape[depth] != list.size()) {
      return fail();
    }
    for (const Value& item : list) {
      if (kind == Kind::kMixed) return;
      if (const auto* inner = item.as<List>()) {
        if (kind != Kind::kNone && depth + 1 == shape.size()) return fail();
        look(*inner, depth + 1);
        continue;
      }
      if (depth + 1 != shape.size()) return fail();
      kind = together(kind, kind_of(item));
      if (const auto* array = item.as<Array>()) {
        if (first == nullptr) first = array;
        if (!(first->dtype == array->dtype) || first->shape != array->shape) return fail();
      }
    }
  }
  void fail() { kind = Kind::kMixed; }
};

void append_element(const Value& value, Kind kind, std::string& bytes,
                    std::vector<std::string>& texts) {
  auto put = [&](const auto& number) {
    bytes.append(reinterpret_cast<const char*>(&number), sizeof(number));
  };
  if (const auto* list = value.as<List>()) {
    for (const Value& item : *list) append_element(item, kind, bytes, texts);
  } else if (const auto* text = value.as<std::string>()) {
    texts.push_back(*text);
  } else if (const auto* array = value.as<Array>()) {
    bytes.append(array->data);
  } else if (const auto* flag = value.as<bool>()) {
    put(static_cast<std::uint8_t>(*flag));
  } else if (const auto* real = value.as<double>()) {
    put(*real);
  } else if (const auto* whole = value.as<std::int64_t>()) {
    if (kind == Kind::kFloat)
      put(static_cast<double>(*whole));
    else
      put(*whole);
  }
}

void append_utf8(std::uint32_t code, std::string& text) {
  auto add = [&](std::uint32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xc0 | (code >> 6));
    add(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    add(0xe0 | (code >> 12));
    add(0x80 | ((code >> 6) & 0x3f));
    add(0x80 | (code & 0x3f));
  } else {
    add(0xf0 | (code >> 18));
    add(0x80 | ((code >> 12) & 0x3f));
    add(0x80 | ((code >> 6) & 0x3f));
    add(0x80 | (code & 0x3f));
  }
}

// numpy's text arrays: four bytes for each character, padded with zeros.
std::vector<std::string> texts_of(const Array& array) {
  std::vector<std::string> texts(array.count());
  const std::size_t characters = array.dtype.size / 4;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const char* at = array.data.data() + i * array.dtype.size;
    for (std::size_t c = 0; c < characters; ++c) {
      std::uint32_t code = 0;
      std::memcpy(&code, at + 4 * c, 4);
      if (array.dtype.big_endian) code = __builtin_bswap32(code);
      if (code == 0) break;
      append_utf8(code, texts[i]);
    }
  }
  return texts;
}

class Flattener {
 public:
  explicit Flattener(Flat& out) : out_(out) {}

  void add(const Value& value, const std::string& path) {
    const std::string named = path.empty() ? "value" : path;
    if (const auto* dict = value.as<Dict>()) {
      for (const auto& [key, item] : *dict)
        add(item, (path.empty() ? "" : path + "/") + path_part(key));
    } else if (const auto* list = value.as<List>()) {
      add_list(*list, value, named);
    } else if (const auto* array = value.as<Array>()) {
      add_array(*array, named);
    } else if (const auto* binary = value.as<Binary>()) {
      out_.binaries.emplace_back(named, binary->data);
    } else if (value.as<Opaque>() != nullptr) {
      out_.opaque = true;
    } else if (const Kind kind = kind_of(value); kind != Kind::kMixed) {
      add_elements(value, kind, {}, nullptr, named);
    }
  }

 private:
  void add_list(const List& list, const Value& value, const std::string& path) {
    Survey survey;
    survey.look(list, 0);
    if (survey.kind == Kind::kNone) survey.kind = Kind::kFloat;  // no element at all
    if (survey.kind != Kind::kMixed)
      return add_elements(value, survey.kind, survey.shape, survey.first, path);
    if (list.size() > kItemsMax) return add_as_json(value, path);
    for (std::size_t i = 0; i < list.size(); ++i) add(list[i], path + "/" + std::to_string(i));
  }

  void add_as_json(const Value& value, const std::string& path) {
    const auto shown = value_to_json(value);
    if (!shown) {
      out_.opaque = true;
      return;
    }
    const std::string text = shown->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    add_elements(Value{text}, Kind::kText, {}, nullptr, path);
  }

  void add_array(const Array& array, const std::string& path) {
    Leaf leaf;
    leaf.path = path;
    leaf.array = array;
    if (array.dtype.kind == 'U') {
      leaf.text = true;
      leaf.texts = texts_of(array);
      leaf.array.data = {};
    }
    out_.leaves.push_back(std::move(leaf));
  }

  void add_elements(const Value& value, Kind kind, std::vector<std::uint64_t> shape,
                    const Array* inner, const std::string& path) {
    Leaf leaf;
    leaf.path = path;
    leaf.text = kind == Kind::kText;
    auto bytes = std::make_shared<std::string>();
    append_element(value, kind, *bytes, leaf.texts);
    if (inner != nullptr) shape.insert(shape.end(), inner->shape.begin(), inner->shape.end());
    leaf.array.dtype = kind == Kind::kArray  ? inner->dtype
                       : kind == Kind::kBool ? kBoolType
                       : kind == Kind::kInt  ? kIntType
                                             : kFloatType;
    leaf.array.shape = std::move(shape);
    leaf.array.data = *bytes;
    leaf.owned = std::move(bytes);
    out_.leaves.push_back(std::move(leaf));
  }

  Flat& out_;
};

}  // namespace

std::string Leaf::signature() const {
  return fmt::format("{}[{}]", text ? "text" : array.dtype.text, fmt::join(shape(), ","));
}

std::string path_part(std::string_view name) {
  if (name.empty()) return "%";
  if (name == "." || name == "..") return name.size() == 1 ? "%2E" : "%2E%2E";
  std::string part;
  for (const char c : name) {
    if (c == '/')
      part += "%2F";
    else if (c == '%')
      part += "%25";
    else if (c == '\0')
      part += "%00";
    else
      part += c;
  }
  return part;
}

Flat flatten(const Value& value, const std::string& root) {
  Flat flat;
  Flattener(flat).add(value, root);
  return flat;
}

}  // namespace farcall::staging
