// farcall function …
#include "cli/table.h"
#include "common.h"

namespace farcall::cli {

using nlohmann::json;

namespace {

Result<int> register_function(const Invocation& invocation) {
  auto function = read_function(invocation.words[0]);
  if (!function) return fail(function.error());
  json meta = json::parse(function->record.meta);
  if (invocation.has("description")) meta["description"] = invocation.text("description");
  function->record.meta = meta.dump();
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  const std::string name = function->record.name;
  auto id = (*client)->register_function(std::move(function->record), std::move(function->body));
  if (!id) return fail(id.error());
  if (invocation.json)
    print_json({{"function_id", id->string()}, {"name", name}});
  else
    fmt::print("{}\n", id->string());
  return 0;
}

Result<json> functions_at(Client& client) {
  auto answer = call_json(client, "function.list");
  if (!answer) return fail(answer.error());
  return answer->value("functions", json::array());
}

// An id as it is; a name if exactly one function has it.
Result<std::string> find_function(Client& client, const std::string& what) {
  if (FunctionId::parse(what)) return what;
  auto functions = functions_at(client);
  if (!functions) return fail(functions.error());
  std::vector<std::string> ids;
  for (const json& function : *functions)
    if (text_at(function, "name") == what) ids.push_back(text_at(function, "function_id"));
  if (ids.empty())
    return fail(ErrorCode::kNotFound, "no function \"{}\"; see `farcall function list`", what);
  if (ids.size() > 1)
    return fail(ErrorCode::kInvalidArgument, "{} functions are called {}: {}; give the id",
                ids.size(), what, fmt::join(ids, ", "));
  return ids[0];
}

Result<int> list(const Invocation& invocation) {
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto functions = functions_at(**client);
  if (!functions) return fail(functions.error());
  if (invocation.json) {
    print_json({{"functions", *functions}});
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const json& function : *functions)
    rows.push_back({text_at(function, "name"), text_at(function, "kind"), text_at(function, "size"),
                    format_time(number_at(function, "created_ms")),
                    text_at(function, "function_id")});
  fmt::print("{}", format_table({"NAME", "KIND", "BYTES", "REGISTERED (UTC)", "ID"}, rows));
  return 0;
}

Result<int> show(const Invocation& invocation) {
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto id = find_function(**client, invocation.words[0]);
  if (!id) return fail(id.error());
  auto answer = (*client)->call("function.show", json({{"function", *id}}).dump());
  if (!answer) return fail(answer.error());
  json record = json::parse(answer->json, nullptr, false);
  if (!record.is_object()) return fail(ErrorCode::kCorrupt, "the relay's answer is damaged");
  if (auto functions = record.find("functions");
      functions != record.end() && functions->is_array() && !functions->empty())
    record = json((*functions)[0]);
  const json body =
      answer->payload.empty() ? json() : json::parse(answer->payload[0].view(), nullptr, false);
  if (invocation.json) {
    if (body.is_object()) record["body"] = body;
    print_json(record);
    return 0;
  }
  fmt::print("{}  {}  ({} bytes, registered {})\n", text_at(record, "name"),
             text_at(record, "kind"), text_at(record, "size"),
             format_time(number_at(record, "created_ms")));
  if (const std::string meta = text_at(record, "meta"); !meta.empty()) fmt::print("{}\n", meta);
  if (body.is_object() && body.contains("source"))
    fmt::print("\n{}", text_at(body, "source"));
  else if (body.is_object())
    fmt::print("\n{}\n", body.dump(2));
  return 0;
}

Result<int> remove_function(const Invocation& invocation) {
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto id = find_function(**client, invocation.words[0]);
  if (!id) return fail(id.error());
  auto answer = call_json(**client, "function.delete", {{"function", *id}});
  if (!answer) return fail(answer.error());
  if (invocation.json)
    print_json({{"deleted", *id}});
  else
    fmt::print("function {} deleted\n", *id);
  return 0;
}

}  // namespace

std::vector<Command> function_commands() {
  return {
      {"function register",
       "(FILE.py | LIB.so):NAME",
       1,
       1,
       false,
       "register a function of a Python file or a shared object, print its id",
       "A Python file is sent as text and run as a module by the workers. A shared object is sent "
       "as it\n"
       "is; its functions are declared with FARCALL_FUNCTION of <farcall/function.h>. The id is "
       "made\n"
       "from the content: the same file gives the same id.",
       "farcall function register heat.py:solve\n"
       "farcall function register libheat.so:solve",
       {{"description", "TEXT", "for people"}},
       register_function},
      {"function list", "", 0, 0, false, "all my functions", "", "farcall function list", {}, list},
      {"function show",
       "FUNCTION",
       1,
       1,
       false,
       "a function's source",
       "",
       "farcall function show solve",
       {},
       show},
      {"function delete",
       "FUNCTION",
       1,
       1,
       false,
       "delete a function",
       "",
       "farcall function delete 1b4e28ba-2fa1-81d2-883f-0016d3cca427",
       {},
       remove_function},
  };
}

}  // namespace farcall::cli
