// The batch script and the command lines.
#include <algorithm>
#include <cmath>

#include "providers/command_text.h"
#include "providers_pbs/pbs_text.h"

namespace farcall::providers::pbs {

namespace {

std::string time_limit(double seconds) {
  const auto total = static_cast<long long>(std::ceil(seconds));
  return fmt::format("{:02}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
}

std::string select_of(const Settings& settings, int nodes) {
  std::string_view more = settings.select_options;
  while (more.starts_with(':')) more.remove_prefix(1);
  return fmt::format("{}:ncpus={}{}{}", nodes, settings.cpus_per_node, more.empty() ? "" : ":",
                     more);
}

// -r n: a lost node must not start the job again beside itself. The output goes to /dev/null, since
// PBS copies it at the end only, and holds the job in state E while it cannot: the script writes
// it.
std::vector<Directive> directives(const Settings& settings, const BlockRequest& request) {
  std::vector<Directive> own = {{"N", "-N " + request.job_name},
                                {"l:select", "-l select=" + select_of(settings, request.nodes)},
                                {"l:place", "-l place=" + settings.place},
                                {"l:walltime", "-l walltime=" + time_limit(request.walltime_s)},
                                {"r", "-r n"},
                                {"o", "-o /dev/null"},
                                {"e", "-e /dev/null"}};
  if (settings.place.empty()) std::erase_if(own, [](auto& d) { return d.name == "l:place"; });
  if (request.nodes > 1)  // one node's death must not end the block
    own.push_back({"W:tolerate_node_failures", "-W tolerate_node_failures=all"});
  if (!settings.queue.empty()) own.push_back({"q", "-q " + settings.queue});
  if (!settings.account.empty()) own.push_back({"A", "-A " + settings.account});
  DirectiveChanges changes = settings.changes;
  for (std::string& name : changes.drop)
    if (name.starts_with("-")) name.erase(0, 1);
  std::erase(changes.drop, "N");  // without it a lost reply cannot be found again
  return kept_directives(std::move(own), changes, directive_of_line);
}

// The job's own record and its output. PBS sends SIGTERM to all processes of a job that is deleted
// or out of time, and SIGKILL ten seconds later; the record is written at once.
constexpr std::string_view kPrologue = R"sh(
record() {{
  printf '%s\n' "name=$FARCALL_JOB_NAME" "ends_at=$FARCALL_JOB_ENDS_AT" "$@" >"$records/.$PBS_JOBID.$$" &&
    mv "$records/.$PBS_JOBID.$$" "$records/$PBS_JOBID"
}}
umask 077
directory={directory}
records={records}
exec >>"$directory/job.out" 2>&1 </dev/null
export FARCALL_JOB_ID="$PBS_JOBID"
export FARCALL_JOB_NAME={name}
export FARCALL_JOB_START="$(date +%s.%N)-$$"
export FARCALL_JOB_ENDS_AT=$(($(date +%s) + {walltime}))
record
trap 'record "ended=$(date +%s)"
                                       "signal=15"; terminated=1' TERM
trap 'code=$?; [ -n "$terminated" ] || record "ended=$(date +%s)" "exit_code=$code"; rm -f "$launch" "$farcall_hosts"' EXIT
cd "$directory" || exit 1
[ ! -r "${{PBS_CONF_FILE:-/etc/pbs.conf}}" ] || . "${{PBS_CONF_FILE:-/etc/pbs.conf}}"
tmrsh=$(command -v pbs_tmrsh || echo "${{PBS_EXEC:-/opt/pbs}}/bin/pbs_tmrsh")
)sh";

// PBS can be told where a job must run, but not where it must not: it gets the nodes it gets, and
// no pilot is started on those that are bad.
//
// What every node runs, with the environment of here: processes that PBS starts on other nodes have
// next to none. Open MPI without PBS support reaches the other nodes through the same door.
constexpr std::string_view kLaunchFile = R"sh(
agent="$directory/rsh_agent"
printf '#!/bin/sh\nhost=$1\nshift\nexec %s "$host" /bin/sh -c "$*"\n' "$tmrsh" >"$agent"
chmod 700 "$agent"
export OMPI_MCA_plm_rsh_agent="${{OMPI_MCA_plm_rsh_agent:-$agent}}"
export PRTE_MCA_plm_ssh_agent="${{PRTE_MCA_plm_ssh_agent:-$agent}}"
launch="$directory/launch.$FARCALL_JOB_START"
(unset HOSTNAME PBS_NODENUM PBS_TASKNUM PBS_MOMPORT PWD OLDPWD SHLVL TMPDIR; export -p) >"$launch"
cat >>"$launch" <<'farcall_launch_end'
cd {directory}
export FARCALL_NODE_RANK="${{1:-{rank}}}"
{forget}
{command}
farcall_launch_end
declare -A seen
hosts=()
here=
while read -r host; do
  [ -n "$host" ] && [ -z "${{seen[$host]}}" ] || continue
  seen[$host]=1
  here=${{here:-$host}}
  case " {excluded} " in
    *" ${{host%%.*}} "*) echo "no pilot is started on $host: tasks could not be started there" ;;
    *) hosts+=("$host") ;;
  esac
done <"$PBS_NODEFILE"
[ "${{#hosts[@]}}" -gt 0 ] || exit 1
farcall_hosts="$directory/hosts.$FARCALL_JOB_START"
printf '%s\n' "${{hosts[@]}}" >"$farcall_hosts"
)sh";

// The first host of the job is this one. Each is waited for: the end of one is not the end of the
// others.
constexpr std::string_view kOwnWay = R"sh(
children=()
for rank in "${!hosts[@]}"; do
  if [ "${hosts[$rank]}" = "$here" ]; then
    /bin/bash "$launch" "$rank" &
  else
    "$tmrsh" "${hosts[$rank]}" /bin/bash "$launch" "$rank" &
  fi
  children+=($!)
done
)sh";

// wait returns early when a trap runs.
constexpr std::string_view kEpilogue = R"sh(
result=0
for child in "${children[@]}"; do
  wait "$child"
  code=$?
  while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
  [ "$result" != 0 ] || result=$code
done
exit "$result"
)sh";

}  // namespace

std::optional<std::string> directive_of_line(std::string_view line) {
  constexpr std::string_view kHead = "#PBS";
  if (!line.starts_with(kHead)) return std::nullopt;
  std::string_view word = trimmed(line.substr(kHead.size()));
  if (word.size() < 2 || word[0] != '-') return std::nullopt;
  const std::string letter(word.substr(1, 1));
  if (letter != "l" && letter != "W") return letter;
  word = trimmed(word.substr(2));
  return letter + ":" + std::string(word.substr(0, word.find('=')));
}

std::string render_script(const Settings& settings, const BlockRequest& request) {
  std::string script = "#!/bin/bash\n";
  for (const auto& each : directives(settings, request)) script += "#PBS " + each.option + "\n";
  if (const auto more = trimmed(settings.changes.scheduler_options); !more.empty())
    script += std::string(more) + "\n";
  script +=
      fmt::format(kPrologue, fmt::arg("directory", shell_quote(request.directory)),
                  fmt::arg("records", shell_quote(settings.records)),
                  fmt::arg("name", shell_quote(request.job_name)),
                  fmt::arg("walltime", static_cast<long long>(std::ceil(request.walltime_s))));
  if (!settings.worker_init.empty()) script += "\n" + settings.worker_init + "\n";
  const auto excluded =
      settings.launcher.own_way() ? short_names(request.exclude_nodes) : std::vector<std::string>();
  script += fmt::format(kLaunchFile, fmt::arg("directory", shell_quote(request.directory)),
                        fmt::arg("rank", kRankOfLauncher), fmt::arg("forget", kForgetLauncher),
                        fmt::arg("excluded", fmt::join(excluded, " ")),
                        fmt::arg("command", request.command));
  if (settings.launcher.own_way()) {
    script += kOwnWay;
  } else {
    script += "\n" + launcher_command(settings.launcher, request.nodes, "\"$launch\"") +
              " &\nchildren=($!)\n";
  }
  return script + std::string(kEpilogue);
}

std::vector<std::string> clean_environment(const std::map<std::string, std::string>& ours) {
  constexpr std::string_view kNeeded[] = {"PATH",  "HOME", "USER",       "LOGNAME",
                                          "SHELL", "TZ",   "KRB5CCNAME", "LD_LIBRARY_PATH"};
  std::vector<std::string> kept = {"LANG=C"};
  for (const auto& [name, value] : ours) {
    const bool needed =
        std::find(std::begin(kNeeded), std::end(kNeeded), name) != std::end(kNeeded);
    const bool plain = std::all_of(value.begin(), value.end(), [](unsigned char c) {
      return c >= ' ' && c < 0x7f && c != '\'' && c != '"' && c != '\\';
    });
    if ((needed || name.starts_with("PBS_")) && plain) kept.push_back(name + "=" + value);
  }
  return kept;
}

// -f: no daemon that stays behind and lives on when we are killed.
std::vector<std::string> submit_command(const std::string& script_file, bool held) {
  std::vector<std::string> command = {"qsub", "-f"};
  if (held) command.emplace_back("-h");
  command.push_back(script_file);
  return command;
}

// -E: one connection for all ids; without it each id costs a privileged port for a minute, and some
// versions print the first job only.
std::vector<std::string> status_command(const std::vector<std::string>& job_ids, bool history) {
  std::vector<std::string> command = {"qstat"};
  if (history) command.emplace_back("-x");
  command.insert(command.end(), {"-E", "-f", "-F", "json"});
  std::copy_if(job_ids.begin(), job_ids.end(), std::back_inserter(command), is_job_id);
  return command;
}

std::vector<std::string> find_command(const std::string& job_name, bool history) {
  std::vector<std::string> command = {"qselect"};
  if (history) command.emplace_back("-x");
  command.insert(command.end(), {"-N", job_name});
  return command;
}

std::vector<std::string> cancel_command(const std::vector<std::string>& job_ids) {
  std::vector<std::string> command = {"qdel"};
  std::copy_if(job_ids.begin(), job_ids.end(), std::back_inserter(command), is_job_id);
  return command;
}

}  // namespace farcall::providers::pbs
