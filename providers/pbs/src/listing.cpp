// Reading `qstat -f -F json`, which is not always JSON. docs/providers.md tells what goes wrong.
#include <algorithm>
#include <array>
#include <ctime>
#include <nlohmann/json.hpp>

#include "providers/command_text.h"
#include "providers_pbs/pbs_text.h"

namespace farcall::providers::pbs {

using nlohmann::json;

namespace {

std::string as_text(const json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, json::error_handler_t::replace);
}

void flatten(const json& value, const std::string& path, Attributes& out) {
  for (const auto& [name, item] : value.items()) {
    const std::string full = path.empty() ? name : path + "." + name;
    if (item.is_object()) {
      flatten(item, full, out);
    } else {
      out[full] = as_text(item);
    }
  }
}

std::optional<Listing> read_valid(std::string_view text, const std::string& section) {
  const json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object()) return std::nullopt;
  Listing listing;
  if (const auto at = parsed.find("timestamp"); at != parsed.end() && at->is_number())
    listing.timestamp = at->get<long long>();
  if (const auto at = parsed.find("pbs_version"); at != parsed.end())
    listing.version = as_text(*at);
  const auto jobs = parsed.find(section);
  if (jobs == parsed.end() || !jobs->is_object()) return listing;
  for (const auto& [id, job] : jobs->items())
    if (job.is_object()) flatten(job, "", listing.jobs[id]);
  return listing;
}

// The text of a value on the rest of its line: "…", 12, nan. Escapes stay as they are, but for
// quotes and backslashes.
std::string plain_value(std::string_view text) {
  text = trimmed(text);
  if (text.ends_with(',')) text = trimmed(text.substr(0, text.size() - 1));
  if (text.size() < 2 || !text.starts_with('"')) return std::string(text);
  text.remove_prefix(1);
  if (text.ends_with('"')) text.remove_suffix(1);
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '"' || text[i + 1] == '\\')) ++i;
    plain += text[i];
  }
  return plain;
}

// Every version writes one member on a line, and a line for each brace that closes.
Listing read_lines(std::string_view text, const std::string& section) {
  Listing listing;
  std::vector<std::string> path;
  for (const auto raw : split(text, '\n')) {
    const auto line = trimmed(raw);
    if (line == "}" || line == "},") {
      if (!path.empty()) path.pop_back();
      continue;
    }
    const auto quote = line.starts_with('"') ? line.find('"', 1) : std::string_view::npos;
    if (quote == std::string_view::npos) continue;
    std::string name(line.substr(1, quote - 1));
    auto value = trimmed(line.substr(quote + 1));
    if (!value.starts_with(':')) continue;  // the rest of a value with a line break
    value = trimmed(value.substr(1));
    const bool inside_job = path.size() >= 2 && path[0] == section;
    if (value == "{") {
      path.push_back(std::move(name));
      if (path.size() == 2 && path[0] == section) listing.jobs[path[1]];
    } else if (inside_job && value != "{}," && value != "{}") {
      for (std::size_t i = path.size(); i-- > 2;) name = path[i] + "." + name;
      listing.jobs[path[1]].emplace(std::move(name), plain_value(value));
    } else if (path.empty() && name == "timestamp") {
      listing.timestamp = to_number(plain_value(value));
    }
  }
  return listing;
}

std::string attribute(const Attributes& job, std::string_view name) {
  const auto found = job.find(name);
  return found == job.end() ? "" : found->second;
}

std::optional<int> number_of(const Attributes& job, std::string_view name) {
  const auto number = to_number(attribute(job, name));
  return number ? std::optional<int>(static_cast<int>(*number)) : std::nullopt;
}

// "Mon Nov 23 07:28:49 2026", local time without zone.
std::optional<long long> parse_time(const std::string& text) {
  std::tm time{};
  const char* end = strptime(text.c_str(), "%a %b %d %H:%M:%S %Y", &time);
  if (end == nullptr || *end != '\0') return std::nullopt;
  time.tm_isdst = -1;
  return std::mktime(&time);
}

std::optional<double> seconds_of_span(const std::string& text) {  // "01:00:00"
  const auto value = parse_duration(text);
  return value ? std::optional<double>(*value) : std::nullopt;
}

std::optional<double> remaining(const Attributes& job, std::optional<long long> timestamp) {
  const auto limit = seconds_of_span(attribute(job, "Resource_List.walltime"));
  if (!limit) return std::nullopt;
  std::optional<double> used = seconds_of_span(attribute(job, "resources_used.walltime"));
  // What was used is measured every now and then only; the start is exact.
  if (const auto start = parse_time(attribute(job, "stime")); start && timestamp)
    used = static_cast<double>(*timestamp - *start);
  return std::max(0.0, *limit - std::max(0.0, used.value_or(0)));
}

struct NegativeRow {
  int code;
  EndedBy ended_by;
  const char* meaning;
};
// Exit_status below 0 is PBS's own word, JOB_EXEC_* of its sources.
constexpr std::array<NegativeRow, 14> kNegative = {{
    {-1, EndedBy::kFailed, "could not start: before files were staged"},
    {-2, EndedBy::kFailed, "could not start: after files were staged, or no home directory"},
    {-3, EndedBy::kFailed, "could not start, to be tried again"},
    {-4, EndedBy::kNodeFailure, "aborted when its node's MoM started"},
    {-5, EndedBy::kNodeFailure, "aborted when its node's MoM started, checkpointed"},
    {-6, EndedBy::kNodeFailure, "aborted when its node's MoM started, checkpointed"},
    {-10, EndedBy::kFailed, "bad user id"},
    {-11, EndedBy::kPreempted, "started again"},
    {-20, EndedBy::kNodeFailure, "the node was lost"},
    {-25, EndedBy::kOutOfMemory, "exceeded its virtual memory"},
    {-27, EndedBy::kOutOfMemory, "exceeded its memory"},
    {-28, EndedBy::kFailed, "exceeded its cpu time"},
    {-29, EndedBy::kWalltime, "exceeded its walltime"},
    {-30, EndedBy::kNodeFailure, "its nodes could not be joined"},
}};

constexpr int kSubstateDeleted = 91;

void set_negative_end(int code, JobStatus& status) {
  status.ended_by = EndedBy::kFailed;
  const auto row = std::find_if(kNegative.begin(), kNegative.end(),
                                [&](const NegativeRow& each) { return each.code == code; });
  if (row != kNegative.end()) status.ended_by = row->ended_by;
  const std::string meaning = row != kNegative.end() ? row->meaning : "an error of PBS";
  status.reason +=
      fmt::format("{}{} (Exit_status {})", status.reason.empty() ? "" : "; ", meaning, code);
}

// Success is an Exit_status of 0 that is there: a job that never ran is finished without one.
void set_end(const Attributes& job, int substate, JobStatus& status) {
  const auto code = number_of(job, "Exit_status");
  const bool deleted = substate == kSubstateDeleted;
  status.ended_by = deleted ? EndedBy::kCancelled : EndedBy::kFailed;
  if (!code) {
    if (!deleted && status.reason.empty()) status.reason = "finished without ever running";
    return;
  }
  if (*code < 0) return set_negative_end(*code, status);
  if (*code >= 256) {
    status.signal = *code - 256;
  } else {
    status.exit_code = *code;
  }
  if (has(status.reason, "exceeded resource walltime")) {
    status.ended_by = EndedBy::kWalltime;
  } else if (!deleted && has(status.reason, "terminated by")) {
    status.ended_by = EndedBy::kCancelled;
  } else if (!deleted && *code == 0) {
    status.ended_by = EndedBy::kCompleted;
  }
}

std::string reason_of(const Attributes& job, char letter, int substate) {
  std::string reason(trimmed(attribute(job, "comment")));
  if (!reason.empty()) return reason;
  if (letter == 'H') return "held (" + attribute(job, "Hold_Types") + ")";
  if (letter == 'W') return "waits for " + attribute(job, "Execution_Time");
  if (letter == 'R' && substate == 41) return "sent to its node, not yet confirmed";
  return "";
}

}  // namespace

Listing read_listing(std::string_view text, const std::string& section) {
  if (auto listing = read_valid(text, section)) return std::move(*listing);
  return read_lines(text, section);
}

std::vector<Choice> read_queues(const Listing& listing) {
  std::vector<Choice> queues;
  for (const auto& [name, queue] : listing.jobs) {
    if (attribute(queue, "enabled") != "True") continue;
    Choice choice{name, attribute(queue, "total_jobs") + " jobs", false};
    if (const auto limit = attribute(queue, "resources_max.walltime"); !limit.empty())
      choice.note += ", at most " + limit;
    if (attribute(queue, "started") != "True") choice.note += ", stopped";
    queues.push_back(std::move(choice));
  }
  return queues;
}

std::vector<std::string> nodes_of_exec_host(std::string_view text) {
  std::vector<std::string> nodes;
  if (text.empty()) return nodes;
  for (const auto part : split(text, '+')) {
    std::string name(trimmed(part.substr(0, part.find('/'))));
    if (!name.empty() && std::find(nodes.begin(), nodes.end(), name) == nodes.end())
      nodes.push_back(std::move(name));
  }
  return nodes;
}

JobStatus status_of(const std::string& job_id, const Attributes& job,
                    std::optional<long long> timestamp) {
  JobStatus status;
  status.job_id = job_id;
  status.job_name = attribute(job, "Job_Name");
  status.word = attribute(job, "job_state");
  const char letter = status.word.size() == 1 ? status.word[0] : '?';
  const int substate = number_of(job, "substate").value_or(0);
  status.reason = reason_of(job, letter, substate);
  status.nodes = nodes_of_exec_host(attribute(job, "exec_host"));
  if (const auto runs = number_of(job, "run_count"); runs && *runs > 0) status.restarts = *runs - 1;
  switch (letter) {
    case 'Q':
    case 'H':
    case 'W':
    case 'T':
      status.state = JobState::kQueued;
      break;
    case 'R':
    case 'S':
    case 'U':
    case 'B':
      status.state = JobState::kRunning;
      status.remaining_s = remaining(job, timestamp);
      break;
    case 'E':
      status.state = JobState::kEnding;
      break;
    case 'F':
    case 'X':
      status.state = JobState::kEnded;
      set_end(job, substate, status);
      break;
    default:  // M included: another server has it now, and this one says nothing more
      break;
  }
  return status;
}

}  // namespace farcall::providers::pbs
