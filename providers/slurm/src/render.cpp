// The batch script and the command lines.
#include <algorithm>
#include <array>
#include <cmath>

#include "providers_slurm/slurm_text.h"

namespace farcall::providers::slurm {

namespace {

// Separates fields of squeue: job names and reasons may hold anything that can be typed.
constexpr char kSeparator = '\x1f';

// Slurm replaces %x in file names.
std::string output_file(const BlockRequest& request) {
  std::string escaped;
  for (const char c : request.directory) {
    escaped += c;
    if (c == '%') escaped += '%';
  }
  return escaped + "/job.out";
}

// D-HH:MM:SS; Slurm rounds up to minutes by itself.
std::string time_limit(double seconds) {
  const auto total = static_cast<long long>(std::ceil(seconds));
  return fmt::format("{}-{:02}:{:02}:{:02}", total / 86400, total / 3600 % 24, total / 60 % 60,
                     total % 60);
}

constexpr std::array<std::pair<char, std::string_view>, 17> kShortOptions = {{
    {'A', "account"},
    {'a', "array"},
    {'C', "constraint"},
    {'c', "cpus-per-task"},
    {'D', "chdir"},
    {'e', "error"},
    {'G', "gpus"},
    {'J', "job-name"},
    {'M', "clusters"},
    {'N', "nodes"},
    {'n', "ntasks"},
    {'o', "output"},
    {'p', "partition"},
    {'q', "qos"},
    {'t', "time"},
    {'w', "nodelist"},
    {'x', "exclude"},
}};

Directive say(std::string name, const std::string& value = "") {
  std::string option = "--" + name + (value.empty() ? "" : "=" + value);
  return {std::move(name), std::move(option)};
}

// Said on the command line as well as in the script: SBATCH_* variables of whoever started us
// override what the script says, and these must not be overridden.
std::vector<Directive> fixed_options(const BlockRequest& request) {
  std::vector<Directive> options = {
      say("job-name", request.job_name),   say("nodes", std::to_string(request.nodes)),
      say("ntasks-per-node", "1"),         say("time", time_limit(request.walltime_s)),
      say("output", output_file(request)), say("open-mode", "append"),
      {"requeue", "--no-requeue"},         {"kill", "--no-kill"}};
  if (const auto bad = short_names(request.exclude_nodes); !bad.empty())
    options.push_back(say("exclude", fmt::format("{}", fmt::join(bad, ","))));
  return options;
}

std::vector<Directive> chosen_options(const Settings& settings) {
  std::vector<Directive> options;
  const auto text = [&](const char* name, const std::string& value) {
    if (!value.empty()) options.push_back(say(name, value));
  };
  text("partition", settings.partition);
  text("account", settings.account);
  text("qos", settings.qos);
  text("constraint", settings.constraint);
  text("clusters", settings.clusters);
  text("gres", settings.gres);
  if (settings.cores_per_node) text("cpus-per-task", std::to_string(*settings.cores_per_node));
  if (settings.mem_per_node_gib) {
    const auto mib = static_cast<long long>(std::llround(*settings.mem_per_node_gib * 1024));
    text("mem", fmt::format("{}M", mib));
  }
  if (settings.gpus_per_node) text("gpus-per-node", std::to_string(*settings.gpus_per_node));
  if (settings.exclusive) options.push_back(say("exclusive"));
  // The batch shell has become srun by then, which hands it on.
  if (settings.warn_before_s)
    text("signal", fmt::format("B:USR1@{}", std::llround(std::ceil(*settings.warn_before_s))));
  return options;
}

// "--no-requeue" and "--requeue" are one directive, named requeue.
std::vector<Directive> kept(std::vector<Directive> own, const Settings& settings) {
  DirectiveChanges changes = settings.changes;
  for (std::string& name : changes.drop) {
    if (name.starts_with("--")) name.erase(0, 2);
    if (name.starts_with("no-")) name.erase(0, 3);
  }
  std::erase(changes.drop, "job-name");  // without it a lost reply cannot be found again
  return kept_directives(std::move(own), changes, option_of_line);
}

// --overlap: the pilot's step must not keep steps of the tasks (mpirun, srun) waiting.
// --export=ALL: without it a job submitted with --export=NONE has no PATH in its steps.
std::string srun_line(const Settings& settings, const std::string& program) {
  std::string line =
      "exec srun --no-kill --kill-on-bad-exit=0 --wait=0 --overlap --export=ALL --cpu-bind=none "
      "\\\n"
      "  --nodes=\"$SLURM_JOB_NUM_NODES\" --ntasks=\"$SLURM_JOB_NUM_NODES\" --ntasks-per-node=1";
  if (settings.cores_per_node) line += fmt::format(" --cpus-per-task={}", *settings.cores_per_node);
  if (!settings.launcher.overrides.empty()) line += " " + settings.launcher.overrides;
  return line + " \\\n  /bin/bash -c " + program + "\n";
}

std::string launch_line(const Settings& settings, const BlockRequest& request) {
  if (settings.launcher.own_way()) {
    return srun_line(settings,
                     shell_quote("export FARCALL_NODE_RANK=$SLURM_NODEID\n" + request.command));
  }
  const std::string program = fmt::format("export FARCALL_NODE_RANK={}\n{}\n{}", kRankOfLauncher,
                                          kForgetLauncher, request.command);
  return fmt::format(
      "farcall_hosts=\"{}/hosts.$SLURM_JOB_ID\"\n"
      "scontrol show hostnames \"$SLURM_JOB_NODELIST\" >\"$farcall_hosts\"\n"
      "exec {}\n",
      request.directory,
      launcher_command(settings.launcher, request.nodes, "-c " + shell_quote(program)));
}

// "12;cluster" -> "12"
std::string number_of(const std::string& job_id) { return job_id.substr(0, job_id.find(';')); }

// Ids that name their cluster are looked for there, also where SBATCH_CLUSTERS chose it.
void add_clusters(const Settings& settings, const std::vector<std::string>& job_ids,
                  std::vector<std::string>& command) {
  std::vector<std::string> names;
  for (const auto& id : job_ids) {
    const auto cluster = cluster_of(id);
    if (!cluster.empty() && std::find(names.begin(), names.end(), cluster) == names.end())
      names.push_back(cluster);
  }
  if (names.empty() && !settings.clusters.empty()) names.push_back(settings.clusters);
  if (!names.empty()) command.push_back(fmt::format("--clusters={}", fmt::join(names, ",")));
}

std::string joined_numbers(const std::vector<std::string>& job_ids) {
  std::string joined;
  for (const auto& id : job_ids) joined += (joined.empty() ? "" : ",") + number_of(id);
  return joined;
}

}  // namespace

std::optional<std::string> option_of_line(std::string_view line) {
  constexpr std::string_view kHead = "#SBATCH";
  if (!line.starts_with(kHead)) return std::nullopt;
  std::string_view word = trimmed(line.substr(kHead.size()));
  word = word.substr(0, word.find_first_of(" \t="));
  if (word.starts_with("--")) {
    word.remove_prefix(2);
    if (word.starts_with("no-")) word.remove_prefix(3);
    return std::string(word);
  }
  if (word.size() < 2 || word[0] != '-') return std::nullopt;
  for (const auto& [letter, name] : kShortOptions)
    if (word[1] == letter) return std::string(name);
  return std::nullopt;
}

std::string render_script(const Settings& settings, const BlockRequest& request) {
  std::string script = "#!/bin/bash\n";
  std::vector<Directive> directives = fixed_options(request);
  for (auto& more : chosen_options(settings)) directives.push_back(std::move(more));
  for (const auto& each : kept(std::move(directives), settings))
    script += "#SBATCH " + each.option + "\n";
  if (const auto more = trimmed(settings.changes.scheduler_options); !more.empty())
    script += std::string(more) + "\n";
  script += fmt::format(
      "\n"
      "unset SLURM_EXPORT_ENV\n"
      "export FARCALL_JOB_ID=\"$SLURM_JOB_ID\"\n"
      "export FARCALL_JOB_NAME={}\n"
      "export FARCALL_JOB_START=\"$(date +%s.%N)-${{SLURM_RESTART_COUNT:-0}}-$$\"\n"
      "export FARCALL_JOB_ENDS_AT=$(($(date +%s) + {}))\n",
      shell_quote(request.job_name), static_cast<long long>(std::ceil(request.walltime_s)));
  if (!settings.worker_init.empty()) script += "\n" + settings.worker_init + "\n";
  return script + "\n" + launch_line(settings, request);
}

std::string cluster_of(const std::string& job_id) {
  const auto at = job_id.find(';');
  return at == std::string::npos ? "" : job_id.substr(at + 1);
}

std::vector<std::string> submit_command(const Settings& settings, const BlockRequest& request,
                                        const std::string& script_file) {
  std::vector<std::string> command = {"sbatch", "--parsable"};
  for (auto& each : kept(fixed_options(request), settings))
    command.push_back(std::move(each.option));
  add_clusters(settings, {}, command);
  command.push_back("--chdir=" + request.directory);
  command.push_back(script_file);
  return command;
}

std::vector<std::string> status_command(const Settings& settings,
                                        const std::vector<std::string>& job_ids) {
  // -O and not -o, for exit_code and RestartCnt; widths are those beyond which Slurm cuts.
  std::string fields;
  for (const char* field : {"JobID:24", "State:24", "TimeLeft:24", "exit_code:12", "RestartCnt:12",
                            "Name:130", "Reason:160", "NodeList:1024"}) {
    fields += (fields.empty() ? "" : ",") + std::string(field) + kSeparator;
  }
  std::vector<std::string> command = {
      "squeue", "--noheader", "--states=all", "--jobs=" + joined_numbers(job_ids), "-O", fields};
  add_clusters(settings, job_ids, command);
  return command;
}

std::vector<std::string> find_command(const Settings& settings, const std::string& job_name) {
  std::vector<std::string> command = {
      "squeue", "--noheader", "--states=all", "--me",
      "--name", job_name,     "-o",           fmt::format("%i{}%j", kSeparator)};
  add_clusters(settings, {}, command);
  return command;
}

std::vector<std::string> cancel_command(const Settings& settings,
                                        const std::vector<std::string>& job_ids) {
  std::vector<std::string> command = {"scancel"};
  add_clusters(settings, job_ids, command);
  for (const auto& id : job_ids) command.push_back(number_of(id));
  return command;
}

}  // namespace farcall::providers::slurm
