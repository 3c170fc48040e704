// Reading what PBS answered. docs/providers.md tells the cases; the unit tests hold captures.
#include <algorithm>
#include <cctype>

#include "providers/command_text.h"
#include "providers_pbs/pbs_text.h"

namespace farcall::providers::pbs {

namespace {

// Exit codes of the clients: the server's error modulo 256, unless the client itself complains.
enum Code : int {
  kUnknownJob = 153,
  kInvalidRequest = 156,
  kUnauthorized = 159,
  kUnknownHost = 160,
  kCannotConnect = 162,
  kJobFinished = 35,
  kNoHistory = 36,
  kEntityLimit = 38,
  kMaxQueued = 198,
  kQueueDisabled = 173,
  kClientFailed = 255,
};

// Answers that are final: the same request will be refused again.
constexpr int kRefusals[] = {1,   2,   3,   5,  kInvalidRequest, kUnauthorized, 166, 170,
                             175, 187, 188, 197};

bool among(int code, const int* first, const int* last) {
  return std::find(first, last, code) != last;
}

// The server was not reached, so it has surely taken nothing. "env:" is what starts our commands.
bool surely_not_sent(const CommandOutput& output) {
  return output.exit_code == kUnknownHost || output.exit_code == kCannotConnect ||
         has_any(output.err,
                 {"cannot connect to server", "Couldn't connect to cluster",
                  "Unable to authenticate connection", "pbs conf variables not found"}) ||
         (output.exit_code == 127 && output.err.starts_with("env: "));
}

tl::unexpected<Error> unreachable(const char* what, const CommandOutput& output) {
  if (output.exit_code == 127)
    return fail(ErrorCode::kSchedulerUnavailable, "{}; is PBS's client installed here?",
                words_of(output));
  return fail(ErrorCode::kSchedulerUnavailable, "{}: {}", what, words_of(output));
}

tl::unexpected<Error> no_answer(const char* what, const CommandOutput& output, ErrorCode code,
                                const char* consequence) {
  return fail(code,
              "{}: no answer in {:.0f} s, command killed{}; the server hangs, or this host has run "
              "out of privileged ports",
              what, seconds_of(output.took), consequence);
}

tl::unexpected<Error> query_failed(const char* what, const CommandOutput& output) {
  if (output.timed_out) return no_answer(what, output, ErrorCode::kSchedulerUnavailable, "");
  if (surely_not_sent(output)) return unreachable(what, output);
  if (output.exit_code == kClientFailed || output.exit_code > 128 + 64 || output.err.empty())
    return fail(ErrorCode::kSchedulerUnavailable, "{} (exit code {}): {}", what, output.exit_code,
                words_of(output));
  return fail(ErrorCode::kSchedulerRefused, "{} (exit code {}): {}", what, output.exit_code,
              words_of(output));
}

// "12.server" -> "12": servers have aliases, and answer with another one after a move.
std::string_view number_of(std::string_view job_id) { return job_id.substr(0, job_id.find('.')); }

// The job may still turn up in what a killed or odd qsub left behind.
tl::unexpected<Error> unsure(const CommandOutput& output) {
  return fail(ErrorCode::kOutcomeUnknown, "qsub (exit code {}): {}; the job may have been accepted",
              output.exit_code, words_of(output));
}

}  // namespace

bool is_job_id(std::string_view text) {
  const auto digits = text.find_first_not_of("0123456789");
  if (digits == 0 || digits == std::string_view::npos) return false;
  auto rest = text.substr(digits);
  if (rest.starts_with('[')) {
    const auto close = rest.find(']');
    if (close == std::string_view::npos) return false;
    rest = rest.substr(close + 1);
  }
  return rest.size() > 1 && rest[0] == '.' &&
         std::all_of(rest.begin(), rest.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_' || c == '@';
         });
}

bool is_slurms_wrapper(std::string_view text) {
  return text.starts_with("#!") && has(text, "sbatch");
}

bool says_no_history(const CommandOutput& output) {
  return !output.timed_out && (output.exit_code == kNoHistory ||
                               has(output.err, "not configured to maintain job history"));
}

Result<SubmitReply> read_submit(const CommandOutput& output) {
  if (output.timed_out)
    return no_answer("qsub", output, ErrorCode::kOutcomeUnknown,
                     "; the job may have been accepted");
  if (output.exit_code == 0) {
    // A site's wrapper may print lines before the id.
    for (const auto line : split(output.out, '\n'))
      if (const auto text = trimmed(line); is_job_id(text)) return SubmitReply{std::string(text)};
    return fail(ErrorCode::kOutcomeUnknown, "qsub: ended well and printed no job id: {}",
                words_of(output));
  }
  if (surely_not_sent(output)) return unreachable("qsub", output);
  switch (output.exit_code) {
    case kEntityLimit:
    case kMaxQueued:
    case kQueueDisabled:
      return fail(ErrorCode::kSchedulerLimit, "{}", words_of(output));
    default:
      break;
  }
  // A usage text of a dozen lines helps nobody.
  CommandOutput said = output;
  if (const auto usage = said.err.find("usage: "); usage != std::string::npos && usage > 0)
    said.err.resize(usage);
  if (among(output.exit_code, std::begin(kRefusals), std::end(kRefusals)) && !output.err.empty())
    return fail(ErrorCode::kSchedulerRefused, "{}", words_of(said));
  return unsure(output);
}

// With -E, unknown ids are left out without a word; without history, so are those that have ended.
Result<std::vector<JobStatus>> read_status(const CommandOutput& output,
                                           const std::vector<std::string>& job_ids) {
  const bool answered =
      !output.timed_out && (output.exit_code == 0 || output.exit_code == kUnknownJob ||
                            output.exit_code == kJobFinished || output.exit_code == kNoHistory);
  if (!answered) return query_failed("qstat", output);
  const Listing listing = read_listing(output.out);
  std::map<std::string, const Attributes*, std::less<>> by_number;
  for (const auto& [id, job] : listing.jobs) by_number[std::string(number_of(id))] = &job;
  std::vector<JobStatus> jobs;
  for (const auto& id : job_ids) {
    const auto found = by_number.find(number_of(id));
    jobs.push_back(found == by_number.end() ? not_listed(id)
                                            : status_of(id, *found->second, listing.timestamp));
  }
  return jobs;
}

Result<std::vector<std::string>> read_find(const CommandOutput& output) {
  if (output.timed_out || output.exit_code != 0) return query_failed("qselect", output);
  std::vector<std::string> ids;
  for (const auto line : split(output.out, '\n'))
    if (const auto text = trimmed(line); is_job_id(text)) ids.emplace_back(text);
  return ids;
}

// The good ones of a list are deleted, whatever is said of the others.
Result<void> read_cancel(const CommandOutput& output) {
  if (output.timed_out)
    return no_answer("qdel", output, ErrorCode::kOutcomeUnknown,
                     "; jobs on a node that is cut off are deleted when it counts as down");
  if (output.exit_code == 0) return {};
  if (surely_not_sent(output)) return unreachable("qdel", output);
  for (const auto line : split(output.err, '\n')) {
    const auto text = trimmed(line);
    if (!text.empty() && !has_any(text, {"Unknown Job Id", "Job has finished"}))
      return fail(output.exit_code == kClientFailed ? ErrorCode::kOutcomeUnknown
                                                    : ErrorCode::kSchedulerRefused,
                  "{}", words_of(output));
  }
  if (output.exit_code == kUnknownJob || output.exit_code == kJobFinished) return {};
  return fail(ErrorCode::kOutcomeUnknown, "qdel (exit code {}): {}", output.exit_code,
              words_of(output));
}

}  // namespace farcall::providers::pbs
