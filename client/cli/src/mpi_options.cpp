#include "mpi_options.h"

namespace farcall::cli {

using nlohmann::json;

bool wants_ranks(const Invocation& invocation) { return invocation.has("ranks"); }

std::vector<Option> resource_options() {
  return {
      {"ranks", "N", "MPI ranks of one task, on one node"},
      {"cores-per-rank", "N", "cores of each rank (1)"},
      {"launcher-options", "TEXT", "more words for mpirun"},
  };
}

Result<void> take_resources(const Invocation& invocation, SubmissionHeader& header) {
  if (!wants_ranks(invocation)) {
    for (const char* name : {"cores-per-rank", "launcher-options"})
      if (invocation.has(name))
        return fail(ErrorCode::kInvalidArgument, "--{} needs --ranks", name);
    return {};
  }
  if (invocation.has("cores"))
    return fail(ErrorCode::kInvalidArgument,
                "--cores is for tasks without ranks: write --cores-per-rank");
  auto ranks = invocation.number("ranks", 1, 1);
  if (!ranks) return fail(ranks.error());
  auto cores = invocation.number("cores-per-rank", 1, 1);
  if (!cores) return fail(cores.error());
  header.resources.cores = static_cast<std::uint32_t>(*ranks * *cores);
  header.environment["FARCALL_NUM_RANKS"] = std::to_string(*ranks);
  if (invocation.has("launcher-options"))
    header.environment["FARCALL_LAUNCHER_OPTIONS"] = invocation.text("launcher-options");
  return {};
}

LocalFunction command_function(const Invocation& invocation) {
  LocalFunction function = shell_function();
  if (!wants_ranks(invocation)) return function;
  FunctionRecord& record = function.record;
  record.kind = FunctionKind::kMpiProgram;
  record.id = function_id(record.kind, record.name, function.body.view());
  return function;
}

Result<LocalFunction> read_function(const Invocation& invocation, const std::string& what) {
  auto function = read_function(what);
  if (!function || !wants_ranks(invocation)) return function;
  FunctionRecord& record = function->record;
  json meta = json::parse(record.meta);
  meta["code"] = name_of(record.kind);
  record.meta = meta.dump();
  record.kind = FunctionKind::kMpiFunction;
  record.id = function_id(record.kind, record.name, function->body.view());
  return function;
}

Result<FunctionId> find_or_register(Client& client, const Invocation& invocation,
                                    const std::string& what) {
  if (!wants_ranks(invocation) || FunctionId::parse(what)) return find_or_register(client, what);
  auto function = read_function(invocation, what);
  if (!function) return fail(function.error());
  return client.register_function(std::move(function->record), std::move(function->body));
}

}  // namespace farcall::cli
