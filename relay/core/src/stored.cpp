// Large results and files of tasks, which lie at their endpoints: the endpoint is asked what is
// there, and told what may go.
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "send.h"
#include "wire/blob_payload.h"

namespace farcall::relay {

using nlohmann::json;

namespace {

constexpr std::uint64_t kRowBytesMax = 4 << 20;   // looked through at once
constexpr std::size_t kForgottenAtOnce = 1000;    // submissions in one message
constexpr std::uint32_t kEveryTask = 0xffffffff;  // one past the last index

// A page of the list on its way: what the files of tasks are called stands in their outcomes.
struct StoredPage {
  PeerId peer = 0;
  std::uint64_t request = 0;
  json answer;
  std::map<SubmissionId, RangeSet> unnamed;
  std::map<std::pair<std::string, std::string>, std::string> names;  // by task and hash
};
using StoredPagePtr = std::shared_ptr<StoredPage>;

// What a task is asked to let go at several endpoints.
struct Release {
  PeerId peer = 0;
  std::uint64_t request = 0;
  std::string user;
  std::size_t waiting = 0;  // for answers of so many endpoints
  json answer = {{"files", 0}, {"bytes", 0}, {"more", false}, {"failed", json::array()}};
};
using ReleasePtr = std::shared_ptr<Release>;

json flat(const RangeSet& ranges) {
  json numbers = json::array();
  for (Range range : ranges.ranges()) {
    numbers.push_back(range.first);
    numbers.push_back(range.last);
  }
  return numbers;
}

// [[number of the blob, place, {"file": name, …}], …]: docs/payloads.md.
void take_names(StoredPage& page, const std::string& task, std::string_view data) {
  const auto blobs = wire::blob_refs(data);
  if (!blobs || blobs->empty()) return;
  const auto places = wire::blob_places(data);
  if (!places) return;
  const json list = json::parse(places->places, nullptr, false);
  if (!list.is_array()) return;
  for (const json& place : list) {
    if (!place.is_array() || place.size() < 3 || !place[0].is_number_unsigned() ||
        !place[2].is_object())
      continue;
    const auto number = place[0].get<std::size_t>();
    const json name = place[2].value("file", json());
    if (number < blobs->size() && name.is_string())
      page.names[{task, (*blobs)[number].hash}] = name.get<std::string>();
  }
}

void take_names(StoredPage& page, const LoadedRows& rows) {
  for (const OutcomeRowPtr& row : rows.rows) {
    std::string_view data = row->data.view();
    RangeSet& unnamed = page.unnamed[row->submission];
    for (const TaskOutcome& outcome : row->outcomes) {
      const std::string_view own = data.substr(0, outcome.data_size);
      data.remove_prefix(own.size());
      if (!unnamed.contains(outcome.index)) continue;
      unnamed.erase(outcome.index);
      take_names(page, TaskId{row->submission, outcome.index}.string(), own);
    }
  }
}

// Reads the outcomes of one submission after the other, then answers.
void name_files(auto& core, const StoredPagePtr& page, std::uint64_t after = 0) {
  if (core.find_peer(page->peer) == nullptr) return;
  if (!page->unnamed.empty()) {
    const SubmissionId id = page->unnamed.begin()->first;
    core.load_rows(id, page->unnamed.begin()->second, after, kRowBytesMax,
                   [&core, page, id](const LoadedRows& rows) {
                     take_names(*page, rows);
                     const bool more = !rows.rows.empty() && !page->unnamed[id].empty();
                     if (!more) page->unnamed.erase(id);
                     name_files(core, page, more ? rows.scanned_to : 0);
                   });
    return;
  }
  for (json& file : page->answer["stored"]) {
    const auto name = page->names.find({file["task_id"], file["hash"]});
    if (name != page->names.end()) file["name"] = name->second;
  }
  core.reply(page->peer, page->request, page->answer);
}

// Of a file there what its owner is told; null: it is somebody else's, or nobody's any more.
json stored_json(auto& core, const Peer& peer, const Endpoint& e, const json& file,
                 std::int64_t keep_ms) {
  const auto task = TaskId::parse(file.at("task").template get<std::string>());
  Submission* s = task ? core.find_submission(peer.user, task->submission) : nullptr;
  if (s == nullptr || !s->received.contains(task->index) ||
      s->record.header.endpoint != e.record.id)
    return nullptr;
  const auto written_ms = file.at("written_ms").template get<std::int64_t>();
  std::int64_t expires_ms = written_ms + keep_ms;
  if (s->record.finished_ms != 0) expires_ms = std::min(expires_ms, core.over_at_ms(*s));
  const bool there = file.at("state") == "there";
  return {{"task_id", task->string()},
          {"kind", file.at("kind")},
          {"name", ""},
          {"hash", file.at("hash")},
          {"bytes", file.at("bytes")},
          {"written_ms", written_ms},
          {"there", there},
          {"state", file.at("state")},
          {there ? "expires_ms" : "removed_ms", there ? json(expires_ms) : file.at("removed_ms")},
          {"endpoint", e.record.name},
          {"endpoint_id", e.record.id.string()},
          {"function", core.function_name(*s)},
          {"group", s->record.header.group}};
}

void take_page(auto& core, const Peer& peer, const Endpoint& e, const StoredPagePtr& page,
               const Bytes& answer) {
  const json listed = json::parse(answer.view());
  const auto keep_ms = listed.at("keep_ms").get<std::int64_t>();
  page->answer = {{"stored", json::array()},
                  {"after", listed.at("more").get<bool>() ? listed.at("last") : json()}};
  for (const json& file : listed.at("files")) {
    json entry = stored_json(core, peer, e, file, keep_ms);
    if (entry.is_null()) continue;
    const TaskId task = *TaskId::parse(entry["task_id"].get<std::string>());
    if (entry["kind"] == "file") page->unnamed[task.submission].insert(task.index);
    page->answer["stored"].push_back(std::move(entry));
  }
}

Result<json> stored_page(auto& core, const Peer& peer, std::uint64_t request, const json& p) {
  auto found = core.endpoint_param(peer.user, p);
  if (!found) return fail(found.error());
  const json question{{"after", p.value("after", "")}, {"limit", p.value("limit", 500U)}};
  core.call_endpoint(
      **found, "stored.list", question.dump(),
      [&core, request, id = peer.id, endpoint = (*found)->record.id](const Result<Bytes>& answer) {
        const Peer* peer = core.find_peer(id);
        const Endpoint* e = core.find_endpoint(endpoint);
        if (peer == nullptr) return;
        if (!answer || e == nullptr)
          return core.reply_error(
              id, request, answer ? Error{ErrorCode::kNotFound, "it was deleted"} : answer.error());
        auto page = std::make_shared<StoredPage>(StoredPage{id, request, {}, {}, {}});
        try {
          take_page(core, *peer, *e, page, *answer);
        } catch (const json::exception& error) {
          return core.reply_error(
              id, request,
              {ErrorCode::kCorrupt, fmt::format("the answer of endpoint {} cannot be read: {}",
                                                e->record.name, error.what())});
        }
        name_files(core, page);
      });
  return json();
}

// Those that have ended, by submission. Of what the relay has forgotten nothing is left.
Result<std::map<SubmissionId, RangeSet>> tasks_to_release(auto& core, const std::string& user,
                                                          const json& p) {
  std::map<SubmissionId, RangeSet> tasks;
  if (p.contains("tasks") && !p["tasks"].is_null()) {
    for (const json& text : p["tasks"]) {
      const auto id = TaskId::parse(text.get<std::string>());
      if (!id) return fail(id.error());
      if (core.tombstones_.contains(id->submission)) continue;
      auto found = core.task_param(user, json{{"task", text}});
      if (!found) return fail(found.error());
      tasks[id->submission].insert(id->index);
    }
  } else if (const std::string group = p.value("group", ""); !group.empty()) {
    for (SubmissionId id : core.by_user_[user])
      if (const Submission* s = core.find_submission(id); s->record.header.group == group)
        tasks[id] = s->final;
    if (tasks.empty()) return fail(ErrorCode::kNotFound, "no group {} of {}", group, user);
  } else {
    return fail(ErrorCode::kInvalidArgument, "task.release needs \"tasks\" or \"group\"");
  }
  for (auto& [id, ranges] : tasks) ranges = ranges.intersection(core.find_submission(id)->final);
  std::erase_if(tasks, [](const auto& entry) { return entry.second.empty(); });
  return tasks;
}

void take_released(auto& core, Release& release, const std::string& endpoint,
                   const Result<Bytes>& answer) {
  Result<json> went = fail(ErrorCode::kInternal, "");
  if (!answer) went = fail(answer.error());
  if (answer) went = Result<json>(json::parse(answer->view(), nullptr, false));
  json& sum = release.answer;
  try {
    if (went) {
      sum["files"] = sum["files"].get<std::uint64_t>() + went->at("files").get<std::uint64_t>();
      sum["bytes"] = sum["bytes"].get<std::uint64_t>() + went->at("bytes").get<std::uint64_t>();
      sum["more"] = sum["more"].get<bool>() || went->at("more").get<bool>();
      for (const json& hash : went->at("hashes"))
        core.drop_brought(release.user, hash.get<std::string>());
    }
  } catch (const json::exception& error) {
    went = fail(ErrorCode::kCorrupt, "its answer cannot be read: {}", error.what());
  }
  if (!went)
    sum["failed"].push_back({{"endpoint", endpoint},
                             {"error", error_name(went.error().code)},
                             {"text", went.error().message}});
  if (--release.waiting == 0) core.reply(release.peer, release.request, sum);
}

// What lies there goes; outcomes stay as they are.
Result<json> release_stored(auto& core, const Peer& peer, std::uint64_t request, const json& p) {
  auto tasks = tasks_to_release(core, peer.user, p);
  if (!tasks) return fail(tasks.error());
  std::map<EndpointId, json> by_endpoint;
  for (const auto& [id, ranges] : *tasks)
    by_endpoint[core.find_submission(id)->record.header.endpoint][id.string()] = flat(ranges);
  auto release = std::make_shared<Release>();
  if (by_endpoint.empty()) return release->answer;
  release->peer = peer.id;
  release->request = request;
  release->user = peer.user;
  release->waiting = by_endpoint.size();
  for (const auto& [id, wanted] : by_endpoint) {
    Endpoint* e = core.find_endpoint(id);
    const std::string name = e == nullptr ? id.string() : e->record.name;
    auto answered = [&core, release, name](const Result<Bytes>& answer) {
      if (core.find_peer(release->peer) != nullptr) take_released(core, *release, name, answer);
    };
    if (e == nullptr)
      answered(fail(ErrorCode::kNotFound, "endpoint {} was deleted", name));
    else
      core.call_endpoint(*e, "stored.release", json{{"tasks", wanted}}.dump(), answered);
  }
  return json();
}

}  // namespace

Result<json> Core::Impl::answer_about_stored(const Peer& peer, std::uint64_t request,
                                             const std::string& method, const json& p) {
  if (method == "task.stored") return stored_page(*this, peer, request, p);
  if (method == "task.release") return release_stored(*this, peer, request, p);
  // Parts of one, or its removal.
  auto task = task_param(peer.user, p);
  if (!task) return fail(task.error());
  Endpoint* e = find_endpoint(task->first->record.header.endpoint);
  if (e == nullptr) return fail(ErrorCode::kNotFound, "its endpoint was deleted");
  const std::string dropped = method == "task.drop" ? p.value("hash", "") : "";
  call_endpoint(*e, "stored." + method.substr(sizeof "task." - 1), p.dump(),
                [this, id = peer.id, user = peer.user, request, dropped](Result<Bytes> answer) {
                  if (answer && !dropped.empty()) drop_brought(user, dropped);
                  if (find_peer(id) == nullptr) return;
                  if (answer)
                    reply(id, request, json::object(), {*answer});
                  else
                    reply_error(id, request, answer.error());
                });
  return json();
}

// The copy that somebody wanted lately; what clients have sent stays.
void Core::Impl::drop_brought(const std::string& user, const std::string& hash) {
  const auto entry = blobs_.find({scope_of(user), hash});
  if (entry == blobs_.end() || !entry->second.brought || !entry->second.here ||
      entry->second.holders > 0)
    return;
  effects_.blobs.emplace_back(DropBlob{entry->first.first, hash});
  blobs_.erase(entry);
}

// An answer that does not come does no harm: it is told again when the endpoint next connects.
void Core::Impl::forget_stored(Endpoint& e, const std::vector<SubmissionId>& over) {
  if (!e.ready) return;
  for (std::size_t first = 0; first < over.size(); first += kForgottenAtOnce) {
    json tasks = json::object();
    for (std::size_t i = first; i < std::min(over.size(), first + kForgottenAtOnce); ++i)
      tasks[over[i].string()] = {0U, kEveryTask};
    call_endpoint(e, "stored.forget", json{{"tasks", tasks}}.dump(),
                  [name = e.record.name](const Result<Bytes>& answer) {
                    if (!answer)
                      log_debug(
                          "endpoint {}: results of submissions whose time is over may be "
                          "left: {}",
                          name, answer.error().message);
                  });
  }
}

}  // namespace farcall::relay
