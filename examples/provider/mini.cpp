// A provider for a scheduler of your own, in one file: it speaks the binary interface of
// providers/provider_abi.h and needs nothing else of farcall. The scheduler is minisched, beside
// it.
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "providers/provider_abi.h"

using nlohmann::json;

namespace {

// What a call ends with instead of an answer: one of the codes of docs/providers.md, and why.
struct Failure {
  const char* code;
  std::string message;
};

std::string quoted(const std::string& word) {
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// A command of the scheduler with a time limit, as every one needs.
std::string run(const json& config, const std::string& command, int& exit_code) {
  const int limit_s = static_cast<int>(config.at("cmd_timeout").get<double>()) + 1;
  const std::string line = "timeout " + std::to_string(limit_s) + " " +
                           quoted(config.at("minisched").get<std::string>()) + " " + command +
                           " 2>&1";
  FILE* pipe = popen(line.c_str(), "r");
  if (pipe == nullptr) throw Failure{"scheduler_unavailable", "cannot start " + line};
  std::string out;
  char part[4096];
  while (const std::size_t got = fread(part, 1, sizeof part, pipe)) out.append(part, got);
  const int status = pclose(pipe);
  exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

json jobs(const json& config) {
  int exit_code = 0;
  const std::string out = run(config, "list", exit_code);
  json listed = json::parse(out, nullptr, false);
  // Whatever goes wrong here says nothing about any job.
  if (exit_code != 0 || !listed.is_object())
    throw Failure{"scheduler_unavailable", "minisched list: " + out};
  return listed;
}

std::string script(const json& config, const json& request) {
  return "#!/bin/bash\nexec >>" + quoted(request.at("directory").get<std::string>() + "/job.out") +
         " 2>&1\ncd " + quoted(request.at("directory")) +
         "\nexport FARCALL_JOB_ID=$MINI_JOB FARCALL_JOB_NAME=" + quoted(request.at("job_name")) +
         "\nexport FARCALL_NODE_RANK=$MINI_NODE FARCALL_JOB_START=$MINI_START "
         "FARCALL_JOB_ENDS_AT=$MINI_ENDS_AT\n" +
         config.at("worker_init").get<std::string>() + "\n" +
         (config.at("nice").get<int>() > 0
              ? "renice -n " + std::to_string(config.at("nice").get<int>()) + " $$ >/dev/null\n"
              : "") +
         "exec /bin/bash -c " + quoted(request.at("command")) + "\n";
}

json submit(const json& config, const json& request) {
  const std::string directory = request.at("directory"), name = request.at("job_name");
  mkdir(directory.c_str(), 0700);
  const std::string file = directory + "/" + name + ".sh";
  std::ofstream(file) << script(config, request);
  chmod(file.c_str(), 0700);
  int exit_code = 0;
  const std::string out =
      run(config,
          "submit " + quoted(name) + " " + std::to_string(request.at("nodes").get<int>()) + " " +
              std::to_string(request.at("walltime_s").get<double>()) + " " + quoted(file),
          exit_code);
  if (exit_code == 0 && !out.empty()) return {{"job_id", out}};
  if (exit_code == 1) throw Failure{"scheduler_refused", out};  // its own words
  if (exit_code == 127) throw Failure{"scheduler_unavailable", out};
  throw Failure{"outcome_unknown",
                "minisched submit (exit code " + std::to_string(exit_code) + "): " + out};
}

json status(const json& config, const json& ids) {
  const json listed = jobs(config);
  json answers = json::array();
  for (const std::string id : ids) {
    if (!listed.contains(id)) {
      answers.push_back(
          {{"job_id", id}, {"state", "unknown"}, {"listed", false}, {"reason", "not listed"}});
      continue;
    }
    const json& job = listed[id];
    const std::string word = job.at("state");
    json answer = {{"job_id", id},
                   {"job_name", job.at("name")},
                   {"word", word},
                   {"state", word == "waiting" ? "queued" : word}};
    if (word == "running") {
      answer["nodes"] = {job.at("host")};
      answer["remaining_s"] =
          std::floor(job.at("ends").get<double>() - static_cast<double>(time(nullptr)));
    } else if (word == "ended") {
      answer["ended_by"] = job.at("ended_by");
      answer["exit_code"] = job.at("exit_code");
    }
    answers.push_back(answer);
  }
  return {{"jobs", answers}};
}

json answer(const json& config, const json& request) {
  const std::string op = request.at("op");
  if (op == "submit") return submit(config, request.at("request"));
  if (op == "script") return {{"script", script(config, request.at("request"))}};
  if (op == "status") return status(config, request.at("job_ids"));
  if (op == "find_by_name") {
    json ids = json::array();
    const json listed = jobs(config);
    for (const auto& [id, job] : listed.items())
      if (job.at("name") == request.at("job_name")) ids.push_back(id);
    return {{"job_ids", ids}};
  }
  if (op == "cancel") {
    std::string command = "cancel";
    for (const std::string id : request.at("job_ids")) command += " " + quoted(id);
    int exit_code = 0;
    const std::string out = run(config, command, exit_code);
    if (exit_code != 0) throw Failure{"outcome_unknown", "minisched cancel: " + out};
    return json::object();
  }
  throw Failure{"invalid_argument", "no operation " + op};
}

char* copy(const json& value) {
  return strdup(value.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
}

json problem(const char* code, const std::string& message) {
  return {{"code", code}, {"message", message}};
}

// ---- the table ----------------------------------------------------------------------------------

// The keys of engine.provider: checked with bounds, suggestions and file:line, and documented, like
// those of the providers that ship. The first ones are read by the interchange too.
const char* const kSchema = R"([
    {"name": "nodes_per_block", "type": "integer", "default": 1, "minimum": 1, "help": "Processes of one job."},
    {"name": "init_blocks", "type": "integer", "default": 0, "minimum": 0, "help": "Blocks submitted at the start."},
    {"name": "min_blocks", "type": "integer", "default": 0, "minimum": 0, "help": "Blocks kept when idle."},
    {"name": "max_blocks", "type": "integer", "default": 1, "minimum": 0, "help": "Blocks at the same time."},
    {"name": "parallelism", "type": "number", "default": 1.0, "minimum": 0, "maximum": 1, "help": "Slots per waiting task."},
    {"name": "walltime", "type": "duration", "default": 3600, "unit": "s", "minimum": 1, "help": "Time limit of a block."},
    {"name": "cmd_timeout", "type": "duration", "default": 30, "unit": "s", "minimum": 1, "help": "Time limit of one command."},
    {"name": "worker_init", "type": "string", "default": "", "help": "Shell lines run first."},
    {"name": "minisched", "type": "string", "default": "minisched", "help": "The scheduler's command."},
    {"name": "nice", "type": "integer", "default": 0, "minimum": 0, "maximum": 19, "help": "How far jobs stand back."}
  ])";

char* schema() { return strdup(kSchema); }

farcall_provider* create(const char* config_json, char** error_json) {
  *error_json = nullptr;
  json config = json::parse(config_json, nullptr, false);
  if (!config.is_object()) {
    *error_json = copy(problem("config", "the configuration is no JSON object"));
    return nullptr;
  }
  const json defaults = json::parse(kSchema);
  for (const json& key : defaults)
    if (!config.contains(key.at("name")))
      config[key.at("name").get<std::string>()] = key.at("default");
  return reinterpret_cast<farcall_provider*>(new json(std::move(config)));
}

json* unwrap(farcall_provider* provider) { return reinterpret_cast<json*>(provider); }
void destroy(farcall_provider* provider) { delete unwrap(provider); }

// No exception may leave.
char* call(farcall_provider* provider, const char* request_json) {
  try {
    return copy({{"ok", answer(*unwrap(provider), json::parse(request_json))}});
  } catch (const Failure& failure) {
    return copy({{"error", problem(failure.code, failure.message)}});
  } catch (const std::exception& error) {
    return copy({{"error", problem("internal", error.what())}});
  }
}

void free_string(char* text) { free(text); }

const farcall_provider_table kTable = {FARCALL_PROVIDER_ABI_VERSION,
                                       sizeof(farcall_provider_table),
                                       "mini",
                                       "1",
                                       schema,
                                       create,
                                       destroy,
                                       call,
                                       free_string};

}  // namespace

extern "C" __attribute__((visibility("default"))) const farcall_provider_table*
farcall_provider_entry(void) {
  return &kTable;
}
