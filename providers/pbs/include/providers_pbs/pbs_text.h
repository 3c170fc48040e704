// What is said to PBS (OpenPBS, PBS Pro) and how its answers are read: pure functions, tested on
// captures of a real server and two versions of its clients. Nothing here runs a command.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/subprocess.h"
#include "providers/batch_script.h"
#include "providers/provider.h"

namespace farcall::providers::pbs {

struct Settings {
  std::string queue, account;  // "": not said to PBS
  std::string select_options;  // after select=N:ncpus=C, such as ngpus=4
  std::string place = "scatter";
  int cpus_per_node = 1;
  DirectiveChanges changes;
  std::string worker_init;
  Launcher launcher;
  double cmd_timeout_s = 120;
  std::string records;  // folder of the records that jobs write, see records.h
};

std::vector<ConfigKey> schema();
// kConfig for what the table of keys cannot say, such as a line break in an option.
Result<Settings> settings_from_json(const nlohmann::json& config);

// "#PBS -l select=2" -> "l:select", "#PBS -W umask=022" -> "W:umask", "#PBS -q short" -> "q".
std::optional<std::string> directive_of_line(std::string_view line);
std::string render_script(const Settings& settings, const BlockRequest& request);

// The variables of `ours` that PBS commands get, NAME=VALUE: those they need, plain ASCII. qsub
// copies its environment into the job's description, and one strange value spoils all listings.
std::vector<std::string> clean_environment(const std::map<std::string, std::string>& ours);

std::vector<std::string> submit_command(const std::string& script_file, bool held = false);
Result<SubmitReply> read_submit(const CommandOutput& output);
// Slurm ships a `qsub` that translates for sbatch; its `qstat` has nothing of what is needed here.
bool is_slurms_wrapper(std::string_view text_of_program);

// One command for all ids; with `history` finished jobs are listed too, if the server keeps them.
std::vector<std::string> status_command(const std::vector<std::string>& job_ids, bool history);
std::vector<std::string> find_command(const std::string& job_name, bool history);
bool says_no_history(const CommandOutput& output);
Result<std::vector<JobStatus>> read_status(const CommandOutput& output,
                                           const std::vector<std::string>& job_ids);
Result<std::vector<std::string>> read_find(const CommandOutput& output);

std::vector<std::string> cancel_command(const std::vector<std::string>& job_ids);
Result<void> read_cancel(const CommandOutput& output);

// "12.server", "12[].server", "12[3].server"
bool is_job_id(std::string_view text);

// ---- listings -----------------------------------------------------------------------------------

// Attributes by their dotted names, as text: "Resource_List.walltime" -> "01:00:00".
using Attributes = std::map<std::string, std::string, std::less<>>;
struct Listing {
  std::optional<long long> timestamp;      // of the server's answer, seconds since 1970
  std::string version;                     // of the server
  std::map<std::string, Attributes> jobs;  // by id
};
// What `qstat -f -F json` printed. Reads what is no JSON as well: version 23.06.06 and older write
// nan, .5, bad escapes and broken UTF-8 as they come.
// `section`: "Jobs", or "Queue" of `qstat -Q`.
Listing read_listing(std::string_view text, const std::string& section = "Jobs");
JobStatus status_of(const std::string& job_id, const Attributes& job,
                    std::optional<long long> timestamp);
// Queues that take jobs; none is preferred: the server has a default of its own.
std::vector<Choice> read_queues(const Listing& listing);
// "n1/0*2+n2/1" -> n1 n2
std::vector<std::string> nodes_of_exec_host(std::string_view text);

}  // namespace farcall::providers::pbs
