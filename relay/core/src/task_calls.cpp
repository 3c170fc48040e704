// Questions about tasks, and cancelling them.
#include <algorithm>

#include "base/log.h"
#include "messages.h"
#include "relay/core/relay.h"

namespace farcall::relay {

namespace {
constexpr std::uint64_t kPageMax = 10'000;

TaskState state_of(const Submission& s, std::uint32_t index) {
  if (s.succeeded.contains(index)) return TaskState::kSucceeded;
  if (s.failed.contains(index)) return TaskState::kFailed;
  if (s.cancelled.contains(index)) return TaskState::kCancelled;
  if (s.running.contains(index)) return TaskState::kRunning;
  if (s.delivered.contains(index)) return TaskState::kDelivered;
  return TaskState::kPending;
}
}  // namespace

std::vector<Submission*> Relay::submissions_of(const std::string& owner) {
  std::vector<Submission*> mine;
  for (auto& [id, submission] : submissions_)
    if (submission.header.owner == owner) mine.push_back(&submission);
  std::sort(mine.begin(), mine.end(), [](const Submission* a, const Submission* b) { return a->order > b->order; });
  return mine;
}

nlohmann::json Relay::submission_json(const Submission& s) {
  auto endpoint = endpoints_.find(s.header.endpoint);
  auto function = functions_.find(s.header.function);
  return {{"submission_id", s.header.submission.string()},
          {"group", s.header.group},
          {"label", s.header.label},
          {"endpoint", s.header.endpoint.string()},
          {"endpoint_name", endpoint == endpoints_.end() ? "" : endpoint->second.row.name},
          {"function_id", s.header.function.string()},
          {"function", function == functions_.end() ? "" : function->second.record.name},
          {"created_ms", s.header.created_ms},
          {"received", s.durable.count()},
          {"sealed", s.sealed},
          {"succeeded", s.succeeded.count()},
          {"failed", s.failed.count()},
          {"cancelled", s.cancelled.count()},
          {"running", s.running.count()}};
}

Result<nlohmann::json> Relay::call_submission_list(const Client& client, const Json& p) {
  const auto limit = std::min<std::uint64_t>(p.value("limit", std::uint64_t{1000}), kPageMax);
  const std::string group = p.value("group", ""), endpoint = p.value("endpoint", ""), before = p.value("before", "");
  EndpointId wanted;
  if (!endpoint.empty()) {
    auto found = find_endpoint(client.user, endpoint);
    if (!found) return fail(found.error());
    wanted = (*found)->row.id;
  }
  Json list = Json::array();
  for (Submission* s : submissions_of(client.user)) {
    if (list.size() >= limit) break;
    if (p.contains("group") && s->header.group != group) continue;
    if (!endpoint.empty() && s->header.endpoint != wanted) continue;
    if (!before.empty() && s->header.submission.string() >= before) continue;
    list.push_back(submission_json(*s));
  }
  return Json{{"submissions", list}};
}

Result<nlohmann::json> Relay::call_group_list(const Client& client) {
  struct Sums {
    std::uint64_t submissions = 0, tasks = 0, succeeded = 0, failed = 0, cancelled = 0;
  };
  std::map<std::string, Sums> groups;
  for (Submission* s : submissions_of(client.user)) {
    if (s->header.group.empty()) continue;
    Sums& sums = groups[s->header.group];
    ++sums.submissions;
    sums.tasks += s->durable.count();
    sums.succeeded += s->succeeded.count();
    sums.failed += s->failed.count();
    sums.cancelled += s->cancelled.count();
  }
  Json list = Json::array();
  for (const auto& [name, sums] : groups)
    list.push_back({{"group", name},
                    {"submissions", sums.submissions},
                    {"tasks", sums.tasks},
                    {"succeeded", sums.succeeded},
                    {"failed", sums.failed},
                    {"cancelled", sums.cancelled},
                    {"pending", sums.tasks - sums.succeeded - sums.failed - sums.cancelled}});
  return Json{{"groups", list}};
}

nlohmann::json Relay::task_json(const Submission& s, std::uint32_t index) const {
  auto endpoint = endpoints_.find(s.header.endpoint);
  auto function = functions_.find(s.header.function);
  auto history = s.histories.find(index);
  return {{"task_id", TaskId{s.header.submission, index}.string()},
          {"submission_id", s.header.submission.string()},
          {"index", index},
          {"state", name_of(state_of(s, index))},
          {"attempt", history == s.histories.end() ? 1 : history->second.attempt},
          {"endpoint", endpoint == endpoints_.end() ? s.header.endpoint.string() : endpoint->second.row.name},
          {"function", function == functions_.end() ? s.header.function.string() : function->second.record.name},
          {"group", s.header.group},
          {"label", s.header.label},
          {"cancel_wished", s.cancel_wished.contains(index)},
          {"submitted_ms", s.header.created_ms}};
}

Result<nlohmann::json> Relay::call_task_list(const Client& client, const Json& p) {
  const auto limit = std::min<std::uint64_t>(p.value("limit", std::uint64_t{100}), kPageMax);
  const std::string state = p.value("state", ""), group = p.value("group", ""), after = p.value("after", "");
  const std::string only = p.value("submission", ""), endpoint = p.value("endpoint", "");
  EndpointId wanted;
  if (!endpoint.empty()) {
    auto found = find_endpoint(client.user, endpoint);
    if (!found) return fail(found.error());
    wanted = (*found)->row.id;
  }
  Json list = Json::array();
  for (Submission* s : submissions_of(client.user)) {
    if ((p.contains("group") && s->header.group != group) || (!endpoint.empty() && s->header.endpoint != wanted) ||
        (!only.empty() && s->header.submission.string() != only))
      continue;
    for (Range range : s->durable.ranges())
      for (std::uint32_t i = range.first; i != range.last && list.size() < limit; ++i) {
        if (!state.empty() && name_of(state_of(*s, i)) != state) continue;
        if (!after.empty() && TaskId{s->header.submission, i}.string() <= after) continue;
        list.push_back(task_json(*s, i));
      }
  }
  return Json{{"tasks", list}, {"more", list.size() >= limit}};
}

Result<std::pair<Submission*, std::uint32_t>> Relay::find_task(const Client& client, const Json& p) {
  auto task = TaskId::parse(p.at("task").get<std::string>());
  if (!task) return fail(task.error());
  Submission* s = find(task->submission);
  if (s == nullptr || s->header.owner != client.user || !s->durable.contains(task->index))
    return fail(ErrorCode::kNotFound, "there is no task {}: `farcall task list` shows yours", task->string());
  return std::pair(s, task->index);
}

Result<nlohmann::json> Relay::call_task_status(const Client& client, const Json& p) {
  auto task = find_task(client, p);
  if (!task) return fail(task.error());
  return task_json(*task->first, task->second);
}

Result<nlohmann::json> Relay::call_task_cancel(const Client& client, const Json& p) {
  const bool force = p.value("force", false);
  CancelCounts counts;
  const RangeSet all{{0, UINT32_MAX}};
  if (p.contains("group") || p.contains("submission")) {
    bool found = false;
    for (Submission* s : submissions_of(client.user)) {
      if (p.contains("group") ? s->header.group != p["group"].get<std::string>()
                              : s->header.submission.string() != p["submission"].get<std::string>())
        continue;
      found = true;
      cancel(*s, all, force, counts);
    }
    if (!found)
      return fail(ErrorCode::kNotFound, "there is no {} '{}'", p.contains("group") ? "task group" : "submission",
                  p.contains("group") ? p["group"].get<std::string>() : p["submission"].get<std::string>());
  } else {
    std::map<Submission*, RangeSet> tasks;
    for (const auto& id : p.at("tasks")) {
      auto task = find_task(client, Json{{"task", id}});
      if (!task) return fail(task.error());
      tasks[task->first].insert(task->second);
    }
    for (auto& [submission, ranges] : tasks) cancel(*submission, ranges, force, counts);
  }
  return Json{{"cancelled", counts.cancelled}, {"requested", counts.requested}, {"finished", counts.finished}};
}

Result<nlohmann::json> Relay::call_task_explain(PeerId peer, const Client& client, std::uint64_t request,
                                                const Json& p, bool& later) {
  auto task = find_task(client, p);
  if (!task) return fail(task.error());
  auto& [s, index] = *task;
  const TaskState state = state_of(*s, index);
  std::vector<std::string> lines{
      fmt::format("the task is {}{}", name_of(state),
                  s->cancel_wished.contains(index) && !is_final(state) ? ", and wished to be cancelled" : "")};
  auto found = endpoints_.find(s->header.endpoint);
  if (is_final(state)) return Json{{"state", name_of(state)}, {"lines", lines}};
  if (found == endpoints_.end()) {
    lines.push_back("its endpoint was deleted: cancel the task");
    return Json{{"state", name_of(state)}, {"lines", lines}};
  }
  Endpoint& endpoint = found->second;
  if (!endpoint.peer) {
    lines.push_back(fmt::format("endpoint {} is not connected{}: start it with `farcall endpoint start {}`",
                                endpoint.row.name,
                                endpoint.last_seen_ms == 0
                                    ? ""
                                    : fmt::format(", last seen {} s ago", (now_ms() - endpoint.last_seen_ms) / 1000),
                                endpoint.row.name));
    return Json{{"state", name_of(state)}, {"lines", lines}};
  }
  if (state == TaskState::kPending)
    lines.push_back(fmt::format("it waits at the relay: endpoint {} has taken {} of the {} tasks it will hold at once",
                                endpoint.row.name, endpoint.used_tasks, endpoint.credit_tasks));
  later = true;
  const std::uint64_t ours = ++last_request_;
  explains_[ours] = {peer, request, lines, now_.mono + std::chrono::seconds(2)};
  send_body(*endpoint.peer, wire::Call{ours, "explain"},
            {Bytes(Json{{"task", TaskId{s->header.submission, index}.string()}}.dump())});
  return Json();
}

void Relay::endpoint_reply(Endpoint& endpoint, const Message& message) {
  auto answer = wire::decode<wire::Reply>(message);
  if (!answer) return log_warn("endpoint {}: {}", endpoint.row.name, answer.error().message);
  std::vector<std::string> lines;
  if (answer->error != 0) lines.push_back(answer->text);
  Json json = message.payload.empty() ? Json() : Json::parse(message.payload[0].view(), nullptr, false);
  if (json.is_object() && json.contains("lines") && json["lines"].is_array())
    for (const auto& line : json["lines"])
      if (line.is_string()) lines.push_back(line.get<std::string>());
  finish_explain(answer->request, lines);
}

void Relay::finish_explain(std::uint64_t request, const std::vector<std::string>& more) {
  auto found = explains_.find(request);
  if (found == explains_.end()) return;
  auto lines = found->second.lines;
  lines.insert(lines.end(), more.begin(), more.end());
  reply(found->second.peer, found->second.request, Json{{"lines", lines}});
  explains_.erase(found);
}

}  // namespace farcall::relay
