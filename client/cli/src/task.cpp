// farcall task …
#include <set>

#include "cli/table.h"
#include "common.h"
#include "farcall/payload.h"
#include "task_stored.h"

namespace farcall::cli {

using nlohmann::json;

namespace {

Result<std::vector<TaskId>> task_ids(const Invocation& invocation) {
  std::vector<TaskId> tasks;
  for (const std::string& word : invocation.words) {
    auto task = TaskId::parse(word);
    if (!task) return fail(task.error());
    tasks.push_back(*task);
  }
  return tasks;
}

bool is_final_name(const std::string& state) {
  return state == name_of(TaskState::kSucceeded) || state == name_of(TaskState::kFailed) ||
         state == name_of(TaskState::kCancelled);
}

Result<int> status(const Invocation& invocation) {
  auto tasks = task_ids(invocation);
  if (!tasks) return fail(tasks.error());
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  json all = json::array();
  for (const TaskId& task : *tasks) {
    auto answer = call_json(**client, "task.status", {{"task", task.string()}});
    if (!answer) return fail(answer.error());
    all.push_back(std::move(*answer));
  }
  if (invocation.json) {
    print_json(all.size() == 1 ? all[0] : json({{"tasks", all}}));
    return 0;
  }
  for (const json& task : all) {
    fmt::print("task      {}\nstate     {}, attempt {}\n", text_at(task, "task_id"),
               text_at(task, "state"), number_at(task, "attempt"));
    if (const std::string failure = text_at(task, "failure"); !failure.empty() && failure != "none")
      fmt::print("failure   {}\n", failure);
    for (const auto& [key, title] : {std::pair{"endpoint", "endpoint"},
                                     {"function", "function"},
                                     {"group", "group"},
                                     {"host", "host"}})
      if (const std::string value = text_at(task, key); !value.empty())
        fmt::print("{:<9} {}\n", title, value);
    if (auto said = task.find("progress"); said != task.end() && said->is_object()) {
      const double done = said->value("done", 0.0), total = said->value("total", 0.0);
      std::string text = total > 0
                             ? fmt::format("{:g}/{:g} ({:.0f}%)", done, total, 100 * done / total)
                             : fmt::format("{:g}", done);
      if (const std::string note = text_at(*said, "note"); !note.empty()) text += "  " + note;
      fmt::print("progress  {}\n", text);
    }
    fmt::print("submitted {}\n", format_time(number_at(task, "submitted_ms")));
    const long long started = number_at(task, "started_ms"), ended = number_at(task, "ended_ms");
    if (started) fmt::print("started   {}\n", format_time(started));
    if (ended)
      fmt::print(
          "ended     {}{}\n", format_time(ended),
          started ? ", took " + format_age(static_cast<double>(ended - started) / 1000) : "");
    fmt::print("\n");
  }
  return 0;
}

// The outcomes of exactly these tasks; `done` gets each once, on this thread.
Result<void> fetch(Client& client, const std::vector<TaskId>& tasks, double timeout_s, bool values,
                   const std::function<void(const TaskId&, const Outcome&)>& done) {
  std::map<SubmissionId, RangeSet> wanted;
  for (const TaskId& task : tasks) wanted[task.submission].insert(task.index);
  CollectRequest request;
  for (const auto& [submission, indices] : wanted) {
    RangeSet have{{0, UINT32_MAX}};
    have.erase(indices);
    request.submissions.push_back({submission, std::move(have), true});
  }
  request.whole_values = values;
  request.on_outcomes = [&](OutcomeBatch& batch) {
    for (const Outcome& outcome : batch.outcomes) {
      wanted[batch.submission].erase(outcome.task.index);
      done({batch.submission, outcome.task.index}, outcome);
    }
  };
  auto all_here = [&] {
    return std::all_of(wanted.begin(), wanted.end(),
                       [](const auto& entry) { return entry.second.empty(); });
  };
  request.keep_going = [&] { return !interrupted() && !all_here(); };
  if (timeout_s >= 0)
    request.timeout = std::chrono::milliseconds(static_cast<long long>(timeout_s * 1000));
  auto collected = client.collect(std::move(request));
  if (all_here()) return {};
  if (!collected) return fail(collected.error());
  return fail(ErrorCode::kNotFound,
              "a submission is finished and has no such task: its index is "
              "too large");
}

// kBusy unless all are final, so that `result` does not wait unasked.
Result<void> must_be_final(Client& client, const std::vector<TaskId>& tasks) {
  for (const TaskId& task : tasks) {
    auto answer = call_json(client, "task.status", {{"task", task.string()}});
    if (!answer) return fail(answer.error());
    const std::string state = text_at(*answer, "state");
    if (!is_final_name(state))
      return fail(
          ErrorCode::kBusy,
          "task {} is {}: no result yet; `farcall task wait {}` waits for it, `farcall task "
          "explain {}` says why",
          task.string(), state, task.string(), task.string());
  }
  return {};
}

void print_value(const TaskId& task, const Outcome& outcome) {
  if (outcome.task.state != TaskState::kSucceeded) return print_failure(outcome, task);
  if (auto shell = decode_shell_result(outcome.data.view())) {
    std::fwrite(shell->out.data(), 1, shell->out.size(), stdout);
    std::fwrite(shell->err.data(), 1, shell->err.size(), stderr);
    return;
  }
  const json line = outcome_json(outcome);
  if (!line["error"].is_null())
    fmt::print(stderr, "farcall: {}\n", text_at(line, "error"));
  else
    fmt::print("{}\n", line["result"].dump(-1, ' ', false, json::error_handler_t::replace));
}

Result<int> results_of(const Invocation& invocation, Client& client,
                       const std::vector<TaskId>& tasks, double timeout_s, bool show) {
  bool failed = false;
  json all = json::array();
  const bool values = show || invocation.json;
  const auto done = [&](const TaskId& task, const Outcome& outcome) {
    failed = failed || outcome.task.state != TaskState::kSucceeded;
    if (!values) return fmt::print("{}  {}\n", task.string(), name_of(outcome.task.state));
    if (!invocation.json) return print_value(task, outcome);
    json line = outcome_json(outcome);
    line["task_id"] = task.string();
    all.push_back(line);
  };
  auto fetched = fetch(client, tasks, timeout_s, values, done);
  if (!fetched) {
    if (!interrupted()) return fail(fetched.error());
    return kInterruptedExitCode;
  }
  if (invocation.json) print_json(all.size() == 1 ? all[0] : json({{"tasks", all}}));
  if (show) {
    std::fflush(stdout);
    for (const TaskId& task : tasks)
      client.collected(task.submission, RangeSet{{task.index, task.index + 1}});
    (void)client.flush();
  }
  return failed ? error_exit_code(ErrorCode::kTaskFailed) : 0;
}

Result<int> result(const Invocation& invocation) {
  auto tasks = task_ids(invocation);
  if (!tasks) return fail(tasks.error());
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  if (auto final = must_be_final(**client, *tasks); !final) return fail(final.error());
  return results_of(invocation, **client, *tasks, 60, true);
}

Result<int> wait(const Invocation& invocation) {
  auto tasks = task_ids(invocation);
  if (!tasks) return fail(tasks.error());
  auto timeout = invocation.duration("timeout", -1);
  if (!timeout) return fail(timeout.error());
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  catch_interrupts();
  return results_of(invocation, **client, *tasks, *timeout, invocation.has("result"));
}

Result<int> cancel(const Invocation& invocation) {
  auto tasks = task_ids(invocation);
  if (!tasks) return fail(tasks.error());
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto counts = (*client)->cancel(*tasks, invocation.has("force"));
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

Result<int> explain(const Invocation& invocation) {
  auto tasks = task_ids(invocation);
  if (!tasks) return fail(tasks.error());
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto answer = call_json(**client, "task.explain", {{"task", tasks->front().string()}});
  if (!answer) return fail(answer.error());
  if (invocation.json)
    print_json(*answer);
  else
    for (const json& line : answer->value("lines", json::array()))
      fmt::print("{}\n", line.is_string() ? line.get<std::string>() : line.dump());
  return 0;
}

Result<int> list(const Invocation& invocation) {
  if (invocation.has("stored")) {
    for (const char* key : {"state", "group", "submission", "limit", "after"})
      if (invocation.has(key))
        return fail(ErrorCode::kInvalidArgument,
                    "--stored goes with --endpoint only, not with --{}", key);
    return list_stored(invocation);
  }
  auto limit = invocation.number("limit", 50, 1);
  if (!limit) return fail(limit.error());
  json parameters = {{"limit", *limit}};
  for (const char* key : {"state", "group", "endpoint", "submission", "after"})
    if (invocation.has(key)) parameters[key] = invocation.text(key);
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto answer = call_json(**client, "task.list", parameters);
  if (!answer) return fail(answer.error());
  if (invocation.json) {
    print_json(*answer);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const json& task : answer->value("tasks", json::array()))
    rows.push_back({text_at(task, "task_id"), text_at(task, "state"), text_at(task, "attempt"),
                    text_at(task, "function"), text_at(task, "group"), text_at(task, "host")});
  fmt::print("{}", format_table({"TASK", "STATE", "ATTEMPT", "FUNCTION", "GROUP", "HOST"}, rows));
  return 0;
}

Command list_command() {
  return {
      "task list",
      "",
      0,
      0,
      false,
      "my tasks, newest submission first",
      "With --stored: the large results and files that tasks have left at endpoints, how large "
      "they\n"
      "are and until when they stay; those that have gone while their task is still known, too.",
      "farcall task list\nfarcall task list --state failed --group night --json\n"
      "farcall task list --stored -e mycluster",
      {{"stored", "", "what lies at endpoints, in place of the tasks"},
       {"state", "STATE", "pending, delivered, running, succeeded, failed or cancelled"},
       {"group,g", "GROUP", "of this group"},
       {"endpoint,e", "EP", "on this endpoint"},
       {"submission", "ID", "of this submission"},
       {"limit", "N", "at most so many (50)"},
       {"after", "TASK", "those after this one"}},
      list};
}

}  // namespace

std::vector<Command> task_commands() {
  return {
      {"task status",
       "TASK…",
       1,
       1000,
       false,
       "where tasks stand",
       "",
       "farcall task status 0192f0c4-7a3e-7cc1-9a53-000000000000",
       {},
       status},
      {"task result",
       "TASK…",
       1,
       1000,
       false,
       "print results that are there",
       "As `farcall run` or `farcall call` would have printed them; exit code 1 when one failed.",
       "farcall task result 0192f0c4-7a3e-7cc1-9a53-000000000000",
       {},
       result},
      {"task wait",
       "TASK…",
       1,
       1000,
       false,
       "wait until tasks are finished",
       "",
       "farcall task wait --timeout 10m 0192f0c4-7a3e-7cc1-9a53-000000000000\n"
       "farcall task wait --result 0192f0c4-7a3e-7cc1-9a53-000000000000",
       {{"timeout", "TIME", "give up after this (exit code 75)"},
        {"result", "", "then print the results"}},
       wait},
      {"task cancel",
       "TASK…",
       1,
       1000,
       false,
       "cancel tasks",
       "A task that runs is killed with all its processes; the one that came first, its end or "
       "the\n"
       "cancel, is recorded.",
       "farcall task cancel 0192f0c4-7a3e-7cc1-9a53-000000000000",
       {{"force", "", "record it at once although the endpoint is away"}},
       cancel},
      release_command(),
      {"task explain",
       "TASK",
       1,
       1,
       false,
       "why is this task not finished",
       "",
       "farcall task explain 0192f0c4-7a3e-7cc1-9a53-000000000000",
       {},
       explain},
      list_command(),
  };
}

}  // namespace farcall::cli
