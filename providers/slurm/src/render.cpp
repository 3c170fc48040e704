// The batch script and the command lines.
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

// Said on the command line as well as in the script: SBATCH_* variables of whoever started us
// override what the script says, and these must not be overridden.
std::vector<std::string> fixed_options(const BlockRequest& request) {
  std::vector<std::string> options = {"--job-name=" + request.job_name,
                                      fmt::format("--nodes={}", request.nodes),
                                      "--ntasks-per-node=1",
                                      "--time=" + time_limit(request.walltime_s),
                                      "--output=" + output_file(request),
                                      "--open-mode=append",
                                      "--no-requeue",
                                      "--no-kill"};
  if (!request.exclude_nodes.empty())
    options.push_back(fmt::format("--exclude={}", fmt::join(request.exclude_nodes, ",")));
  return options;
}

std::vector<std::string> chosen_options(const Settings& settings) {
  std::vector<std::string> options;
  const auto text = [&](const char* name, const std::string& value) {
    if (!value.empty()) options.push_back(fmt::format("--{}={}", name, value));
  };
  text("partition", settings.partition);
  text("account", settings.account);
  text("qos", settings.qos);
  text("constraint", settings.constraint);
  text("clusters", settings.clusters);
  text("gres", settings.gres);
  if (settings.cores_per_node) {
    options.push_back(fmt::format("--cpus-per-task={}", *settings.cores_per_node));
  }
  if (settings.mem_per_node_gib) {
    options.push_back(fmt::format(
        "--mem={}M", static_cast<long long>(std::llround(*settings.mem_per_node_gib * 1024))));
  }
  if (settings.gpus_per_node) {
    options.push_back(fmt::format("--gpus-per-node={}", *settings.gpus_per_node));
  }
  if (settings.exclusive) options.emplace_back("--exclusive");
  return options;
}

// --overlap: the pilot's step must not keep steps of the tasks (mpirun, srun) waiting.
// --export=ALL: without it a job submitted with --export=NONE has no PATH in its steps.
std::string launch_line(const Settings& settings, const BlockRequest& request) {
  if (settings.launcher != "SrunLauncher") {
    return "export FARCALL_NODE_RANK=0\nexec /bin/bash -c " + shell_quote(request.command) + "\n";
  }
  std::string line =
      "exec srun --no-kill --kill-on-bad-exit=0 --wait=0 --overlap --export=ALL --cpu-bind=none "
      "\\\n"
      "  --nodes=\"$SLURM_JOB_NUM_NODES\" --ntasks=\"$SLURM_JOB_NUM_NODES\" --ntasks-per-node=1";
  if (settings.cores_per_node) line += fmt::format(" --cpus-per-task={}", *settings.cores_per_node);
  if (!settings.launcher_overrides.empty()) line += " " + settings.launcher_overrides;
  return line + " \\\n  /bin/bash -c " +
         shell_quote("export FARCALL_NODE_RANK=$SLURM_NODEID\n" + request.command) + "\n";
}

void add_clusters(const Settings& settings, std::vector<std::string>& command) {
  if (!settings.clusters.empty()) command.push_back("--clusters=" + settings.clusters);
}

// "12;cluster" -> "12"
std::string number_of(const std::string& job_id) { return job_id.substr(0, job_id.find(';')); }

std::string joined_numbers(const std::vector<std::string>& job_ids) {
  std::string joined;
  for (const auto& id : job_ids) joined += (joined.empty() ? "" : ",") + number_of(id);
  return joined;
}

}  // namespace

std::string render_script(const Settings& settings, const BlockRequest& request) {
  std::string script = "#!/bin/bash\n";
  for (const auto& option : fixed_options(request)) script += "#SBATCH " + option + "\n";
  for (const auto& option : chosen_options(settings)) script += "#SBATCH " + option + "\n";
  if (!settings.scheduler_options.empty()) script += settings.scheduler_options + "\n";
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

std::vector<std::string> submit_command(const Settings& settings, const BlockRequest& request,
                                        const std::string& script_file) {
  std::vector<std::string> command = {"sbatch", "--parsable"};
  for (auto& option : fixed_options(request)) command.push_back(std::move(option));
  add_clusters(settings, command);
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
  add_clusters(settings, command);
  return command;
}

std::vector<std::string> find_command(const Settings& settings, const std::string& job_name) {
  std::vector<std::string> command = {
      "squeue", "--noheader", "--states=all", "--me",
      "--name", job_name,     "-o",           fmt::format("%i{}%j", kSeparator)};
  add_clusters(settings, command);
  return command;
}

std::vector<std::string> cancel_command(const Settings& settings,
                                        const std::vector<std::string>& job_ids) {
  std::vector<std::string> command = {"scancel"};
  add_clusters(settings, command);
  for (const auto& id : job_ids) command.push_back(number_of(id));
  return command;
}

}  // namespace farcall::providers::slurm
