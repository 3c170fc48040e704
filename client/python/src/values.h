// Plain Python values as JSON or MessagePack and back: what native functions take and give.
#pragma once

#include <pybind11/pybind11.h>

#include <limits>
#include <string>
#include <string_view>

#include "farcall/value.h"

namespace farcall::python {

namespace py = pybind11;

constexpr int kDepthMax = 200;

inline Value to_json(py::handle object, int depth = 0) {
  if (depth > kDepthMax) throw py::value_error("the value is nested too deep, or contains itself");
  if (object.is_none()) return nullptr;
  if (py::isinstance<py::bool_>(object)) return object.cast<bool>();
  if (py::isinstance<py::int_>(object)) {
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(object.ptr(), &overflow);
    if (overflow == 0) return number;
    if (overflow > 0) {
      const unsigned long long large = PyLong_AsUnsignedLongLong(object.ptr());
      if (!PyErr_Occurred()) return large;
      PyErr_Clear();
    }
    throw py::value_error("a whole number has more than 64 bits");
  }
  if (py::isinstance<py::float_>(object)) return object.cast<double>();
  if (py::isinstance<py::str>(object)) return object.cast<std::string>();
  if (py::isinstance<py::bytes>(object) || py::isinstance<py::bytearray>(object)) {
    const std::string bytes = py::bytes(py::reinterpret_borrow<py::object>(object));
    return Value::binary({bytes.begin(), bytes.end()});
  }
  if (py::isinstance<py::dict>(object)) {
    Value out = Value::object();
    for (const auto& [key, value] : py::reinterpret_borrow<py::dict>(object)) {
      if (!py::isinstance<py::str>(key))
        throw py::type_error("the keys of a dict must be text, not " +
                             std::string(py::str(py::type::of(key))));
      out[key.cast<std::string>()] = to_json(value, depth + 1);
    }
    return out;
  }
  if (py::isinstance<py::list>(object) || py::isinstance<py::tuple>(object)) {
    Value out = Value::array();
    for (py::handle item : object) out.push_back(to_json(item, depth + 1));
    return out;
  }
  // Arrays and scalars of numpy, and whatever else knows how.
  if (py::hasattr(object, "tolist")) return to_json(object.attr("tolist")(), depth + 1);
  throw py::type_error(
      "a native function takes numbers, texts, bytes, lists, dicts and numpy arrays, not " +
      std::string(py::str(py::type::of(object))));
}

inline py::object from_json(const Value& value) {
  switch (value.type()) {
    case Value::value_t::boolean:
      return py::bool_(value.get<bool>());
    case Value::value_t::number_integer:
      return py::int_(value.get<std::int64_t>());
    case Value::value_t::number_unsigned:
      return py::int_(value.get<std::uint64_t>());
    case Value::value_t::number_float:
      return py::float_(value.get<double>());
    case Value::value_t::string:
      return py::str(value.get<std::string>());
    case Value::value_t::binary: {
      const auto& bytes = value.get_binary();
      return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
    case Value::value_t::array: {
      py::list out(value.size());
      for (std::size_t i = 0; i < value.size(); ++i) out[i] = from_json(value[i]);
      return out;
    }
    case Value::value_t::object: {
      py::dict out;
      for (const auto& [key, item] : value.items()) out[py::str(key)] = from_json(item);
      return out;
    }
    default:
      return py::none();
  }
}

inline py::bytes pack(py::handle object) { return py::bytes(pack_value(to_json(object))); }

inline py::object unpack(const std::string& data) {
  try {
    return from_json(unpack_value(data));
  } catch (const ValueError& error) {
    throw py::value_error(error.what());
  }
}

}  // namespace farcall::python
