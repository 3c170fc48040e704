#include "mpi_options.h"

namespace farcall::cli {

using nlohmann::json;

bool wants_ranks(const Invocation& invocation) {
  return invocation.has("ranks") || invocation.has("ranks-per-node");
}

std::vector<Option> resource_options() {
  return {
      {"cores", "N", "cores that one task holds (1)"},
      {"memory", "MIB", "memory of one task on each of its nodes, in MiB; with more it is killed"},
      {"gpus", "N", "GPUs that one task holds"},
      {"ranks", "N", "MPI ranks of one task"},
      {"nodes", "N", "nodes of one task; with --ranks and without this: as few as fit"},
      {"ranks-per-node", "N", "ranks on each node; with --ranks and without --nodes: at most"},
      {"cores-per-rank", "N", "cores of each rank (1)"},
      {"gpus-per-rank", "N", "GPUs of each rank"},
      {"exclusive", "", "nothing else on the nodes of a task"},
      {"launcher-options", "TEXT", "more words for mpirun"},
  };
}

namespace {

// Ranks from nodes and ranks per node, or nodes from the other two.
Result<void> complete(Resources& out, std::uint32_t per_node) {
  if (out.ranks == 0) out.ranks = std::max(1U, out.nodes) * per_node;
  if (out.nodes == 0 && per_node > 0) out.nodes = (out.ranks + per_node - 1) / per_node;
  if (out.nodes > out.ranks)
    return fail(ErrorCode::kInvalidArgument, "{} nodes for {} ranks: each node needs one",
                out.nodes, out.ranks);
  if (per_node > 0 && out.ranks > out.nodes * per_node)
    return fail(ErrorCode::kInvalidArgument,
                "{} ranks do not fit on {} nodes with {} ranks on each", out.ranks, out.nodes,
                per_node);
  return {};
}

}  // namespace

Result<void> take_resources(const Invocation& invocation, SubmissionHeader& header) {
  Resources& out = header.resources;
  const bool ranks = wants_ranks(invocation);
  if (ranks) out.nodes = 0;
  const auto take = [&](const char* name, long long least, auto& target) -> Result<void> {
    if (!invocation.has(name)) return {};
    auto value = invocation.number(name, 0, least);
    if (!value) return fail(value.error());
    target = static_cast<std::decay_t<decltype(target)>>(*value);
    return {};
  };
  std::uint32_t per_node = 0;
  for (const char* name : {"cores", "gpus"}) {
    const std::string of_rank = std::string(name) + "-per-rank";
    if (ranks && invocation.has(name))
      return fail(ErrorCode::kInvalidArgument, "--{} is for tasks without ranks: write --{}", name,
                  of_rank);
    if (!ranks && invocation.has(of_rank))
      return fail(ErrorCode::kInvalidArgument, "--{} needs --ranks", of_rank);
  }
  for (const auto& done : {take(ranks ? "cores-per-rank" : "cores", 1, out.cores),
                           take(ranks ? "gpus-per-rank" : "gpus", 0, out.gpus),
                           take("memory", 0, out.memory_mib), take("nodes", 1, out.nodes),
                           take("ranks", 1, out.ranks), take("ranks-per-node", 1, per_node)})
    if (!done) return fail(done.error());
  out.exclusive = invocation.has("exclusive");
  if (invocation.has("launcher-options")) {
    if (!ranks) return fail(ErrorCode::kInvalidArgument, "--launcher-options needs --ranks");
    header.environment["FARCALL_LAUNCHER_OPTIONS"] = invocation.text("launcher-options");
  }
  if (!ranks) return {};
  return complete(out, per_node);
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
  if (record.kind == FunctionKind::kMpiFunction) return function;
  if (record.kind == FunctionKind::kNative)
    return fail(ErrorCode::kInvalidArgument,
                "{} takes no communicator: with --ranks it has to be declared with "
                "FARCALL_MPI_FUNCTION (farcall/mpi_function.h)",
                what);
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
