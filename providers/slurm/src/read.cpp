// Reading what Slurm answered. docs/providers.md tells the cases; the unit tests hold captures.
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>

#include "providers_slurm/slurm_text.h"

namespace farcall::providers::slurm {

namespace {

constexpr char kSeparator = '\x1f';

struct StateRow {
  std::string_view word;
  JobState state;
  EndedBy ended_by = EndedBy::kUnknown;
};

// Every state of Slurm's job_states and job state flags, by its long name.
constexpr std::array<StateRow, 26> kStates = {{
    {"PENDING", JobState::kQueued},
    {"CONFIGURING", JobState::kQueued},
    {"REQUEUED", JobState::kQueued},
    {"REQUEUE_HOLD", JobState::kQueued},
    {"REQUEUE_FED", JobState::kQueued},
    {"RESV_DEL_HOLD", JobState::kQueued},
    {"SPECIAL_EXIT", JobState::kQueued},
    {"RUNNING", JobState::kRunning},
    {"SIGNALING", JobState::kRunning},
    {"RESIZING", JobState::kRunning},
    {"STOPPED", JobState::kRunning},
    {"SUSPENDED", JobState::kRunning},
    {"COMPLETING", JobState::kEnding},
    {"STAGE_OUT", JobState::kEnding},
    {"COMPLETED", JobState::kEnded, EndedBy::kCompleted},
    {"CANCELLED", JobState::kEnded, EndedBy::kCancelled},
    {"REVOKED", JobState::kEnded, EndedBy::kCancelled},
    {"FAILED", JobState::kEnded, EndedBy::kFailed},
    {"LAUNCH_FAILED", JobState::kEnded, EndedBy::kFailed},
    {"RECONFIG_FAIL", JobState::kEnded, EndedBy::kFailed},
    {"TIMEOUT", JobState::kEnded, EndedBy::kWalltime},
    {"DEADLINE", JobState::kEnded, EndedBy::kWalltime},
    {"NODE_FAIL", JobState::kEnded, EndedBy::kNodeFailure},
    {"BOOT_FAIL", JobState::kEnded, EndedBy::kNodeFailure},
    {"PREEMPTED", JobState::kEnded, EndedBy::kPreempted},
    {"OUT_OF_MEMORY", JobState::kEnded, EndedBy::kOutOfMemory},
}};

const StateRow* find_state(std::string_view word) {
  const auto found = std::find_if(kStates.begin(), kStates.end(),
                                  [&](const StateRow& row) { return row.word == word; });
  return found == kStates.end() ? nullptr : &*found;
}

// Refused before the request could be in the controller's hands.
bool surely_not_sent(std::string_view text) {
  return has_any(text, {"(connect failure)", "Munge encode failed", "Failed to access \"/",
                        "Unable to open slurm.conf", "Could not establish a configuration source",
                        "Protocol authentication error", "Invalid authentication credential",
                        "in standby mode", "Unable to resolve", "Name or service not known"});
}

// The request may have been taken and the answer lost.
bool perhaps_sent(std::string_view text) {
  return has_any(
      text, {"timed out", "Unable to contact slurm controller", "Zero Bytes were transmitted",
             "Unexpected message received", "Connection reset", "Broken pipe", "Transport endpoint",
             "Unspecified error", "message length", "temporarily unable to accept job, sleeping"});
}

bool is_limit(std::string_view text) {
  if (has_any(text,
              {"MaxSubmit", "GrpSubmit", "MaxJobs", "GrpJobs", "temporarily unable to accept job",
               "Resource temporarily unavailable", "Too many jobs"})) {
    return true;
  }
  // With a limit that is named (QOSMaxWallDurationPerJobLimit …) waiting does not help.
  return has(text, "Job violates accounting/QOS policy") &&
         !has_any(text, {"QOSM", "QOSG", "Assoc"});
}

// A query or cancel that failed: what the caller may do about it.
tl::unexpected<Error> query_failed(const char* what, const CommandOutput& output,
                                   ErrorCode when_timed_out) {
  if (output.timed_out) {
    return fail(when_timed_out, "{}: no answer from Slurm in {:.0f} s, command killed", what,
                seconds_of(output.took));
  }
  if (surely_not_sent(output.err)) {
    return fail(ErrorCode::kSchedulerUnavailable, "{}: {}", what, words_of(output));
  }
  if (perhaps_sent(output.err)) return fail(when_timed_out, "{}: {}", what, words_of(output));
  return fail(ErrorCode::kSchedulerRefused, "{} (exit code {}): {}", what, output.exit_code,
              words_of(output));
}

std::string reason_of(std::string_view reason) {
  return reason == "None" || reason == "(null)" ? "" : std::string(reason);
}

void set_exit(std::string_view field, JobStatus& status) {
  const auto raw = to_number(field);
  if (!raw) return;
  const int wait_status = static_cast<int>(*raw);
  if (WIFSIGNALED(wait_status)) {
    status.signal = WTERMSIG(wait_status);
  } else {
    status.exit_code = WEXITSTATUS(wait_status);
  }
}

std::optional<JobStatus> read_job(std::string_view line) {
  const auto raw = split(line, kSeparator);
  if (raw.size() < 8) return std::nullopt;
  std::vector<std::string_view> field;
  for (const auto part : raw) field.push_back(trimmed(part));
  if (!to_number(field[0])) return std::nullopt;

  JobStatus status;
  status.job_id = field[0];
  status.word = field[1];
  status.job_name = field[5];
  status.reason = reason_of(field[6]);
  status.nodes = expand_nodes(field[7]);
  if (const auto restarts = to_number(field[4])) status.restarts = static_cast<int>(*restarts);
  const StateRow* row = find_state(status.word);
  if (row == nullptr) return status;
  status.state = row->state;
  if (status.state == JobState::kEnded) {
    status.ended_by = row->ended_by;
    set_exit(field[3], status);
  }
  if (status.state == JobState::kRunning) status.remaining_s = parse_time_left(field[2]);
  return status;
}

// "CLUSTER: name" stands before the jobs of each cluster when --clusters was given.
std::optional<std::string_view> cluster_header(std::string_view line) {
  constexpr std::string_view kHeader = "CLUSTER:";
  if (!line.starts_with(kHeader)) return std::nullopt;
  return trimmed(line.substr(kHeader.size()));
}

}  // namespace

Result<SubmitReply> read_submit(const CommandOutput& output) {
  if (output.timed_out) {
    return fail(ErrorCode::kOutcomeUnknown,
                "sbatch: no answer in {:.0f} s, command killed; the job may have been accepted",
                seconds_of(output.took));
  }
  if (output.exit_code == 0) {
    // Warnings go to stderr; a site's wrapper may print lines before the id.
    for (const auto line : split(output.out, '\n')) {
      const auto text = trimmed(line);
      if (to_number(text.substr(0, text.find(';')))) return SubmitReply{std::string(text)};
    }
    return fail(ErrorCode::kOutcomeUnknown, "sbatch: ended well and printed no job id: {}",
                words_of(output));
  }
  const std::string_view text = output.err;
  const bool killed = output.exit_code > 128 && output.exit_code <= 128 + 64;  // by a signal
  if (surely_not_sent(text)) {
    return fail(ErrorCode::kSchedulerUnavailable, "sbatch: {}", words_of(output));
  }
  if (perhaps_sent(text) || killed || text.empty()) {
    return fail(ErrorCode::kOutcomeUnknown,
                "sbatch (exit code {}): {}; the job may have been accepted", output.exit_code,
                words_of(output));
  }
  if (is_limit(text)) return fail(ErrorCode::kSchedulerLimit, "sbatch: {}", words_of(output));
  if (has(text, "error") || output.exit_code == 1 || output.exit_code == 255) {
    return fail(ErrorCode::kSchedulerRefused, "sbatch: {}", words_of(output));
  }
  return fail(ErrorCode::kOutcomeUnknown,
              "sbatch (exit code {}): {}; the job may have been accepted", output.exit_code,
              words_of(output));
}

Result<std::vector<JobStatus>> read_status(const CommandOutput& output,
                                           const std::vector<std::string>& job_ids) {
  std::map<std::string, JobStatus> known;  // under "12" and, if a cluster is named, "12;cluster"
  const bool none_known = has(output.err, "Invalid job id specified");
  if (output.timed_out || (output.exit_code != 0 && !none_known)) {
    return query_failed("squeue", output, ErrorCode::kSchedulerUnavailable);
  }
  std::string cluster;
  for (const auto line : split(output.out, '\n')) {
    if (const auto header = cluster_header(line)) {
      cluster = *header;
    } else if (auto job = read_job(line)) {
      const std::string number = job->job_id;
      if (!cluster.empty()) known[number + ";" + cluster] = *job;
      known[number] = std::move(*job);
    }
  }
  std::vector<JobStatus> jobs;
  for (const auto& id : job_ids) {
    auto found = known.find(id);
    if (found == known.end() && cluster.empty()) found = known.find(id.substr(0, id.find(';')));
    jobs.push_back(found == known.end() ? not_listed(id) : found->second);
    jobs.back().job_id = id;
  }
  return jobs;
}

Result<std::vector<std::string>> read_find(const CommandOutput& output,
                                           const std::string& job_name) {
  if (output.timed_out || output.exit_code != 0) {
    return query_failed("squeue", output, ErrorCode::kSchedulerUnavailable);
  }
  std::vector<std::string> ids;
  std::string suffix;
  for (const auto line : split(output.out, '\n')) {
    if (const auto header = cluster_header(line)) {
      suffix = ";" + std::string(*header);
      continue;
    }
    const auto field = split(line, kSeparator);
    if (field.size() == 2 && trimmed(field[1]) == job_name) {
      ids.push_back(std::string(trimmed(field[0])) + suffix);
    }
  }
  return ids;
}

Result<void> read_cancel(const CommandOutput& output) {
  if (!output.timed_out && output.exit_code == 0) return {};
  const bool only_unknown = has(output.err, "Invalid job id specified") &&
                            !surely_not_sent(output.err) && !perhaps_sent(output.err) &&
                            !has(output.err, "denied");
  if (!output.timed_out && only_unknown) return {};
  return query_failed("scancel", output, ErrorCode::kOutcomeUnknown);
}

namespace {

// "n" + "1-3,07" -> n1 n2 n3 n07
bool expand_brackets(std::string_view prefix, std::string_view ranges,
                     std::vector<std::string>& nodes) {
  for (const auto range : split(ranges, ',')) {
    const auto dash = range.find('-');
    const auto first_text = range.substr(0, dash);
    const auto last_text = dash == std::string_view::npos ? first_text : range.substr(dash + 1);
    const auto first = to_number(first_text), last = to_number(last_text);
    if (!first || !last || *last < *first || *last - *first > 100000) return false;
    for (long long i = *first; i <= *last; ++i) {
      nodes.push_back(fmt::format("{}{:0{}}", prefix, i, first_text.size()));
    }
  }
  return true;
}

// One comma-separated part, which may have several pairs of brackets: r[1-2]n[1-4].
bool expand_part(std::string_view part, std::vector<std::string>& nodes) {
  std::vector<std::string> made = {""};
  while (!part.empty()) {
    const auto open = part.find('[');
    const auto close = part.find(']');
    if (open == std::string_view::npos) {
      if (close != std::string_view::npos) return false;
      for (auto& name : made) name += part;
      break;
    }
    if (close == std::string_view::npos || close < open) return false;
    std::vector<std::string> longer;
    for (const auto& name : made) {
      if (!expand_brackets(name + std::string(part.substr(0, open)),
                           part.substr(open + 1, close - open - 1), longer)) {
        return false;
      }
    }
    made = std::move(longer);
    part.remove_prefix(close + 1);
  }
  nodes.insert(nodes.end(), made.begin(), made.end());
  return true;
}

}  // namespace

std::vector<std::string> expand_nodes(std::string_view list) {
  std::vector<std::string> nodes;
  std::size_t start = 0;
  int depth = 0;
  if (list.empty() || list == "(null)" || list == "n/a") return nodes;
  for (std::size_t i = 0; i <= list.size(); ++i) {
    const char c = i == list.size() ? ',' : list[i];
    if (c == '[') ++depth;
    if (c == ']') --depth;
    if (c != ',' || (depth != 0 && i != list.size())) continue;
    if (depth != 0 || !expand_part(list.substr(start, i - start), nodes)) return {};
    start = i + 1;
  }
  return nodes;
}

std::optional<double> parse_time_left(std::string_view text) {
  double days = 0;
  if (const auto dash = text.find('-'); dash != std::string_view::npos) {
    const auto number = to_number(text.substr(0, dash));
    if (!number) return std::nullopt;
    days = static_cast<double>(*number);
    text.remove_prefix(dash + 1);
  }
  double total = 0;
  for (const auto part : split(text, ':')) {
    const auto number = to_number(part);
    if (!number) return std::nullopt;
    total = total * 60 + static_cast<double>(*number);
  }
  return days * 86400 + total;
}

}  // namespace farcall::providers::slurm
