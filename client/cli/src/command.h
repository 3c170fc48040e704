// What a subcommand is: its words and options for help and completion, and what it does.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace farcall::cli {

struct Option {
  std::string name;   // "endpoint,e": long and, if any, short
  std::string value;  // what stands for its value in the help; empty: a switch
  std::string help;
  bool repeated = false;
  bool required = false;
};

// A command line after parsing.
class Invocation {
 public:
  std::filesystem::path home;      // never empty
  std::string relay;               // --relay, else empty
  bool json = false;               // --json
  std::vector<std::string> words;  // positional, those after `--` left out
  std::vector<std::string> rest;   // after `--`
  bool has_rest = false;           // there was a `--`

  bool has(const std::string& name) const { return values.contains(name); }
  // The value of an option that is there; else `otherwise`.
  std::string text(const std::string& name, const std::string& otherwise = "") const;
  std::vector<std::string> list(const std::string& name) const;
  // kInvalidArgument unless it is a whole number from `minimum` on.
  Result<long long> number(const std::string& name, long long otherwise,
                           long long minimum = 0) const;
  // Seconds, written as 90, 1.5h, 10m or HH:MM:SS.
  Result<double> duration(const std::string& name, double otherwise) const;

  std::map<std::string, std::vector<std::string>> values;
};

struct Command {
  std::string name;       // "endpoint start"
  std::string arguments;  // "NAME", as in the usage line
  std::size_t words_min = 0;
  std::size_t words_max = 0;
  bool takes_rest = false;  // a command after `--`
  std::string summary;      // one line
  std::string details;      // more, may be empty
  std::string examples;     // lines, without indentation
  std::vector<Option> options;
  std::function<Result<int>(const Invocation&)> run;  // the exit code
};

// --home, --relay, --json, --help: understood by every command.
const std::vector<Option>& common_options();
// kInvalidArgument for what the command does not understand.
Result<Invocation> parse_command_line(const Command& command,
                                      const std::vector<std::string>& arguments);
std::string command_help(const Command& command);
std::string overview(const std::vector<Command>& commands);
std::string exit_code_table();

// One per file of this folder.
std::vector<Command> relay_commands();
std::vector<Command> login_commands();
std::vector<Command> endpoint_commands();
std::vector<Command> function_commands();
std::vector<Command> run_commands();
std::vector<Command> map_commands();
std::vector<Command> submit_commands();
std::vector<Command> task_commands();
std::vector<Command> group_commands();
std::vector<Command> completion_commands();
// All of them, in the order of the help.
std::vector<Command> all_commands();
// For bash: source <(farcall completion bash).
std::string bash_completion(const std::vector<Command>& commands);

}  // namespace farcall::cli
