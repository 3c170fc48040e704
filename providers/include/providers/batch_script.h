// What batch scripts of all schedulers share: directives that a configuration adds, replaces or
// drops, and the ways to start one pilot on each node. Pure.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"
#include "base/error.h"

namespace farcall::providers {

struct Directive {
  std::string name;    // what it sets: "mem", "l:select"
  std::string option;  // as the scheduler reads it: "--mem=4G", "-l select=2"
};

// The name of what a line of scheduler_options sets ("#SBATCH -p debug" -> "partition"); nothing
// for a line that is no directive.
using DirectiveName = std::function<std::optional<std::string>(std::string_view line)>;

// What the configuration says about directives.
struct DirectiveChanges {
  std::string scheduler_options;  // lines for the top of the script; they replace ours of that name
  std::vector<std::string> drop;  // names that are not said at all
};
std::vector<ConfigKey> directive_keys(const char* scheduler_options_help);
DirectiveChanges directive_changes(const nlohmann::json& config);  // nlohmann's exceptions

// `own` without those that are dropped or replaced.
std::vector<Directive> kept_directives(std::vector<Directive> own, const DirectiveChanges& changes,
                                       const DirectiveName& name_of_line);

// How a batch job starts its pilots. The names are Globus Compute's.
struct Launcher {
  std::string type;                    // "": the provider's own way, one pilot on each node
  std::string overrides;               // more options of srun, mpiexec
  std::string bind_cmd = "--bind-to";  // of mpiexec; "" says nothing about binding
  std::string bash_location = "/bin/bash";
  std::string prepend;  // of WrappedLauncher
  // One pilot on each node by the provider's own means, whatever the number of nodes.
  bool own_way() const {
    return type.empty() || type == "SimpleLauncher" || type == "SingleNodeLauncher";
  }
};
// `own`: the launcher that is the provider's own way ("" when it has no name).
ConfigKey launcher_key(const std::string& own);
// nlohmann's exceptions; kConfig for a line break or a WrappedLauncher without `prepend`.
Result<Launcher> launcher_from_json(const nlohmann::json& config, const std::string& own);

// The command line that runs `program` once on each of `nodes` nodes; "$farcall_hosts" names a file
// with one host a line. Only for a launcher that is not the own way.
std::string launcher_command(const Launcher& launcher, int nodes, const std::string& program);

// Shell text for the rank of a process that a launcher of this kind started.
inline constexpr std::string_view kRankOfLauncher =
    "${OMPI_COMM_WORLD_RANK:-${PMIX_RANK:-${PMI_RANK:-${PALS_RANKID:-${SLURM_PROCID:-0}}}}}";

// Shell line for such a process, which is to start MPI programs itself, as if it were not one.
inline constexpr std::string_view kForgetLauncher =
    "unset ${!OMPI_COMM_*} ${!OMPI_MCA_orte_*} ${!OMPI_MCA_ess_*} ${!PMIX_*} ${!PMI_*} "
    "OMPI_MCA_rmaps_base_mapping_policy PRTE_MCA_rmaps_default_mapping_policy";

}  // namespace farcall::providers
