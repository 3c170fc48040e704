// Values as tasks take and return them, as far as C++ can read them (docs/payloads.md): JSON, the
// form with native arrays, and pickles of plain Python values. Whatever else a pickle holds stays
// opaque; nothing of it is ever executed. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"

namespace farcall::staging {

// The element type of an array, in numpy's notation: "<f8", "|b1", ">i4", "|S12", "<M8[ns]".
struct DType {
  char kind = 'f';         // b bool, i u f c numbers, S bytes, U text, M m dates and durations
  std::uint32_t size = 8;  // bytes of one element
  bool big_endian = false;
  std::string text;  // as it was given

  bool operator==(const DType& other) const { return text == other.text; }
};
// nullopt: a type that is not stored natively.
std::optional<DType> parse_dtype(std::string_view text);

// In C order. `data` points into the payload that was decoded.
struct Array {
  DType dtype;
  std::vector<std::uint64_t> shape;  // empty: a single element
  std::string_view data;
  std::size_t buffer = 0;  // its number among the buffers of its payload
  std::uint64_t count() const;
};

// Bytes, as opposed to text; into the payload.
struct Binary {
  std::string_view data;
  std::size_t buffer = 0;  // as of an array
};
// Something that only Python can read.
struct Opaque {};

struct Value;
using List = std::vector<Value>;                          // lists and tuples
using Dict = std::vector<std::pair<std::string, Value>>;  // in order; keys that are no text as text

struct Value {
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Binary, Array, List, Dict,
               Opaque>
      data;

  template <class T>
  const T* as() const {
    return std::get_if<T>(&data);
  }
};

// A result's payload: J, N, P, D; not S. Views into `payload`, which must outlive the value.
// kCorrupt: damaged. A pickle of other things gives Opaque.
Result<Value> decode_value(std::string_view payload);

struct Arguments {
  List positional;
  Dict named;
};
// An argument set's payload; nullopt: only Python can read it.
Result<std::optional<Arguments>> decode_arguments(std::string_view payload);

Value value_from_json(const nlohmann::json& json);
// Arrays become nested lists, numbers that are not finite become null; nullopt when something in it
// is opaque or bytes.
std::optional<nlohmann::json> value_to_json(const Value& value);

// One element as a number; nullopt for kinds that are none. REQUIRES: index < array.count().
std::optional<double> element_as_double(const Array& array, std::uint64_t index);
std::optional<std::int64_t> element_as_int(const Array& array, std::uint64_t index);

// --- the parts of decode_value ---
Result<Value> decode_native(std::string_view payload);  // beginning with 'N'
// What the head of such a payload, its JSON, says of the rest: the value with arrays and bytes that
// have no data yet, and how long the buffers are, the first of which are the arrays.
struct NativeHead {
  Value value;
  std::vector<Array> arrays;
  std::vector<std::uint64_t> sizes;
};
inline constexpr std::size_t kNativeFixedBytes = 8;  // before the head
inline constexpr std::size_t kNativeAlignment = 16;  // of each buffer in the payload
Result<NativeHead> decode_native_head(std::string_view json);
// A pickle without its 'P'. Reads protocols 2 to 5 of None, bool, int, float, str, bytes, list,
// tuple, dict, set; Opaque for all else.
Result<Value> decode_plain_pickle(std::string_view pickle);

}  // namespace farcall::staging
