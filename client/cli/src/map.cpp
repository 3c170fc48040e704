// farcall map: a sweep that can be interrupted and goes on where it was.
#include <atomic>
#include <fstream>
#include <thread>

#include "base/files.h"
#include "base/keys.h"
#include "campaign_file.h"
#include "cli/result_file.h"
#include "common.h"
#include "mpi_options.h"
#include "progress_line.h"

namespace farcall::cli {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

// OUT.map.json: what must be the same for a sweep to go on, written before anything is sent.
struct Plan {
  SubmissionId submission;
  std::int64_t created_ms = 0;
  std::string function_id;
  std::string endpoint_id;
  std::string inputs_hash;
  std::uint32_t count = 0;
  bool complete = false;
  std::uint64_t failed = 0;  // when complete

  json to_json() const {
    return {{"version", 1},
            {"submission_id", submission.string()},
            {"created_ms", created_ms},
            {"function_id", function_id},
            {"endpoint_id", endpoint_id},
            {"inputs_hash", inputs_hash},
            {"count", count},
            {"complete", complete},
            {"failed", failed}};
  }
};

Result<Plan> read_plan(const fs::path& path) {
  auto text = read_file(path);
  if (!text) return fail(text.error());
  const json value = json::parse(*text, nullptr, false);
  auto id = SubmissionId::parse(value.is_object() ? text_at(value, "submission_id") : "");
  if (!id)
    return fail(ErrorCode::kCorrupt, "{} is damaged; remove it to begin anew", path.string());
  Plan plan;
  plan.submission = *id;
  plan.created_ms = number_at(value, "created_ms");
  plan.function_id = text_at(value, "function_id");
  plan.endpoint_id = text_at(value, "endpoint_id");
  plan.inputs_hash = text_at(value, "inputs_hash");
  plan.count = static_cast<std::uint32_t>(number_at(value, "count"));
  plan.complete = value.value("complete", false);
  plan.failed = static_cast<std::uint64_t>(number_at(value, "failed"));
  return plan;
}

// Reads all rows once, so that a wrong line 90,000 is found before anything runs.
Result<void> check_inputs(const fs::path& path, Plan& plan) {
  auto reader = RowReader::open(path);
  if (!reader) return fail(reader.error());
  std::string chain;
  while (true) {
    auto row = reader->next();
    if (!row) return fail(row.error());
    if (!*row) break;
    chain.append((*row)->view());
    chain.push_back('\n');
    if (chain.size() > (1 << 20)) chain = content_hash(chain);
    ++plan.count;
  }
  plan.inputs_hash = content_hash(chain);
  if (plan.count == 0)
    return fail(ErrorCode::kInvalidArgument, "{} has no row: nothing to do", path.string());
  return {};
}

class Sweep {
 public:
  Sweep(const Invocation& invocation, Client& client)
      : invocation_(invocation),
        client_(client),
        inputs_(invocation.words[1]),
        out_(invocation.text("output")),
        plan_path_(out_.string() + ".map.json"),
        partial_path_(out_.string() + ".partial") {}

  Result<int> run() {
    const bool campaign = is_campaign_file(out_);
    auto format = campaign ? RowFormat::kJsonLines : row_format(out_);
    if (!format)
      return fail(ErrorCode::kInvalidArgument,
                  "-o {}: expected a name that ends in .jsonl, .csv or .h5", out_.string());
    if (auto ready = prepare(); !ready) return fail(ready.error());
    if (plan_.complete) {
      fmt::print(stderr,
                 "farcall: {} is complete ({} tasks, {} failed); --again runs the sweep anew\n",
                 out_.string(), plan_.count, plan_.failed);
      return plan_.failed == 0 ? 0 : error_exit_code(ErrorCode::kTaskFailed);
    }
    auto results = ResultFile::open(partial_path_);
    if (!results) return fail(results.error());
    if (auto done = collect(*results); !done) {
      (void)results->sync();
      if (!interrupted()) return fail(done.error());
      fmt::print(stderr,
                 "farcall: interrupted with {} of {} results; the tasks go on, the same command "
                 "fetches the rest\n",
                 results->size(), plan_.count);
      return kInterruptedExitCode;
    }
    return finish(*results, *format);
  }

 private:
  // Finds the plan of an earlier run or writes a new one.
  Result<void> prepare() {
    auto function = find_or_register(client_, invocation_, invocation_.words[0]);
    if (!function) return fail(function.error());
    auto header = header_from(invocation_, client_, *function);
    if (!header) return fail(header.error());
    header_ = std::move(*header);
    Plan fresh;
    fresh.function_id = function->string();
    fresh.endpoint_id = header_.endpoint.string();
    if (auto fine = check_inputs(inputs_, fresh); !fine) return fail(fine.error());
    if (invocation_.has("again")) {
      std::error_code ignored;
      fs::remove(plan_path_, ignored);
      fs::remove(partial_path_, ignored);
    }
    auto old = read_plan(plan_path_);
    if (!old && old.error().code != ErrorCode::kNotFound) return fail(old.error());
    if (!old) {
      if (fs::exists(out_) && !invocation_.has("again"))
        return fail(ErrorCode::kExists,
                    "{} exists and is of no sweep: choose another -o, or --again "
                    "to write over it",
                    out_.string());
      fresh.submission = client_.new_submission_id();
      fresh.created_ms = header_.created_ms;
      std::error_code ignored;
      fs::remove(partial_path_, ignored);
      plan_ = fresh;
      if (auto written = write_plan(); !written) return fail(written.error());
    } else {
      if (auto same = must_be_same(*old, fresh); !same) return fail(same.error());
      plan_ = *old;
      resumed_ = true;
    }
    header_.submission = plan_.submission;
    header_.created_ms = plan_.created_ms;
    return {};
  }

  Result<void> must_be_same(const Plan& old, const Plan& now) const {
    std::string what;
    if (old.function_id != now.function_id)
      what = "the function has changed";
    else if (old.inputs_hash != now.inputs_hash || old.count != now.count)
      what = fmt::format("{} has changed", inputs_.string());
    else if (old.endpoint_id != now.endpoint_id)
      what = "it runs on another endpoint";
    if (what.empty()) return {};
    return fail(
        ErrorCode::kExists,
        "{} belongs to another sweep: {} since; choose another -o, or --again to begin anew",
        plan_path_.string(), what);
  }

  Result<void> write_plan() const { return write_file(plan_path_, plan_.to_json().dump(2) + "\n"); }

  // On a thread of its own: sending waits for acknowledgements while results already come.
  Result<void> send_all(SubmissionWriter& writer) {
    auto reader = RowReader::open(inputs_);
    if (!reader) return fail(reader.error());
    while (!interrupted() && !stop_sending_) {
      auto row = reader->next();
      if (!row) return fail(row.error());
      if (!*row) break;
      if (auto added = writer.add(std::move(**row)); !added) return fail(added.error());
    }
    if (interrupted() || stop_sending_)
      return fail(ErrorCode::kCancelled, "interrupted while the inputs were sent");
    if (writer.added() != plan_.count)
      return fail(ErrorCode::kInvalidArgument, "{} changed while it was read", inputs_.string());
    writer.seal();
    while (true) {
      auto durable = writer.wait_durable(std::chrono::milliseconds(200));
      if (durable || durable.error().code != ErrorCode::kTimeout) return durable;
      if (stop_sending_) return durable;
    }
  }

  // The relay may have the whole submission from an earlier run.
  bool is_sealed_there() {
    if (!resumed_) return false;
    auto answer = call_json(client_, "submission.list", {{"limit", 1000}});
    if (!answer) return false;
    for (const json& item : answer->value("submissions", json::array()))
      if (text_at(item, "submission_id") == plan_.submission.string())
        return item.value("sealed", false);
    return false;
  }

  Result<void> collect(ResultFile& results) {
    catch_interrupts();
    WatchRequest watch{plan_.submission, {}, true};
    results.for_each_index([&](std::uint32_t index, std::uint32_t) { watch.have.insert(index); });
    Result<void> sent;
    std::atomic<bool> send_failed = false;
    const bool sealed = is_sealed_there();
    std::unique_ptr<SubmissionWriter> writer;
    std::thread sender;
    if (!sealed) {
      // Opened before it is watched: until something of it is durable, the relay is not asked.
      writer = client_.open_submission(header_);
      sender = std::thread([&] {
        sent = send_all(*writer);
        send_failed = !sent.has_value();
      });
    }
    ProgressLine bar(invocation_, plan_.count, results.size());
    CollectRequest request;
    request.submissions = {watch};
    Result<void> written;
    request.on_outcomes = [&](OutcomeBatch& batch) {
      for (const Outcome& outcome : batch.outcomes) {
        auto added = is_campaign_file(out_) ? results.add(campaign_line(plan_.submission, outcome),
                                                          0, outcome.data.view())
                                            : results.add(outcome_json(outcome));
        if (!added) written = added;
      }
      bar.update(results.size(), results.failed(), running_);
    };
    request.on_progress = [&](const SubmissionProgress& progress) {
      running_ = progress.running.count();
      bar.update(results.size(), results.failed(), running_);
    };
    request.keep_going = [&] { return !interrupted() && !send_failed && written.has_value(); };
    auto done = client_.collect(std::move(request));
    stop_sending_ = true;
    if (sender.joinable()) sender.join();
    if (!written) return written;
    if (done) return {};
    if (!sealed && !sent && !interrupted()) return sent;
    return fail(done.error());
  }

  Result<void> write_out(ResultFile& results, RowFormat format) {
    if (!is_campaign_file(out_)) return results.write_ordered(out_, format);
    auto submission = listed_submission(client_, plan_.submission);
    if (!submission) return fail(submission.error());
    const std::string name = header_.group.empty() ? out_.stem().string() : header_.group;
    return write_campaign(client_, {name, {*submission}, true}, results, out_);
  }

  Result<int> finish(ResultFile& results, RowFormat format) {
    if (auto written = write_out(results, format); !written) return fail(written.error());
    plan_.complete = true;
    plan_.failed = results.failed();
    if (auto written = write_plan(); !written) return fail(written.error());
    std::error_code ignored;
    fs::remove(partial_path_, ignored);
    client_.collected(plan_.submission, RangeSet{{0, plan_.count}});
    (void)client_.flush();
    if (invocation_.json)
      print_json({{"submission_id", plan_.submission.string()},
                  {"output", out_.string()},
                  {"tasks", plan_.count},
                  {"failed", results.failed()}});
    else
      fmt::print("{} of {} tasks succeeded; results in {}\n", plan_.count - results.failed(),
                 plan_.count, out_.string());
    return results.failed() == 0 ? 0 : error_exit_code(ErrorCode::kTaskFailed);
  }

  const Invocation& invocation_;
  Client& client_;
  const fs::path inputs_, out_, plan_path_, partial_path_;
  SubmissionHeader header_;
  Plan plan_;
  std::uint64_t running_ = 0;
  bool resumed_ = false;
  std::atomic<bool> stop_sending_ = false;
};

Result<int> map(const Invocation& invocation) {
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  return Sweep(invocation, **client).run();
}

}  // namespace

std::vector<Command> map_commands() {
  Command command{"map",
                  "-e EP FILE.py:NAME INPUTS -o OUT",
                  2,
                  2,
                  false,
                  "call a function for every row of a file",
                  "",
                  "",
                  task_options(),
                  map};
  command.details =
      "INPUTS is .jsonl (an object: keyword arguments; an array: positional ones) or .csv (the "
      "first\n"
      "row names the arguments, numbers are recognised). OUT is .jsonl or .csv, in the order of "
      "the\n"
      "inputs: index, state, result, error, host, attempt; or .h5, one HDF5 file with the "
      "arguments,\n"
      "the results as arrays and the function's source. Interrupted or killed, the same command\n"
      "goes on: OUT.map.json names the submission, OUT.partial keeps what has come. Exit code 1 "
      "when\n"
      "a task failed.";
  command.examples =
      "farcall map -e cluster heat.py:solve inputs.jsonl -o results.jsonl\n"
      "farcall map -e cluster heat.py:solve inputs.csv -o results.h5 --walltime 10m -g heat";
  command.options.push_back(
      {"output,o", "OUT", "where the results go: .jsonl, .csv or .h5", false, true});
  command.options.push_back({"progress", "", "show progress although stderr is no terminal"});
  command.options.push_back({"again", "", "forget an earlier run of this sweep and begin anew"});
  return {command};
}

}  // namespace farcall::cli
