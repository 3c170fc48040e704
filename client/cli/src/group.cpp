// farcall group …
#include <unistd.h>

#include <set>

#include "base/files.h"
#include "campaign_file.h"
#include "cli/result_file.h"
#include "cli/table.h"
#include "common.h"
#include "progress_line.h"

namespace farcall::cli {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

constexpr int kPage = 500;

std::vector<std::string> group_row(const json& group) {
  return {text_at(group, "group"),     text_at(group, "submissions"), text_at(group, "tasks"),
          text_at(group, "succeeded"), text_at(group, "failed"),      text_at(group, "cancelled"),
          text_at(group, "pending")};
}
const std::vector<std::string> kHeading = {"GROUP",  "SUBMISSIONS", "TASKS",  "SUCCEEDED",
                                           "FAILED", "CANCELLED",   "PENDING"};

Result<json> groups_at(Client& client) {
  auto answer = call_json(client, "group.list");
  if (!answer) return fail(answer.error());
  return answer->value("groups", json::array());
}

Result<int> list(const Invocation& invocation) {
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto groups = groups_at(**client);
  if (!groups) return fail(groups.error());
  if (invocation.json) {
    print_json({{"groups", *groups}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const json& group : *groups) rows.push_back(group_row(group));
  fmt::print("{}", format_table(kHeading, rows));
  return 0;
}

Error no_group(const std::string& name) {
  return {ErrorCode::kNotFound,
          fmt::format("no group \"{}\": nothing was submitted under that name; see `farcall group "
                      "list`",
                      name)};
}

Result<int> status(const Invocation& invocation) {
  const std::string& name = invocation.words[0];
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto groups = groups_at(**client);
  if (!groups) return fail(groups.error());
  for (const json& group : *groups) {
    if (text_at(group, "group") != name) continue;
    if (invocation.json)
      print_json(group);
    else
      fmt::print("{}", format_table(kHeading, {group_row(group)}));
    return 0;
  }
  return fail(no_group(name));
}

// All submissions of a group, oldest first.
Result<std::vector<json>> submissions_of(Client& client, const std::string& group) {
  std::vector<json> all;
  std::string before;
  while (true) {
    json parameters = {{"group", group}, {"limit", kPage}};
    if (!before.empty()) parameters["before"] = before;
    auto answer = call_json(client, "submission.list", parameters);
    if (!answer) return fail(answer.error());
    const json page = answer->value("submissions", json::array());
    for (const json& item : page) all.push_back(item);
    if (page.size() < kPage) break;
    before = text_at(page.back(), "submission_id");
  }
  std::reverse(all.begin(), all.end());
  if (all.empty()) return fail(no_group(group));
  return all;
}

// Where results wait until they can be written in order: beside the output, or in $TMPDIR.
fs::path partial_path(const Invocation& invocation) {
  if (invocation.has("output")) return invocation.text("output") + ".partial";
  return fs::temp_directory_path() / fmt::format("farcall-group-{}.jsonl", ::getpid());
}

class GroupResults {
 public:
  GroupResults(const Invocation& invocation, Client& client)
      : invocation_(invocation),
        client_(client),
        partial_(partial_path(invocation)),
        out_(invocation.text("output")) {}
  ~GroupResults() {
    std::error_code ignored;
    fs::remove(partial_, ignored);
  }

  Result<int> run() {
    if (auto ready = look_at_output(); !ready) return fail(ready.error());
    auto submissions = submissions_of(client_, invocation_.words[0]);
    if (!submissions) return fail(submissions.error());
    std::error_code ignored;
    fs::remove(partial_, ignored);
    auto results = ResultFile::open(partial_);
    if (!results) return fail(results.error());
    if (auto done = collect(*submissions, *results); !done) {
      if (!interrupted()) return fail(done.error());
      fmt::print(stderr,
                 "farcall: interrupted; nothing was written, all results stay at the relay\n");
      return kInterruptedExitCode;
    }
    if (auto written = write(*submissions, *results); !written) return fail(written.error());
    return finish(*results);
  }

 private:
  // Its format, and what an earlier call has put there: that stays, whether the relay still has it
  // or not.
  Result<void> look_at_output() {
    if (!invocation_.has("output")) return {};
    campaign_ = is_campaign_file(out_);
    auto format = campaign_ ? RowFormat::kJsonLines : row_format(out_);
    if (!format)
      return fail(ErrorCode::kInvalidArgument,
                  "-o {}: expected a name that ends in .jsonl, .csv or .h5", out_.string());
    format_ = *format;
    auto there = campaign_ ? task_ids_in_campaign(out_) : task_ids_in(out_, format_);
    if (!there) return fail(there.error());
    there_ = std::move(*there);
    return {};
  }

  // Of a submission, what is in the output already.
  RangeSet have(const SubmissionId& id, const json& item) {
    RangeSet ranges;
    const auto count = static_cast<std::uint32_t>(number_at(item, "received"));
    for (std::uint32_t index = 0; index < count && !there_.empty(); ++index)
      if (there_.contains(TaskId{id, index}.string())) ranges.insert(index);
    had_ += ranges.count();
    return ranges;
  }

  Result<void> collect(const std::vector<json>& submissions, ResultFile& results) {
    catch_interrupts();
    CollectRequest request;
    request.only_finished = !invocation_.has("wait");
    for (const json& item : submissions) {
      auto id = SubmissionId::parse(text_at(item, "submission_id"));
      if (!id) return fail(id.error());
      parts_[*id] = static_cast<std::uint32_t>(parts_.size());
      ids_.push_back(*id);
      request.submissions.push_back({*id, have(*id, item), true});
      total_ += static_cast<std::uint64_t>(number_at(item, "received"));
    }
    ProgressLine bar(invocation_, total_, had_);
    Result<void> written;
    request.on_outcomes = [&](OutcomeBatch& batch) {
      for (const Outcome& outcome : batch.outcomes)
        if (auto added = add(results, batch.submission, outcome); !added) written = added;
      bar.update(had_ + results.size(), results.failed(), 0);
    };
    request.keep_going = [&] { return !interrupted() && written.has_value(); };
    auto done = client_.collect(std::move(request));
    if (!written) return written;
    if (!done) return fail(done.error());
    return {};
  }

  Result<void> add(ResultFile& results, const SubmissionId& id, const Outcome& outcome) {
    const std::uint32_t part = parts_.at(id);
    if (campaign_) return results.add(campaign_line(id, outcome), part, outcome.data.view());
    json line = outcome_json(outcome);
    line["task_id"] = TaskId{id, outcome.task.index}.string();
    return results.add(line, part);
  }

  Result<void> write(const std::vector<json>& submissions, ResultFile& results) {
    if (!invocation_.has("output")) return results.print_ordered(stdout);
    if (campaign_)
      return write_campaign(client_, {invocation_.words[0], submissions, false}, results, out_);
    return results.write_ordered(out_, format_, !there_.empty());
  }

  Result<int> finish(ResultFile& results) {
    std::map<std::uint32_t, RangeSet> indices;
    results.for_each_index(
        [&](std::uint32_t index, std::uint32_t part) { indices[part].insert(index); });
    for (auto& [part, ranges] : indices) client_.collected(ids_[part], std::move(ranges));
    (void)client_.flush();
    const std::uint64_t missing = total_ - std::min<std::uint64_t>(total_, had_ + results.size());
    if (invocation_.has("output")) {
      if (invocation_.json)
        print_json({{"output", out_.string()},
                    {"results", there_.size() + results.size()},
                    {"added", results.size()},
                    {"failed", results.failed()},
                    {"unfinished", missing}});
      else if (there_.empty())
        fmt::print("{} results ({} failed) in {}\n", results.size(), results.failed(),
                   out_.string());
      else
        fmt::print("{} new results ({} failed) added to the {} in {}\n", results.size(),
                   results.failed(), there_.size(), out_.string());
    }
    if (missing != 0)
      fmt::print(stderr, "farcall: {} tasks are not finished yet; --wait waits for them\n",
                 missing);
    return results.failed() == 0 ? 0 : error_exit_code(ErrorCode::kTaskFailed);
  }

  const Invocation& invocation_;
  Client& client_;
  const fs::path partial_, out_;
  bool campaign_ = false;
  RowFormat format_ = RowFormat::kJsonLines;
  std::set<std::string> there_;  // task ids in the output
  std::map<SubmissionId, std::uint32_t> parts_;
  std::vector<SubmissionId> ids_;
  std::uint64_t total_ = 0;
  std::uint64_t had_ = 0;  // of them in the output
};

Result<int> results(const Invocation& invocation) {
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  return GroupResults(invocation, **client).run();
}

Result<int> cancel(const Invocation& invocation) {
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto counts = (*client)->cancel_group(invocation.words[0], invocation.has("force"));
  if (!counts) return fail(counts.error());
  if (invocation.json)
    print_json({{"cancelled", counts->cancelled},
                {"requested", counts->requested},
                {"finished", counts->finished}});
  else
    fmt::print("{} cancelled, {} asked to stop, {} finished before\n", counts->cancelled,
               counts->requested, counts->finished);
  return 0;
}

}  // namespace

std::vector<Command> group_commands() {
  return {
      {"group list", "", 0, 0, false, "all my groups", "", "farcall group list", {}, list},
      {"group status",
       "GROUP",
       1,
       1,
       false,
       "how far a group is",
       "",
       "farcall group status night\nfarcall group status night --json",
       {},
       status},
      {"group results",
       "GROUP",
       1,
       1,
       false,
       "the results of a group, in order",
       "Those that are there; with --wait all of them. Reading does not consume them: they stay "
       "at\n"
       "the relay for its result_ttl (7 days) after they were first collected. A file that is "
       "there "
       "is\n"
       "added to: what it has stays, what is missing comes. An .h5 file has the arguments, the "
       "results as\n"
       "arrays, and the functions too (docs/campaign-files.md).",
       "farcall group results night --wait -o night.h5\nfarcall group results night",
       {{"output,o", "FILE", ".jsonl, .csv or .h5 instead of the terminal"},
        {"wait", "", "until all tasks are finished"},
        {"progress", "", "show progress although stderr is no terminal"}},
       results},
      {"group cancel",
       "GROUP",
       1,
       1,
       false,
       "cancel what is not finished",
       "",
       "farcall group cancel night",
       {{"force", "", "record it at once although the endpoint is away"}},
       cancel},
  };
}

}  // namespace farcall::cli
