// Argument sets, results and failures as bytes (docs/payloads.md), as far as C++ reads and writes
// them: JSON, shell results, native arrays, plain pickles; the rest is passed through. Pure;
// thread-safe.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace farcall {

// 'J' with {"args": …, "kwargs": …}; what is null or empty is left out.
Bytes json_arguments(const nlohmann::json& args, const nlohmann::json& kwargs);
// 'J' with any object: {"argv": …, "stdin": …, "walltime_s": …} for shell tasks.
Bytes json_arguments(const nlohmann::json& object);

struct ShellResult {
  std::string command;
  std::string out;
  std::string err;
  std::int32_t returncode = 0;
  std::string exception_name;  // empty: none
  bool truncated = false;
  std::uint64_t out_bytes = 0;  // of the whole output, what did not come back included
  std::uint64_t err_bytes = 0;
};
std::string encode_shell_result(const ShellResult& result);
// kCorrupt when it is no 'S' value.
Result<ShellResult> decode_shell_result(std::string_view data);

// The head of an 'E' payload, and the pickled exception behind it (empty when missing).
struct Failure {
  std::string type;
  std::string module;
  std::string message;
  std::string traceback;
  std::string failure_class;
  std::string host;
  std::string json;  // the whole head, with what else stands there
  std::string pickle;
};
std::string encode_failure(const nlohmann::json& head, std::string_view pickle = {});
Result<Failure> decode_failure(std::string_view data);
// "ZeroDivisionError: division by zero", or the sentence of a failure that is not the user's.
std::string failure_line(const Failure& failure);

// The value of a succeeded task as JSON: 'J' and 'M' as they are (what JSON cannot express is lost
// when it is printed), 'S' as an object with text (bytes that are no UTF-8 become U+FFFD), arrays
// as nested lists, pickles of plain values as those. nullopt: only Python can read it.
Result<std::optional<nlohmann::json>> value_as_json(std::string_view data);

}  // namespace farcall
