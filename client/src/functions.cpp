#include "farcall/functions.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "base/elf.h"
#include "base/files.h"
#include "farcall/function_abi.h"

namespace farcall {

Result<LocalFunction> read_native_function(const std::filesystem::path& file,
                                           const std::string& name) {
  auto bytes = read_file(file);
  if (!bytes) return fail(bytes.error());
  const auto object = read_shared_object(*bytes);
  if (!object) return fail(object.error().code, "{} is {}", file.string(), object.error().message);
  std::vector<std::string> names;
  for (const std::string& symbol : object->symbols)
    if (symbol.starts_with(FARCALL_FUNCTION_PREFIX))
      names.push_back(symbol.substr(sizeof FARCALL_FUNCTION_PREFIX - 1));
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    const auto near = suggest(name, names);
    return fail(ErrorCode::kNotFound,
                "{} has no function {}{}; it has: {} (each is declared with FARCALL_FUNCTION)",
                file.string(), name, near ? fmt::format(", did you mean {}?", *near) : "",
                names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
  }
  LocalFunction function;
  function.record.kind = FunctionKind::kNative;
  function.record.name = name;
  function.record.meta =
      nlohmann::json{{"file", file.filename().string()}, {"machine", object->machine}}.dump(
          -1, ' ', false, nlohmann::json::error_handler_t::replace);
  function.body = Bytes(std::move(*bytes));
  function.record.id = function_id(FunctionKind::kNative, name, function.body.view());
  return function;
}

}  // namespace farcall
