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
  constexpr std::string_view kPrefix = FARCALL_FUNCTION_PREFIX;
  constexpr std::string_view kMpiPrefix = FARCALL_MPI_FUNCTION_PREFIX;
  std::vector<std::string> names;
  bool mpi = false;
  for (const std::string& symbol : object->symbols) {
    const bool of_mpi = symbol.starts_with(kMpiPrefix);
    if (!of_mpi && !symbol.starts_with(kPrefix)) continue;
    names.push_back(symbol.substr(of_mpi ? kMpiPrefix.size() : kPrefix.size()));
    mpi = mpi || (of_mpi && names.back() == name);
  }
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    const auto near = suggest(name, names);
    return fail(ErrorCode::kNotFound,
                "{} has no function {}{}; it has: {} (each is declared with FARCALL_FUNCTION)",
                file.string(), name, near ? fmt::format(", did you mean {}?", *near) : "",
                names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
  }
  LocalFunction function;
  function.record.kind = mpi ? FunctionKind::kMpiFunction : FunctionKind::kNative;
  function.record.name = name;
  nlohmann::json meta{{"file", file.filename().string()}, {"machine", object->machine}};
  if (mpi) meta["code"] = name_of(FunctionKind::kNative);
  function.record.meta = meta.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  function.body = Bytes(std::move(*bytes));
  function.record.id = function_id(function.record.kind, name, function.body.view());
  return function;
}

}  // namespace farcall
