#include "campaign_file.h"

#include <nlohmann/json.hpp>

#include "common.h"
#include "farcall/payload.h"
#include "staging/hdf5/campaign.h"

namespace farcall::cli {

using nlohmann::json;
using staging::Campaign;
using staging::CampaignGroup;
using staging::CampaignRow;
namespace fs = std::filesystem;

bool is_campaign_file(const fs::path& path) {
  return path.extension() == ".h5" || path.extension() == ".hdf5";
}

json campaign_line(const SubmissionId& submission, const Outcome& outcome) {
  const TaskOutcome& task = outcome.task;
  json line = {{"index", task.index},
               {"task_id", TaskId{submission, task.index}.string()},
               {"state", name_of(task.state)},
               {"failure", name_of(task.failure)},
               {"error", ""},
               {"host", task.host},
               {"attempt", task.attempt},
               {"exit_code", task.exit_code},
               {"signal", task.signal},
               {"started_ms", task.started_ms},
               {"ended_ms", task.ended_ms}};
  if (task.state == TaskState::kSucceeded) return line;
  const auto failure = decode_failure(outcome.data.view());
  line["error"] = failure ? failure_line(*failure) : std::string(name_of(task.failure));
  return line;
}

Result<std::set<std::string>> task_ids_in_campaign(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::set<std::string>();
  return Campaign::task_ids_in(path);
}

Result<json> listed_submission(Client& client, const SubmissionId& id) {
  constexpr std::size_t kPage = 1000;
  json parameters = {{"limit", kPage}};
  while (true) {
    auto answer = call_json(client, "submission.list", parameters);
    if (!answer) return fail(answer.error());
    const json page = answer->value("submissions", json::array());
    for (const json& item : page)
      if (text_at(item, "submission_id") == id.string()) return item;
    if (page.size() < kPage)
      return fail(ErrorCode::kNotFound, "the relay has no submission {} of ours", id.string());
    parameters["before"] = page.back()["submission_id"];
  }
}

namespace {

// Arguments in order of their tasks, a chunk at a time.
class ArgumentReader {
 public:
  explicit ArgumentReader(Client& client) : client_(client) {}

  // The argument set of a task, into memory that lasts until the next call; nothing when the relay
  // no longer has it.
  Result<std::optional<std::string_view>> of(const std::string& submission, std::uint32_t index) {
    if (submission != submission_ || index < first_ || index >= first_ + sizes_.size()) {
      if (auto fetched = fetch(submission, index); !fetched) return fail(fetched.error());
    }
    if (index < first_ || index >= first_ + sizes_.size()) return std::optional<std::string_view>();
    for (; at_ < index; ++at_) offset_ += sizes_[at_ - first_];
    if (at_ > index) {
      at_ = first_;
      offset_ = 0;
      for (; at_ < index; ++at_) offset_ += sizes_[at_ - first_];
    }
    const std::uint64_t size = sizes_[index - first_];
    if (offset_ + size > data_.size())
      return fail(ErrorCode::kCorrupt, "arguments of submission {} are cut off", submission);
    return std::optional(data_.view().substr(offset_, size));
  }

 private:
  Result<void> fetch(const std::string& submission, std::uint32_t index) {
    submission_ = submission;
    sizes_.clear();
    data_ = {};
    at_ = first_ = index;
    offset_ = 0;
    const json parameters = {{"submission", submission}, {"first", index}};
    auto answer = client_.call("submission.arguments", parameters.dump());
    if (!answer && answer.error().code == ErrorCode::kNotFound) return {};
    if (!answer) return fail(answer.error());
    const json head = json::parse(answer->json, nullptr, false);
    if (!head.is_object() || answer->payload.empty() || !head["first"].is_number()) return {};
    at_ = first_ = head["first"].get<std::uint32_t>();
    sizes_ = head.value("sizes", std::vector<std::uint64_t>());
    data_ = answer->payload[0];
    return {};
  }

  Client& client_;
  std::string submission_;
  std::uint32_t first_ = 0;
  std::vector<std::uint64_t> sizes_;
  Bytes data_;
  std::uint32_t at_ = 0;  // the task that begins at offset_
  std::uint64_t offset_ = 0;
};

class CampaignWriter {
 public:
  CampaignWriter(Client& client, const CampaignPlan& plan, ResultFile& results, Campaign& campaign)
      : client_(client), plan_(plan), results_(results), campaign_(campaign) {}

  Result<void> run() {
    auto planned = each_row([&](const CampaignRow& row) -> Result<void> {
      campaign_.plan(row);
      return {};
    });
    if (!planned) return planned;
    auto added = each_row([&](const CampaignRow& row) { return campaign_.add(row); });
    if (!added) return added;
    for (const json& submission : plan_.submissions)
      if (auto done = add_provenance(submission); !done) return done;
    return campaign_.finish();
  }

 private:
  Result<void> each_row(const std::function<Result<void>(const CampaignRow&)>& action) {
    ArgumentReader arguments(client_);
    return results_.for_each([&](const ResultFile::Entry& entry) -> Result<void> {
      const json& line = entry.line;
      CampaignRow row;
      row.task_id = text_at(line, "task_id");
      if (campaign_.has(row.task_id)) return {};
      row.index = line.at("index").get<std::uint32_t>();
      row.state = text_at(line, "state");
      row.failure = text_at(line, "failure");
      row.error = text_at(line, "error");
      row.host = text_at(line, "host");
      row.attempt = static_cast<std::uint16_t>(number_at(line, "attempt"));
      row.exit_code = static_cast<std::int32_t>(number_at(line, "exit_code"));
      row.signal = static_cast<std::int32_t>(number_at(line, "signal"));
      row.started_ms = number_at(line, "started_ms");
      row.ended_ms = number_at(line, "ended_ms");
      const json& submission = plan_.submissions.at(entry.part);
      row.submitted_ms = number_at(submission, "received_ms");
      auto set = arguments.of(text_at(submission, "submission_id"), row.index);
      if (!set) return fail(set.error());
      if (*set) {
        auto decoded = staging::decode_arguments(**set);
        if (decoded) row.arguments = std::move(*decoded);
      }
      if (row.state == "succeeded") {
        row.payload = entry.data;
        row.result = result_of(entry.data);
      }
      return action(row);
    });
  }

  // A result that is damaged is kept as the bytes that came, like one for Python only.
  static staging::Value result_of(std::string_view payload) {
    if (payload.starts_with('S')) {
      auto shown = value_as_json(payload);
      if (shown && *shown) return staging::value_from_json(**shown);
    } else if (auto value = staging::decode_value(payload)) {
      return std::move(*value);
    }
    return {staging::Opaque{}};
  }

  Result<void> add_provenance(const json& submission) {
    CampaignGroup group;
    group.id = text_at(submission, "submission_id");
    for (const char* key :
         {"function_id", "function", "endpoint", "endpoint_name", "label", "group"})
      group.texts[key] = text_at(submission, key);
    for (const char* key : {"created_ms", "received_ms"})
      group.numbers[key] = number_at(submission, key);
    if (auto done = campaign_.add_submission(group); !done) return done;
    const std::string id = text_at(submission, "function_id");
    if (!functions_.insert(id).second) return {};
    auto answer = client_.call("function.show", json{{"function", id}}.dump());
    if (!answer && answer.error().code == ErrorCode::kNotFound) return {};  // deleted since
    if (!answer) return fail(answer.error());
    const json shown = json::parse(answer->json, nullptr, false);
    if (!shown.is_object()) return {};
    return add_function(id, shown, answer->payload.empty() ? Bytes() : answer->payload[0]);
  }

  Result<void> add_function(const std::string& id, const json& shown, const Bytes& body) {
    CampaignGroup function;
    function.id = id;
    function.texts = {{"name", text_at(shown, "name")}, {"kind", text_at(shown, "kind")}};
    function.numbers["created_ms"] = number_at(shown, "created_ms");
    json meta = shown.value("meta", json::object());
    if (!meta.is_object()) meta = json::object();
    for (const auto& [key, value] : meta.items()) {
      if (key == "source")
        function.source = text_at(meta, "source");
      else
        function.texts[key] = value.is_string() ? value.get<std::string>() : value.dump();
    }
    const json content = json::parse(body.view(), nullptr, false);
    if (content.is_object()) {  // the body is its source
      for (const char* key : {"source", "cmd"})
        if (content.contains(key)) function.source = text_at(content, key);
    } else {
      function.body = body.view();
    }
    return campaign_.add_function(function);
  }

  Client& client_;
  const CampaignPlan& plan_;
  ResultFile& results_;
  Campaign& campaign_;
  std::set<std::string> functions_;
};

}  // namespace

Result<void> write_campaign(Client& client, const CampaignPlan& plan, ResultFile& results,
                            const fs::path& out) {
  auto campaign = plan.replace ? Campaign::replace(out, plan.name) : Campaign::open(out, plan.name);
  if (!campaign) return fail(campaign.error());
  return CampaignWriter(client, plan, results, *campaign).run();
}

}  // namespace farcall::cli
