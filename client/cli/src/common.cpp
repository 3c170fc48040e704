#include "common.h"

#include <csignal>
#include <regex>

#include "base/config.h"
#include "base/files.h"
#include "cli/config_text.h"
#include "cli/rows.h"
#include "farcall/functions.h"
#include "farcall/payload.h"
#include "mpi_options.h"

namespace farcall::cli {

using nlohmann::json;

Result<std::unique_ptr<Client>> connect(const Invocation& invocation) {
  ClientOptions options;
  options.home = invocation.home;
  options.relay = invocation.relay;
  return Client::connect(std::move(options));
}

Result<json> call_json(Client& client, const std::string& method, const json& parameters) {
  auto answer = client.call(method, parameters.dump());
  if (!answer) return fail(answer.error());
  json value = json::parse(answer->json, nullptr, false);
  if (!value.is_object())
    return fail(ErrorCode::kCorrupt, "the relay's answer to {} is no JSON object", method);
  return value;
}

void print_json(const json& value) {
  fmt::print("{}\n", value.dump(2, ' ', false, json::error_handler_t::replace));
}

std::string text_at(const json& object, const char* key) {
  auto found = object.find(key);
  if (found == object.end() || found->is_null()) return "";
  return found->is_string() ? found->get<std::string>() : found->dump();
}

long long number_at(const json& object, const char* key) {
  auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<long long>() : 0;
}

namespace {
volatile std::sig_atomic_t g_interrupted = 0;
}

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = [](int) { g_interrupted = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}
bool interrupted() { return g_interrupted != 0; }

namespace {

std::vector<std::string> functions_of(const std::string& source) {
  static const std::regex definition(R"(^(?:async\s+)?def\s+([A-Za-z_]\w*)|^([A-Za-z_]\w*)\s*=)",
                                     std::regex::multiline);
  std::vector<std::string> names;
  for (std::sregex_iterator it(source.begin(), source.end(), definition), end; it != end; ++it)
    names.push_back((*it)[1].matched ? (*it)[1].str() : (*it)[2].str());
  return names;
}

}  // namespace

Result<LocalFunction> read_function(const std::string& file_and_name) {
  const std::size_t colon = file_and_name.rfind(':');
  if (colon == std::string::npos || colon + 1 == file_and_name.size())
    return fail(ErrorCode::kInvalidArgument,
                "\"{}\": expected FILE.py:NAME or LIB.so:NAME, such as heat.py:solve",
                file_and_name);
  const std::filesystem::path file = file_and_name.substr(0, colon);
  const std::string name = file_and_name.substr(colon + 1);
  // libheat.so.1 as well
  if (file.filename().string().find(".so") != std::string::npos) {
    auto native = read_native_function(file, name);
    if (!native) return fail(native.error());
    return LocalFunction{std::move(native->record), std::move(native->body)};
  }
  if (file.extension() != ".py")
    return fail(ErrorCode::kInvalidArgument,
                "{} is neither a Python file (.py) nor a shared object (.so)", file.string());
  auto source = farcall::read_file(file);
  if (!source) return fail(source.error());
  const auto names = functions_of(*source);
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    const auto near = suggest(name, names);
    return fail(ErrorCode::kNotFound, "{} has no function {} at its top level{}; it has: {}",
                file.string(), name, near ? fmt::format(", did you mean {}?", *near) : "",
                names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
  }
  const json body = {{"entry", name}, {"source", *source}};
  std::string text;
  try {
    text = body.dump();
  } catch (const json::exception&) {
    return fail(ErrorCode::kInvalidArgument, "{} is not UTF-8 text", file.string());
  }
  LocalFunction function;
  function.record.kind = FunctionKind::kPythonSource;
  function.record.name = name;
  function.record.meta =
      json({{"serializer", "source"}, {"file", file.filename().string()}}).dump();
  function.body = Bytes(std::move(text));
  function.record.id = function_id(function.record.kind, name, function.body.view());
  return function;
}

LocalFunction shell_function() {
  LocalFunction function;
  function.record.kind = FunctionKind::kShell;
  function.record.name = "command";
  function.record.meta = json({{"description", "each task brings its command"}}).dump();
  function.body = Bytes(json({{"argv", true}}).dump());
  function.record.id =
      function_id(function.record.kind, function.record.name, function.body.view());
  return function;
}

Result<FunctionId> find_or_register(Client& client, const std::string& what) {
  if (auto id = FunctionId::parse(what)) return *id;
  auto function = read_function(what);
  if (!function) return fail(function.error());
  return client.register_function(std::move(function->record), std::move(function->body));
}

Bytes arguments_from_words(const std::vector<std::string>& words, std::size_t first) {
  static const std::regex keyword("([A-Za-z_]\\w*)=([\\s\\S]*)");
  auto value_of = [](const std::string& word) {
    json value = json::parse(word, nullptr, false);
    return value.is_discarded() ? json(word) : value;
  };
  json args = json::array(), kwargs = json::object();
  for (std::size_t i = first; i < words.size(); ++i) {
    std::smatch match;
    if (std::regex_match(words[i], match, keyword)) {
      kwargs[match[1].str()] = value_of(match[2].str());
    } else {
      args.push_back(value_of(words[i]));
    }
  }
  return json_arguments(args, kwargs);
}

std::vector<Option> task_options() {
  std::vector<Option> options = {
      {"endpoint,e", "EP", "where to run: an endpoint's name or id", false, true},
      {"group,g", "GROUP", "a name for everything that belongs together"},
      {"label", "TEXT", "for people, shown in lists"},
      {"walltime", "TIME", "of one task: 90, 10m, 1.5h or HH:MM:SS; then it is killed"},
      {"env", "NAME=VALUE", "an environment variable of the tasks; may be repeated", true},
      {"max-processes", "N", "processes that one task may have at once; with more it is killed"},
      {"priority", "N", "lower runs first (0)"},
      {"retries", "N", "how often a task that raised is tried again (0)"},
      {"once", "", "never try a task again, whatever happens to it"},
      {"sandbox", "", "a fresh working directory for each task"},
      {"cwd", "DIR", "working directory there; in the sandbox if it is relative"},
  };
  for (Option& option : resource_options()) options.push_back(std::move(option));
  return options;
}

Result<SubmissionHeader> header_from(const Invocation& invocation, Client& client,
                                     FunctionId function) {
  SubmissionHeader header;
  auto endpoint = client.find_endpoint(invocation.text("endpoint"));
  if (!endpoint) return fail(endpoint.error());
  header.endpoint = *endpoint;
  header.function = function;
  header.group = invocation.text("group");
  header.label = invocation.text("label");
  auto walltime = invocation.duration("walltime", 0);
  auto processes = invocation.number("max-processes", 0, 1);
  auto priority = invocation.number("priority", 0, -1000000);
  auto retries = invocation.number("retries", 0);
  if (!walltime) return fail(walltime.error());
  for (const auto* number : {&processes, &priority, &retries})
    if (!*number) return fail(number->error());
  header.walltime_ms = static_cast<std::uint64_t>(*walltime * 1000);
  header.priority = static_cast<std::int32_t>(*priority);
  header.retry.user_error = static_cast<std::uint16_t>(std::min(*retries, 65535LL));
  header.retry.never = invocation.has("once");
  header.sandbox = invocation.has("sandbox");
  for (const std::string& assignment : invocation.list("env")) {
    auto parts = split_assignment(assignment);
    if (!parts)
      return fail(ErrorCode::kInvalidArgument, "--env {}: expected NAME=VALUE", assignment);
    header.environment[parts->first] = parts->second;
  }
  if (invocation.has("cwd")) header.environment["FARCALL_TASK_DIRECTORY"] = invocation.text("cwd");
  if (*processes > 0) header.environment["FARCALL_TASK_MAX_PROCESSES"] = std::to_string(*processes);
  if (auto taken = take_resources(invocation, header); !taken) return fail(taken.error());
  header.created_ms = read_clock().wall.milliseconds_since_epoch();
  return header;
}

json outcome_json(const Outcome& outcome) {
  json line = {{"index", outcome.task.index}, {"state", name_of(outcome.task.state)},
               {"result", nullptr},           {"error", nullptr},
               {"host", outcome.task.host},   {"attempt", outcome.task.attempt}};
  if (outcome.task.state != TaskState::kSucceeded) {
    auto failure = decode_failure(outcome.data.view());
    line["error"] = failure ? failure_line(*failure) : std::string(name_of(outcome.task.failure));
    return line;
  }
  auto value = value_as_json(outcome.data.view());
  if (!value) {
    line["error"] = value.error().message;
  } else if (*value) {
    line["result"] = std::move(**value);
  } else {
    line["error"] = fmt::format(
        "the result is a Python object that JSON cannot express ({} bytes); "
        "farcall.Client in Python can read it",
        outcome.data.size());
  }
  return line;
}

std::string outcome_csv(const json& line) {
  auto cell = [](const json& value) -> std::string {
    if (value.is_null()) return "";
    return csv_field(value.is_string()
                         ? value.get<std::string>()
                         : value.dump(-1, ' ', false, json::error_handler_t::replace));
  };
  std::string text = fmt::format("{},{},{},{},{},{}", cell(line["index"]), cell(line["state"]),
                                 cell(line["result"]), cell(line["error"]), cell(line["host"]),
                                 cell(line["attempt"]));
  if (line.contains("task_id")) text += "," + cell(line["task_id"]);
  return text;
}

void print_failure(const Outcome& outcome, const TaskId& task) {
  auto failure = decode_failure(outcome.data.view());
  const std::string where = outcome.task.host.empty() ? "" : " on " + outcome.task.host;
  if (!failure) {
    fmt::print(stderr, "farcall: task {} {}{}: {}\n", task.string(), name_of(outcome.task.state),
               where, name_of(outcome.task.failure));
    return;
  }
  if (!failure->traceback.empty()) {
    fmt::print(stderr, "{}{}", failure->traceback, failure->traceback.ends_with('\n') ? "" : "\n");
  }
  fmt::print(stderr, "farcall: task {} {}{}: {}\n", task.string(), name_of(outcome.task.state),
             where, failure_line(*failure));
}

}  // namespace farcall::cli
