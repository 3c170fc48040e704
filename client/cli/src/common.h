// What several commands need: a connected client, task options, outcomes as JSON, Ctrl-C.
#pragma once

#include <nlohmann/json.hpp>

#include "command.h"
#include "farcall/client.h"

namespace farcall::cli {

Result<std::unique_ptr<Client>> connect(const Invocation& invocation);
// A call whose parameters and answer are JSON objects.
Result<nlohmann::json> call_json(Client& client, const std::string& method,
                                 const nlohmann::json& parameters = nlohmann::json::object());
void print_json(const nlohmann::json& value);
std::string text_at(const nlohmann::json& object, const char* key);
long long number_at(const nlohmann::json& object, const char* key);

// From the first call on, Ctrl-C and SIGTERM only set a flag; a second one ends the program.
void catch_interrupts();
bool interrupted();
inline constexpr int kInterruptedExitCode = 130;

// FILE.py:NAME as a function to register.
struct LocalFunction {
  FunctionRecord record;
  Bytes body;
};
// kNotFound names the file, or the functions that it does have.
Result<LocalFunction> read_function(const std::string& file_and_name);
LocalFunction shell_function();
// A registered function's id, or FILE.py:NAME, registered now.
Result<FunctionId> find_or_register(Client& client, const std::string& what);
// "3", "[1,2]", "text", "name=3": what is no JSON is a text, name=… a keyword argument.
Bytes arguments_from_words(const std::vector<std::string>& words, std::size_t first);

// -e, -g, --walltime, --env, --cores … and the header that they make.
std::vector<Option> task_options();
Result<SubmissionHeader> header_from(const Invocation& invocation, Client& client,
                                     FunctionId function);

// {"index", "state", "result", "error", "host", "attempt"}.
nlohmann::json outcome_json(const Outcome& outcome);
std::string outcome_csv(const nlohmann::json& line);  // of outcome_json, without line break
inline constexpr const char* kCsvHeading = "index,state,result,error,host,attempt";
// The failure on stderr: remote traceback, if any, and the line that says what happened.
void print_failure(const Outcome& outcome, const TaskId& task);

}  // namespace farcall::cli
