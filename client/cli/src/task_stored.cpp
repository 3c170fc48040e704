#include "task_stored.h"

#include "cli/table.h"

namespace farcall::cli {

using nlohmann::json;

namespace {

constexpr std::size_t kAtOnce = 1000;  // tasks in one question

struct Found {
  json stored = json::array();
  json not_connected = json::array();  // names of endpoints
  long long count = 0, bytes = 0;      // of what is there
};

Result<void> take_endpoint(Client& client, const std::string& name, Found& found) {
  for (json after = ""; !after.is_null();) {
    auto page = call_json(client, "task.stored", {{"endpoint", name}, {"after", after}});
    if (!page) return fail(page.error());
    for (json& file : (*page)["stored"]) {
      if (file.value("there", false)) {
        ++found.count;
        found.bytes += number_at(file, "bytes");
      }
      found.stored.push_back(std::move(file));
    }
    after = page->value("after", json());
  }
  return {};
}

Result<Found> find(const Invocation& invocation, Client& client) {
  Found found;
  if (invocation.has("endpoint")) {
    if (auto taken = take_endpoint(client, invocation.text("endpoint"), found); !taken)
      return fail(taken.error());
    return found;
  }
  auto endpoints = call_json(client, "endpoint.list");
  if (!endpoints) return fail(endpoints.error());
  for (const json& endpoint : endpoints->value("endpoints", json::array())) {
    auto taken = take_endpoint(client, text_at(endpoint, "endpoint_id"), found);
    if (taken) continue;
    if (taken.error().code != ErrorCode::kUnreachable) return fail(taken.error());
    found.not_connected.push_back(text_at(endpoint, "name"));
  }
  return found;
}

std::string size_text(long long bytes) {
  if (bytes < 10LL << 10) return fmt::format("{} B", bytes);
  if (bytes < 10LL << 20) return fmt::format("{} KiB", bytes >> 10);
  if (bytes < 10LL << 30) return fmt::format("{} MiB", bytes >> 20);
  return fmt::format("{} GiB", bytes >> 30);
}

std::vector<std::string> row_of(const json& file) {
  const bool there = file.value("there", false);
  std::string kind = text_at(file, "kind");
  if (kind == "file") kind = "file " + text_at(file, "name");
  return {text_at(file, "task_id"),
          kind,
          text_at(file, "endpoint"),
          size_text(number_at(file, "bytes")),
          format_time(number_at(file, "written_ms")),
          there ? format_time(number_at(file, "expires_ms")) : "-",
          there ? "there"
                : fmt::format("{} {}", text_at(file, "state"),
                              format_time(number_at(file, "removed_ms")))};
}

struct Released {
  long long files = 0, bytes = 0;
  json failed = json::array();
};

Result<void> release(Client& client, const json& what, Released& sum) {
  for (bool more = true; more;) {
    auto answer = call_json(client, "task.release", what);
    if (!answer) return fail(answer.error());
    sum.files += number_at(*answer, "files");
    sum.bytes += number_at(*answer, "bytes");
    const json failed = answer->value("failed", json::array());
    // What cannot be had at one endpoint must not be asked for without end.
    more = answer->value("more", false) && failed.empty();
    for (const json& one : failed) sum.failed.push_back(one);
  }
  return {};
}

Result<Released> release_all(const Invocation& invocation, Client& client) {
  Released sum;
  if (invocation.has("group")) {
    if (auto done = release(client, {{"group", invocation.text("group")}}, sum); !done)
      return fail(done.error());
    return sum;
  }
  for (std::size_t first = 0; first < invocation.words.size(); first += kAtOnce) {
    const std::size_t last = std::min(invocation.words.size(), first + kAtOnce);
    const std::vector<std::string> tasks(invocation.words.begin() + static_cast<long>(first),
                                         invocation.words.begin() + static_cast<long>(last));
    if (auto done = release(client, {{"tasks", tasks}}, sum); !done) return fail(done.error());
  }
  return sum;
}

Result<int> release_stored(const Invocation& invocation) {
  if (invocation.words.empty() != invocation.has("group"))
    return fail(ErrorCode::kInvalidArgument,
                "`farcall task release` needs task ids or --group GROUP, one of both (see --help)");
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto sum = release_all(invocation, **client);
  if (!sum) return fail(sum.error());
  if (invocation.json)
    print_json({{"files", sum->files}, {"bytes", sum->bytes}, {"failed", sum->failed}});
  else
    fmt::print("{} files removed, {}\n", sum->files, size_text(sum->bytes));
  for (const json& one : sum->failed)
    fmt::print(stderr, "farcall: {}: what it keeps of these tasks stays; release them again\n",
               text_at(one, "text"));
  return sum->failed.empty() ? 0 : error_exit_code(ErrorCode::kUnreachable);
}

}  // namespace

Result<int> list_stored(const Invocation& invocation) {
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto found = find(invocation, **client);
  if (!found) return fail(found.error());
  if (invocation.json) {
    print_json({{"stored", found->stored},
                {"not_connected", found->not_connected},
                {"count", found->count},
                {"bytes", found->bytes}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const json& file : found->stored) rows.push_back(row_of(file));
  fmt::print(
      "{}{} there, {}\n",
      format_table({"TASK", "WHAT", "ENDPOINT", "SIZE", "WRITTEN", "EXPIRES", "STATE"}, rows),
      found->count, size_text(found->bytes));
  for (const json& name : found->not_connected)
    fmt::print("endpoint {} is not connected: what it keeps is not known\n",
               name.get<std::string>());
  return 0;
}

Command release_command() {
  return {"task release",
          "[TASK…]",
          0,
          1000000,
          false,
          "remove large results and files of tasks at their endpoints",
          "What `farcall task list --stored` shows of them. The outcomes stay; whoever asks for a "
          "result\n"
          "that has been released is told so. What has gone already is no error.",
          "farcall task release 0192f0c4-7a3e-7cc1-9a53-000000000000\n"
          "farcall task release --group night",
          {{"group,g", "GROUP", "of all its tasks that have ended"}},
          release_stored};
}

}  // namespace farcall::cli
