#include "pilot/mpi/mpi_runner.h"

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "pilot/core/failure.h"
#include "pilot/mpi/launch.h"
#include "wire/codec.h"
#include "wire/shell_result.h"

namespace farcall::pilot {

using nlohmann::json;
using wire::AttemptRef;

namespace {

void remove_directory(const AttemptRef& ref) {
  std::error_code ignored;
  std::filesystem::remove_all(mpi_directory(ref), ignored);
}

// "out.%t": a file for each rank, which the ranks open themselves.
void per_rank_output(json& from, const char* key, const char* variable,
                     std::map<std::string, std::string>& environment) {
  const auto found = from.find(key);
  if (found == from.end() || !found->is_string()) return;
  const std::string path = found->get<std::string>();
  if (path.find("%t") == std::string::npos) return;
  environment[variable] = path;
  from.erase(found);
}

}  // namespace

MpiRunner::MpiRunner(Poller& poller, RunnerSettings settings, std::filesystem::path tool,
                     RunnerEvents events)
    : settings_(std::move(settings)), tool_(std::move(tool)), events_(std::move(events)) {
  RunnerEvents inner = events_;
  inner.finished = [this](Finished finished) { on_finished(std::move(finished)); };
  inner.killed = [this](const AttemptRef& ref) {
    remove_directory(ref);
    events_.killed(ref);
  };
  shell_ = std::make_unique<ShellRunner>(poller, settings_, std::move(inner));
}

void MpiRunner::start(const Start& start) {
  Assignment work = start.work;
  const auto directory = mpi_directory(work.ref);
  if (auto made = make_directory(directory, 0700); !made) {
    Finished finished;
    finished.ref = work.ref;
    finished.outcome.state = TaskState::kFailed;
    finished.outcome.failure = FailureClass::kEnvironment;
    finished.data = failure_data({"OSError", made.error().message, FailureClass::kEnvironment,
                                  settings_.node, 0, "", work.ref.attempt});
    return events_.finished(std::move(finished));
  }
  auto header = std::make_shared<SubmissionHeader>(*work.header);
  for (auto& [name, value] : launch_environment(*header, tool_.string(), directory))
    header->environment.try_emplace(name, value);
  json body = json::parse(work.function->body.view(), nullptr, false);
  json arguments = work.arguments.empty()
                       ? json()
                       : json::parse(work.arguments.view().substr(1), nullptr, false);
  for (json* each : {&body, &arguments}) {
    if (!each->is_object()) continue;
    per_rank_output(*each, "stdout", "FARCALL_RANK_STDOUT", header->environment);
    per_rank_output(*each, "stderr", "FARCALL_RANK_STDERR", header->environment);
  }
  if (arguments.is_object() && arguments.contains("argv") && arguments["argv"].is_array()) {
    json words = launch_words(*header, ranks_of(*header), tool_.string());
    for (const json& word : arguments["argv"]) words.push_back(word);
    arguments["argv"] = std::move(words);
  } else if (body.is_object() && body.contains("cmd") && body["cmd"].is_string()) {
    body["cmd"] = "$FARCALL_MPI_PREFIX " + body["cmd"].get<std::string>();
  }
  if (body.is_object())
    work.function = std::make_shared<Function>(Function{work.function->record, Bytes(body.dump())});
  if (arguments.is_object()) work.arguments = Bytes("J" + arguments.dump());
  work.header = std::move(header);
  shell_->start({work, start.line_up});
}

void MpiRunner::kill(const AttemptRef& ref) { shell_->kill(ref); }

void MpiRunner::on_finished(Finished finished) {
  remove_directory(finished.ref);
  if (finished.outcome.state == TaskState::kSucceeded && finished.outcome.exit_code != 0 &&
      finished.outcome.signal == 0) {
    auto result = wire::decode<wire::ShellResult>(finished.data.slice(1, finished.data.size() - 1));
    if (result) finished.outcome.signal = read_launcher(result->err).signal;
  }
  events_.finished(std::move(finished));
}

}  // namespace farcall::pilot
