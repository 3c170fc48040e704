// What a cluster has to offer, and whether it would take a job.
#include <algorithm>

#include "providers_slurm/slurm_text.h"

namespace farcall::providers::slurm {

std::vector<std::string> try_command(const Settings& settings, const BlockRequest& request,
                                     const std::string& script_file) {
  std::vector<std::string> command = submit_command(settings, request, script_file);
  command.insert(command.begin() + 1, "--test-only");
  return command;
}

// Its answer is on standard error, also when all is well.
Result<std::string> read_try(const CommandOutput& output) {
  if (output.timed_out)
    return fail(ErrorCode::kSchedulerUnavailable, "sbatch --test-only: no answer in {:.0f} s",
                seconds_of(output.took));
  if (output.exit_code != 0)
    return fail(ErrorCode::kSchedulerRefused, "sbatch --test-only: {}", words_of(output));
  return words_of(output);
}

std::vector<std::string> partitions_command() {
  return {"sinfo", "--noheader", "-o", "%P|%a|%l|%D|%c|%m|%G"};
}

std::vector<std::string> accounts_command(const std::string& user) {
  return {"sacctmgr", "--noheader",   "--parsable2",   "show",
          "assoc",    "user=" + user, "format=Account"};
}

// A partition has a line for each kind of node; the first one counts.
std::vector<Choice> read_partitions(std::string_view output) {
  std::vector<Choice> found;
  for (const auto line : split(output, '\n')) {
    const auto field = split(trimmed(line), '|');
    if (field.size() != 7 || field[0].empty()) continue;
    Choice choice;
    choice.preferred = field[0].ends_with('*');
    choice.value = field[0].substr(0, field[0].size() - (choice.preferred ? 1 : 0));
    const auto same = [&](const Choice& other) { return other.value == choice.value; };
    if (std::any_of(found.begin(), found.end(), same)) continue;
    choice.note = fmt::format("{} nodes, {} cores and {} MiB each, at most {}", field[3], field[4],
                              field[5], field[2]);
    if (field[6] != "(null)") choice.note += fmt::format(", {}", field[6]);
    if (field[1] != "up") choice.note += fmt::format(", {}", field[1]);
    found.push_back(std::move(choice));
  }
  return found;
}

std::vector<Choice> read_accounts(std::string_view output) {
  std::vector<Choice> found;
  for (const auto line : split(output, '\n')) {
    const std::string name(trimmed(line));
    const auto same = [&](const Choice& other) { return other.value == name; };
    if (!name.empty() && std::none_of(found.begin(), found.end(), same))
      found.push_back({name, "", found.empty()});
  }
  return found;
}

}  // namespace farcall::providers::slurm
