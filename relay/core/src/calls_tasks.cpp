// Questions about submissions, groups and tasks.
#include <nlohmann/json.hpp>

#include "send.h"

namespace farcall::relay {

using nlohmann::json;

namespace {
constexpr std::size_t kListMax = 10000;

std::size_t limit_of(const json& p) {
  return std::min<std::size_t>(p.value("limit", std::size_t{100}), kListMax);
}
std::string text_of(const json& p, const char* name) {
  auto found = p.find(name);
  return found == p.end() || found->is_null() ? std::string() : found->get<std::string>();
}
std::optional<TaskState> task_state_from(const std::string& name) {
  for (int number = 1; number <= 6; ++number)
    if (name_of(static_cast<TaskState>(number)) == name) return static_cast<TaskState>(number);
  return std::nullopt;
}

// The chunk that holds task `first`, or the next one after it; its data goes as payload. One that
// has to be read from the store is answered when it is there.
Result<json> submission_arguments(auto& core, const Peer& peer, std::uint64_t request,
                                  const json& p) {
  const std::string text = text_of(p, "submission");
  auto id = SubmissionId::parse(text);
  if (!id) return fail(id.error());
  Submission* s = core.find_submission(peer.user, *id);
  if (s == nullptr) return fail(ErrorCode::kNotFound, "no submission {} of {}", text, peer.user);
  const auto wanted = p.value("first", std::uint32_t{0});
  auto found = s->chunks.upper_bound(wanted);
  if (found != s->chunks.begin()) {
    auto before = std::prev(found);
    if (before->first + before->second.sizes.size() > wanted) found = before;
  }
  if (found == s->chunks.end()) return json{{"first", nullptr}, {"sizes", json::array()}};
  const std::uint32_t first = found->first;
  auto answer = [&core, request, text, first, to = peer.id,
                 sizes = found->second.sizes](const Bytes* data) {
    if (core.find_peer(to) == nullptr) return;
    if (data != nullptr)
      core.reply(to, request, {{"first", first}, {"sizes", sizes}}, {*data});
    else
      core.reply_error(
          to, request,
          {ErrorCode::kIo, fmt::format("the arguments of submission {} from {} on cannot be read "
                                       "from the relay's store: its log says why",
                                       text, first)});
  };
  if (const Bytes* data = core.chunk_data(*s, first)) {
    answer(data);
    return json();
  }
  core.chunk_waiters_.emplace(std::pair(*id, first), std::move(answer));
  if (core.chunk_loads_.insert({*id, first}).second) {
    ++core.counters_.chunk_loads;
    core.effects_.loads.emplace_back(LoadChunk{*id, first});
  }
  return json();
}

}  // namespace

Result<json> Core::Impl::answer_about_tasks(Peer& peer, std::uint64_t request,
                                            const std::string& method, const json& p) {
  if (method == "submission.list") return submission_list(peer, p);
  if (method == "group.list") return group_list(peer);
  if (method == "task.list") return task_list(peer, p);
  if (method == "task.cancel") return task_cancel(peer, p);
  if (method == "task.status") return task_status(peer, request, p);
  if (method == "task.explain") return task_explain(peer, request, p);
  for (const char* one : {"task.read", "task.drop", "task.stored", "task.release"})
    if (method == one) return answer_about_stored(peer, request, method, p);
  if (method == "task.bring") return task_bring(peer, p);
  if (method == "submission.arguments") return submission_arguments(*this, peer, request, p);
  return fail(ErrorCode::kInvalidArgument, "this relay ({}) knows no method {}", options_.software,
              method);
}

std::string Core::Impl::endpoint_name(EndpointId id) {
  const Endpoint* e = find_endpoint(id);
  return e == nullptr ? "" : e->record.name;
}
std::string Core::Impl::function_name(const Submission& s) {
  const Function* f = find_function(s.user(), s.record.header.function);
  return f == nullptr ? "" : f->entry.record.name;
}

Result<json> Core::Impl::submission_list(const Peer& peer, const json& p) {
  const std::string group = text_of(p, "group"), before = text_of(p, "before");
  EndpointId endpoint;
  if (!text_of(p, "endpoint").empty()) {
    auto e = endpoint_param(peer.user, p);
    if (!e) return fail(e.error());
    endpoint = (*e)->record.id;
  }
  json list = json::array();
  const auto& ids = by_user_[peer.user];
  auto it = ids.rbegin();
  if (!before.empty()) {
    auto id = SubmissionId::parse(before);
    if (!id) return fail(id.error());
    it = std::make_reverse_iterator(ids.lower_bound(*id));
  }
  for (const std::size_t limit = limit_of(p); it != ids.rend() && list.size() < limit; ++it) {
    const Submission& s = *find_submission(*it);
    const SubmissionHeader& h = s.record.header;
    if (!group.empty() && h.group != group) continue;
    if (!endpoint.is_nil() && h.endpoint != endpoint) continue;
    list.push_back({{"submission_id", it->string()},
                    {"group", h.group},
                    {"label", h.label},
                    {"endpoint", h.endpoint.string()},
                    {"endpoint_name", endpoint_name(h.endpoint)},
                    {"function_id", h.function.string()},
                    {"function", function_name(s)},
                    {"created_ms", h.created_ms},
                    {"received_ms", s.record.received_ms},
                    {"received", s.durable.count()},
                    {"sealed", s.record.sealed || s.record.aborted},
                    {"succeeded", s.counts[0]},
                    {"failed", s.counts[1]},
                    {"cancelled", s.counts[2]}});
  }
  return json{{"submissions", list}};
}

Result<json> Core::Impl::group_list(const Peer& peer) {
  struct Sum {
    std::uint64_t submissions = 0, tasks = 0, counts[3] = {};
  };
  std::map<std::string, Sum> sums;
  for (SubmissionId id : by_user_[peer.user]) {
    const Submission& s = *find_submission(id);
    if (s.record.header.group.empty()) continue;
    Sum& sum = sums[s.record.header.group];
    ++sum.submissions;
    sum.tasks += s.durable.count();
    for (std::size_t slot = 0; slot < 3; ++slot) sum.counts[slot] += s.counts[slot];
  }
  json list = json::array();
  for (const auto& [name, sum] : sums) {
    const std::uint64_t done = sum.counts[0] + sum.counts[1] + sum.counts[2];
    list.push_back({{"group", name},
                    {"submissions", sum.submissions},
                    {"tasks", sum.tasks},
                    {"succeeded", sum.counts[0]},
                    {"failed", sum.counts[1]},
                    {"cancelled", sum.counts[2]},
                    {"pending", sum.tasks - std::min(done, sum.tasks)}});
  }
  return json{{"groups", list}};
}

TaskState Core::Impl::state_of(const Submission& s, std::uint32_t index) const {
  for (TaskState state : {TaskState::kSucceeded, TaskState::kFailed, TaskState::kCancelled})
    if (s.by_state[state_slot(state)].contains(index)) return state;
  if (s.running.contains(index)) return TaskState::kRunning;
  return s.delivered.contains(index) ? TaskState::kDelivered : TaskState::kPending;
}

json Core::Impl::task_json(const Submission& s, std::uint32_t index) {
  auto history = s.histories.find(index);
  const SubmissionHeader& h = s.record.header;
  json progress;
  if (auto said = s.progress.find(index); said != s.progress.end())
    progress = {
        {"done", said->second.done}, {"total", said->second.total}, {"note", said->second.text}};
  return json{{"progress", progress},
              {"task_id", TaskId{s.id(), index}.string()},
              {"submission_id", s.id().string()},
              {"index", index},
              {"state", name_of(state_of(s, index))},
              {"attempt", history == s.histories.end() ? 1 : history->second.attempt},
              {"cancel_wished", s.record.cancel_wished.contains(index)},
              {"endpoint", endpoint_name(h.endpoint)},
              {"endpoint_id", h.endpoint.string()},
              {"function", function_name(s)},
              {"group", h.group},
              {"label", h.label},
              {"submitted_ms", s.record.received_ms}};
}

Result<json> Core::Impl::task_list(const Peer& peer, const json& p) {
  const std::string state_name = text_of(p, "state"), group = text_of(p, "group");
  const auto wanted = task_state_from(state_name);
  if (!state_name.empty() && !wanted)
    return fail(ErrorCode::kInvalidArgument, "task.list: there is no state \"{}\"", state_name);
  SubmissionId only;
  EndpointId endpoint;
  std::optional<TaskId> after;
  if (auto text = text_of(p, "submission"); !text.empty()) {
    auto id = SubmissionId::parse(text);
    if (!id) return fail(id.error());
    only = *id;
  }
  if (auto text = text_of(p, "after"); !text.empty()) {
    auto id = TaskId::parse(text);
    if (!id) return fail(id.error());
    after = *id;
  }
  if (!text_of(p, "endpoint").empty()) {
    auto e = endpoint_param(peer.user, p);
    if (!e) return fail(e.error());
    endpoint = (*e)->record.id;
  }
  json list = json::array();
  const auto& ids = by_user_[peer.user];
  auto it = after ? std::make_reverse_iterator(ids.upper_bound(after->submission)) : ids.rbegin();
  for (const std::size_t limit = limit_of(p); it != ids.rend() && list.size() < limit; ++it) {
    const Submission& s = *find_submission(*it);
    if ((!only.is_nil() && *it != only) || (!group.empty() && s.record.header.group != group) ||
        (!endpoint.is_nil() && s.record.header.endpoint != endpoint))
      continue;
    RangeSet tasks = s.received;
    if (wanted && is_final(*wanted)) tasks = s.by_state[state_slot(*wanted)];
    if (wanted == TaskState::kRunning) tasks = s.running;
    if (wanted == TaskState::kDelivered) tasks = s.delivered.difference(s.running);
    if (wanted == TaskState::kPending)
      tasks = s.received.difference(s.final).difference(s.delivered);
    if (after && after->submission == *it) tasks.erase({0, after->index + 1});
    tasks = tasks.take_front(limit - list.size());
    tasks.for_each([&](std::uint32_t index) { list.push_back(task_json(s, index)); });
  }
  return json{{"tasks", list}};
}

Result<std::pair<Submission*, std::uint32_t>> Core::Impl::task_param(const std::string& user,
                                                                     const json& p) {
  auto id = TaskId::parse(text_of(p, "task"));
  if (!id) return fail(id.error());
  Submission* s = find_submission(user, id->submission);
  if (s == nullptr || !s->received.contains(id->index))
    return fail(ErrorCode::kNotFound, "no task {} of {}", id->string(), user);
  return std::pair{s, id->index};
}

Result<json> Core::Impl::task_cancel(const Peer& peer, const json& p) {
  const bool force = p.value("force", false);
  const std::string why = fmt::format("cancelled by {}", peer.user);
  CancelCount sum;
  auto add = [&](const CancelCount& count) {
    sum.cancelled += count.cancelled;
    sum.requested += count.requested;
    sum.finished += count.finished;
  };
  if (p.contains("tasks") && !p["tasks"].is_null()) {
    std::map<SubmissionId, RangeSet> wanted;
    for (const json& text : p["tasks"]) {
      auto found = task_param(peer.user, json{{"task", text}});
      if (!found) return fail(found.error());
      wanted[found->first->id()].insert(found->second);
    }
    for (const auto& [id, ranges] : wanted) add(cancel(*find_submission(id), ranges, force, why));
  } else if (auto text = text_of(p, "submission"); !text.empty()) {
    auto id = SubmissionId::parse(text);
    if (!id) return fail(id.error());
    Submission* s = find_submission(peer.user, *id);
    if (s == nullptr) return fail(ErrorCode::kNotFound, "no submission {} of {}", text, peer.user);
    add(cancel_whole(*s, force, why));
  } else if (auto group = text_of(p, "group"); !group.empty()) {
    bool any = false;
    for (SubmissionId id : by_user_[peer.user]) {
      Submission* s = find_submission(id);
      if (s->record.header.group != group) continue;
      any = true;
      add(cancel_whole(*s, force, why));
    }
    if (!any) return fail(ErrorCode::kNotFound, "no group {} of {}", group, peer.user);
  } else {
    return fail(ErrorCode::kInvalidArgument,
                "task.cancel needs \"tasks\", \"submission\" or \"group\"");
  }
  return json{
      {"cancelled", sum.cancelled}, {"requested", sum.requested}, {"finished", sum.finished}};
}

Result<json> Core::Impl::task_status(const Peer& peer, std::uint64_t request, const json& p) {
  auto found = task_param(peer.user, p);
  if (!found) return fail(found.error());
  auto [s, index] = *found;
  json status = task_json(*s, index);
  if (!s->final.contains(index)) return status;
  const bool here = s->committed_seq == s->last_seq;
  if (!here) {  // its row may not be in the store yet
    after_commit([this, id = peer.id, request, p] {
      Peer* again = find_peer(id);
      if (again == nullptr) return;
      auto later = task_status(*again, request, p);
      if (!later)
        reply_error(id, request, later.error());
      else if (!later->is_null())
        reply(id, request, *later);
    });
    return json();
  }
  load_rows(s->id(), RangeSet{{index, index + 1}}, 0, 1,
            [this, id = peer.id, request, task = index, status](LoadedRows rows) mutable {
              if (find_peer(id) == nullptr) return;
              for (const OutcomeRowPtr& row : rows.rows)
                for (const TaskOutcome& o : row->outcomes)
                  if (o.index == task) {
                    status.update({{"attempt", o.attempt},
                                   {"failure", name_of(o.failure)},
                                   {"exit_code", o.exit_code},
                                   {"signal", o.signal},
                                   {"host", o.host},
                                   {"started_ms", o.started_ms},
                                   {"ended_ms", o.ended_ms},
                                   {"result_size", o.data_size}});
                  }
              reply(id, request, status);
            });
  return json();
}

std::vector<std::string> Core::Impl::explain_lines(const Submission& s, std::uint32_t index) {
  const TaskState state = state_of(s, index);
  std::vector<std::string> lines;
  lines.push_back(fmt::format("relay: task {} of submission {} ({} tasks{}) is {}", index,
                              s.id().string(), s.received.count(),
                              s.record.sealed ? "" : ", not sealed", name_of(state)));
  auto history = s.histories.find(index);
  if (history != s.histories.end())
    for (std::size_t i = 0; i < kFailureClassCount; ++i)
      if (history->second.failures[i] > 0)
        lines.push_back(
            fmt::format("relay: {} earlier attempt(s) ended with {}", history->second.failures[i],
                        i == 0 ? "another's fault" : name_of(static_cast<FailureClass>(i))));
  if (is_final(state)) return lines;
  if (s.record.cancel_wished.contains(index))
    lines.push_back("relay: its cancelling is wished and was passed to the endpoint");
  Endpoint* e = find_endpoint(s.record.header.endpoint);
  if (e == nullptr) {
    lines.push_back("relay: its endpoint was deleted");
  } else if (!e->ready) {
    lines.push_back(
        fmt::format("relay: endpoint {} is not connected{}: start it with farcall "
                    "endpoint start {}",
                    e->record.name, e->record.epoch == 0 ? " and never was" : "", e->record.name));
  } else if (state == TaskState::kPending) {
    RangeSet before = s.pending;
    before.erase({index, 0xffffffffU});
    std::uint64_t ahead = before.count();
    const Endpoint::Place own{s.record.header.priority, s.record.received_ms, s.id()};
    if (auto queue = e->queue.find(s.user()); queue != e->queue.end())
      for (const Endpoint::Place& place : queue->second)
        if (place < own) ahead += find_submission(std::get<SubmissionId>(place))->pending.count();
    lines.push_back(
        fmt::format("relay: {} tasks of yours are before it; endpoint {} takes more "
                    "as it works ({} of {} granted are used)",
                    ahead, e->record.name, e->used.tasks, e->granted.tasks));
  }
  return lines;
}

Result<json> Core::Impl::task_explain(const Peer& peer, std::uint64_t request, const json& p) {
  auto found = task_param(peer.user, p);
  if (!found) return fail(found.error());
  auto [s, index] = *found;
  std::vector<std::string> lines = explain_lines(*s, index);
  Endpoint* e = find_endpoint(s->record.header.endpoint);
  if (s->final.contains(index) || e == nullptr || !e->ready) return json{{"lines", lines}};
  const json question{{"task", TaskId{s->id(), index}.string()}};
  call_endpoint(*e, "explain", question.dump(),
                [this, id = peer.id, request, lines](Result<Bytes> answer) mutable {
                  if (find_peer(id) == nullptr) return;
                  json more;
                  if (answer) more = json::parse(answer->view(), nullptr, false);
                  if (!answer)
                    lines.push_back("interchange: " + answer.error().message);
                  else if (more.is_object() && more.contains("lines") && more["lines"].is_array())
                    for (const json& line : more["lines"])
                      lines.push_back(line.is_string() ? line.get<std::string>() : line.dump());
                  else
                    lines.push_back("interchange: its answer cannot be read");
                  reply(id, request, json{{"lines", lines}});
                });
  return json();
}

}  // namespace farcall::relay
