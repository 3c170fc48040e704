// C++ values as JSON or MessagePack and back, with errors that say which value is wrong. Used on
// both sides: by functions in shared objects and by the client that calls them. Pure; thread-safe.
#pragma once

#include <cmath>
#include <string>
#include <string_view>

#include "farcall/convert.h"

namespace farcall {

namespace detail {

// JSON has neither bytes nor NaN and infinity.
inline bool is_plain_json(const Value& value) {
  if (value.is_binary()) return false;
  if (value.is_number_float()) return std::isfinite(value.get<double>());
  if (!value.is_structured()) return true;
  for (const Value& item : value)
    if (!is_plain_json(item)) return false;
  return true;
}

}  // namespace detail

// Throws ValueError, which begins with `where`.
template <class T>
T from_value(const Value& value, const std::string& where = "the value") {
  return detail::Convert<T>::read(value, where);
}
template <class T>
Value to_value(const T& value) {
  return detail::Convert<std::decay_t<const T&>>::write(value);
}

// As docs/payloads.md has it: 'J' and JSON, or 'M' and MessagePack for what JSON cannot express.
inline std::string pack_value(const Value& value) {
  if (detail::is_plain_json(value)) {
    try {
      return "J" + value.dump();
    } catch (const Value::exception&) {  // a text that is no UTF-8
    }
  }
  std::string out = "M";
  Value::to_msgpack(value, out);
  return out;
}
// Throws ValueError for bytes that are neither.
inline Value unpack_value(std::string_view bytes) {
  const char kind = bytes.empty() ? '\0' : bytes[0];
  if (kind != 'J' && kind != 'M')
    throw ValueError(bytes.empty() ? "a value of no bytes"
                                   : "a value that begins with '" + std::string(1, kind) +
                                         "'; expected J (JSON) or M (MessagePack)");
  bytes.remove_prefix(1);
  Value value = kind == 'J' ? Value::parse(bytes.begin(), bytes.end(), nullptr, false)
                            : Value::from_msgpack(bytes.begin(), bytes.end(), true, false);
  if (value.is_discarded())
    throw ValueError(kind == 'J' ? "a value that is no JSON" : "a value that is no MessagePack");
  return value;
}

}  // namespace farcall
