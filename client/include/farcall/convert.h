// How C++ types are read from JSON values and written to them. Use farcall/value.h.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace farcall {

using Value = nlohmann::json;

// A value is not of the type that is wanted; what() says which one, what it is and what was
// expected.
struct ValueError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {

inline std::string shown(const Value& value) {
  std::string text = value.dump(-1, ' ', false, Value::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}
[[noreturn]] inline void wrong(const std::string& where, const Value& found,
                               const std::string& expected) {
  const char* kind = found.is_null()      ? "null"
                     : found.is_boolean() ? "a bool"
                     : found.is_number()  ? "a number"
                     : found.is_string()  ? "a text"
                     : found.is_array()   ? "a list"
                     : found.is_binary()  ? "bytes"
                                          : "an object";
  throw ValueError(where + " is " + kind + (found.is_null() ? "" : ", " + shown(found)) +
                   "; expected " + expected);
}

// How a type is read and written; specialise it, or give the type nlohmann's from_json and to_json
// (NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE does it for a struct).
template <class T, class = void>
struct Convert {
  static T read(const Value& v, const std::string& where) {
    try {
      return v.template get<T>();
    } catch (const Value::exception& error) {
      std::string text = error.what();  // "[json.exception.type_error.302] type must be …"
      if (const auto end = text.find("] "); end != std::string::npos) text.erase(0, end + 2);
      throw ValueError(where + " is " + shown(v) + ": " + text);
    }
  }
  static Value write(const T& value) { return Value(value); }
};

template <>
struct Convert<Value> {
  static Value read(const Value& v, const std::string&) { return v; }
  static Value write(const Value& value) { return value; }
};
template <>
struct Convert<bool> {
  static bool read(const Value& v, const std::string& where) {
    if (!v.is_boolean()) wrong(where, v, "true or false");
    return v.get<bool>();
  }
  static Value write(bool value) { return value; }
};
template <class T>
struct Convert<T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>>> {
  static T read(const Value& v, const std::string& where) {
    const std::string expected = "a whole number from " +
                                 std::to_string(std::numeric_limits<T>::min()) + " to " +
                                 std::to_string(std::numeric_limits<T>::max());
    if (v.is_number_unsigned()) {
      const auto number = v.get<std::uint64_t>();
      if (number <= static_cast<std::uint64_t>(std::numeric_limits<T>::max()))
        return static_cast<T>(number);
    } else if (v.is_number_integer()) {
      const auto number = v.get<std::int64_t>();
      if (number >= static_cast<std::int64_t>(std::numeric_limits<T>::min()) &&
          (number < 0 || static_cast<std::uint64_t>(number) <=
                             static_cast<std::uint64_t>(std::numeric_limits<T>::max())))
        return static_cast<T>(number);
    }
    wrong(where, v, expected);
  }
  static Value write(T value) { return value; }
};
template <class T>
struct Convert<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  static T read(const Value& v, const std::string& where) {
    if (!v.is_number()) wrong(where, v, "a number");
    return v.get<T>();
  }
  static Value write(T value) { return static_cast<double>(value); }
};
template <>
struct Convert<std::string> {
  static std::string read(const Value& v, const std::string& where) {
    if (!v.is_string()) wrong(where, v, "a text");
    return v.get<std::string>();
  }
  static Value write(const std::string& value) { return value; }
};
template <>
struct Convert<const char*> {
  static Value write(const char* value) { return value; }
};
template <>
struct Convert<std::string_view> {
  static Value write(std::string_view value) { return value; }
};
// Bytes of any kind: travel as MessagePack.
template <>
struct Convert<std::vector<std::byte>> {
  static std::vector<std::byte> read(const Value& v, const std::string& where) {
    if (!v.is_binary()) wrong(where, v, "bytes");
    const auto& bytes = v.get_binary();
    const auto* first = reinterpret_cast<const std::byte*>(bytes.data());
    return {first, first + bytes.size()};
  }
  static Value write(const std::vector<std::byte>& value) {
    const auto* first = reinterpret_cast<const std::uint8_t*>(value.data());
    return Value::binary({first, first + value.size()});
  }
};
template <class T>
struct Convert<std::vector<T>> {
  static std::vector<T> read(const Value& v, const std::string& where) {
    if (!v.is_array()) wrong(where, v, "a list");
    std::vector<T> out;
    out.reserve(v.size());
    for (std::size_t i = 0; i < v.size(); ++i) {
      if constexpr (std::is_arithmetic_v<T>) {
        // The place is put into words only when it is needed: lists of numbers are long.
        try {
          out.push_back(Convert<T>::read(v[i], ""));
        } catch (const ValueError& error) {
          throw ValueError(where + "[" + std::to_string(i) + "]" + error.what());
        }
      } else {
        out.push_back(Convert<T>::read(v[i], where + "[" + std::to_string(i) + "]"));
      }
    }
    return out;
  }
  static Value write(const std::vector<T>& value) {
    Value out = Value::array();
    for (const auto& item : value) out.push_back(Convert<T>::write(item));
    return out;
  }
};
template <class T, std::size_t N>
struct Convert<std::array<T, N>> {
  static std::array<T, N> read(const Value& v, const std::string& where) {
    if (!v.is_array() || v.size() != N) wrong(where, v, "a list of " + std::to_string(N));
    std::array<T, N> out;
    for (std::size_t i = 0; i < N; ++i)
      out[i] = Convert<T>::read(v[i], where + "[" + std::to_string(i) + "]");
    return out;
  }
  static Value write(const std::array<T, N>& value) {
    return Convert<std::vector<T>>::write({value.begin(), value.end()});
  }
};
template <class Map>
struct ConvertMap {
  using T = typename Map::mapped_type;
  static Map read(const Value& v, const std::string& where) {
    if (!v.is_object()) wrong(where, v, "an object");
    Map out;
    for (const auto& [key, item] : v.items())
      out.emplace(key, Convert<T>::read(item, where + "['" + key + "']"));
    return out;
  }
  static Value write(const Map& value) {
    Value out = Value::object();
    for (const auto& [key, item] : value) out[key] = Convert<T>::write(item);
    return out;
  }
};
template <class T>
struct Convert<std::map<std::string, T>> : ConvertMap<std::map<std::string, T>> {};
template <class T>
struct Convert<std::unordered_map<std::string, T>>
    : ConvertMap<std::unordered_map<std::string, T>> {};
template <class T>
struct Convert<std::optional<T>> {
  static std::optional<T> read(const Value& v, const std::string& where) {
    if (v.is_null()) return std::nullopt;
    return Convert<T>::read(v, where);
  }
  static Value write(const std::optional<T>& value) {
    return value ? Convert<T>::write(*value) : Value();
  }
};
template <class Tuple, class... Ts>
struct ConvertTuple {
  static Tuple read(const Value& v, const std::string& where) {
    if (!v.is_array() || v.size() != sizeof...(Ts))
      wrong(where, v, "a list of " + std::to_string(sizeof...(Ts)));
    return read_each(v, where, std::index_sequence_for<Ts...>{});
  }
  static Value write(const Tuple& value) {
    return std::apply(
        [](const auto&... item) {
          Value out = Value::array();
          (out.push_back(Convert<std::decay_t<decltype(item)>>::write(item)), ...);
          return out;
        },
        value);
  }

 private:
  template <std::size_t... I>
  static Tuple read_each(const Value& v, const std::string& where, std::index_sequence<I...>) {
    return Tuple{Convert<Ts>::read(v[I], where + "[" + std::to_string(I) + "]")...};
  }
};
template <class... Ts>
struct Convert<std::tuple<Ts...>> : ConvertTuple<std::tuple<Ts...>, Ts...> {};
template <class A, class B>
struct Convert<std::pair<A, B>> : ConvertTuple<std::pair<A, B>, A, B> {};

}  // namespace detail

}  // namespace farcall
