#include "providers_pbs/records.h"

#include <fstream>

#include "base/files.h"
#include "providers/command_text.h"

namespace farcall::providers::pbs {

namespace fs = std::filesystem;

namespace {
constexpr auto kKeep = std::chrono::hours(14 * 24);
constexpr std::string_view kSubmitted = ".submitted";  // name=…, by the provider
constexpr std::string_view kCancelled = ".cancelled";  // empty, by the provider

bool is_mark(std::string_view file) {
  return file.ends_with(kSubmitted) || file.ends_with(kCancelled);
}
}  // namespace

std::optional<JobRecord> parse_record(std::string_view text) {
  JobRecord record;
  const auto as_int = [](std::string_view value) -> std::optional<int> {
    const auto number = to_number(value);
    return number ? std::optional<int>(static_cast<int>(*number)) : std::nullopt;
  };
  for (const auto line : split(text, '\n')) {
    const auto equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    const auto name = line.substr(0, equals), value = trimmed(line.substr(equals + 1));
    if (name == "name") record.name = value;
    if (name == "ends_at") record.ends_at = to_number(value).value_or(0);
    if (name == "ended") record.ended = to_number(value);
    if (name == "exit_code") record.exit_code = as_int(value);
    if (name == "signal") record.signal = as_int(value);
  }
  if (record.name.empty()) return std::nullopt;
  return record;
}

JobStatus status_from_record(const std::string& job_id, const JobRecord& record) {
  JobStatus status;
  status.job_id = job_id;
  status.job_name = record.name;
  status.word = "not listed";
  status.state = JobState::kEnded;
  status.exit_code = record.exit_code;
  status.signal = record.signal;
  if (record.cancelled) {
    status.ended_by = EndedBy::kCancelled;
  } else if (record.ended && record.exit_code == 0) {
    status.ended_by = EndedBy::kCompleted;
  } else if (record.ended && *record.ended + 1 >= record.ends_at) {
    // A second early at most: PBS looks at the time limit every now and then, and never before it.
    status.ended_by = EndedBy::kWalltime;
  } else if (record.ended) {
    status.ended_by = record.signal ? EndedBy::kCancelled : EndedBy::kFailed;
  } else {
    // Running as far as it knew itself: PBS may have forgotten it for a moment only.
    status.state = JobState::kUnknown;
    status.listed = false;
    status.reason = "not listed; its script had started and did not end in order";
  }
  return status;
}

Result<void> Records::make() const {
  if (auto made = make_directory(folder_, 0700); !made) return fail(made.error());
  std::error_code ignored;
  std::vector<fs::path> old;
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
    const auto age = fs::file_time_type::clock::now() - entry.last_write_time(ignored);
    if (!ignored && age > kKeep) old.push_back(entry.path());
  }
  for (const auto& path : old) fs::remove(path, ignored);
  return {};
}

std::optional<JobRecord> Records::find(const std::string& job_id) const {
  std::error_code ignored;
  const auto mark = [&](std::string_view suffix) {
    return folder_ / (job_id + std::string(suffix));
  };
  const bool cancelled = fs::exists(mark(kCancelled), ignored);
  auto text = read_file(folder_ / job_id);
  if (!text && cancelled) text = read_file(mark(kSubmitted));  // it never started
  if (!text) return std::nullopt;
  auto record = parse_record(*text);
  if (record) record->cancelled = cancelled;
  return record;
}

std::vector<std::string> Records::ids_of_name(const std::string& job_name) const {
  std::vector<std::string> ids;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
    const std::string id = entry.path().filename();
    if (id.starts_with('.') || is_mark(id)) continue;
    const auto text = read_file(entry.path());
    const auto record = text ? parse_record(*text) : std::nullopt;
    if (record && record->name == job_name) ids.push_back(id);
  }
  return ids;
}

void Records::note_submit(const std::string& job_id, const std::string& job_name) const {
  static_cast<void>(
      write_file(folder_ / (job_id + std::string(kSubmitted)), "name=" + job_name + "\n"));
}

void Records::note_cancel(const std::string& job_id) const {
  static_cast<void>(write_file(folder_ / (job_id + std::string(kCancelled)), ""));
}

}  // namespace farcall::providers::pbs
