// farcall: finds the subcommand, runs it, says what went wrong.
#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "base/log.h"
#include "command.h"

#ifndef FARCALL_VERSION
#error "the build gives the version"
#endif

namespace farcall::cli {
namespace {

int report(const Error& error, bool json) {
  if (json) {
    const nlohmann::json object = {{"error", error_name(error.code)},
                                   {"message", error.message},
                                   {"exit_code", error_exit_code(error.code)}};
    fmt::print(stderr, "{}\n",
               object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    fmt::print(stderr, "farcall: {}\n", error.message);
  }
  return error_exit_code(error.code);
}

// Options of every command may stand in front of it: moves them behind.
std::vector<std::string> leading_options_last(std::vector<std::string> words) {
  std::vector<std::string> options;
  while (!words.empty() && words[0].starts_with("--") && words[0] != "--version") {
    const bool has_value = words[0] == "--home" || words[0] == "--relay";
    const std::size_t count = std::min<std::size_t>(has_value ? 2 : 1, words.size());
    options.insert(options.end(), words.begin(), words.begin() + static_cast<long>(count));
    words.erase(words.begin(), words.begin() + static_cast<long>(count));
  }
  auto end = std::find(words.begin(), words.end(), "--");
  words.insert(end, options.begin(), options.end());
  return words;
}

// The commands that begin with `word`: `farcall relay`, `farcall relay --help`.
std::vector<Command> group_of(const std::vector<Command>& commands, const std::string& word) {
  std::vector<Command> group;
  for (const Command& command : commands)
    if (command.name.starts_with(word + " ")) group.push_back(command);
  return group;
}

int unknown(const std::vector<Command>& commands, const std::vector<std::string>& words) {
  const std::vector<Command> group = group_of(commands, words[0]);
  const bool second = !group.empty() && words.size() > 1 && words[1][0] != '-';
  if (!group.empty() && !second) {
    const bool asked = words.size() > 1 && (words[1] == "--help" || words[1] == "-h");
    for (const Command& command : group)
      fmt::print(asked ? stdout : stderr, "  farcall {} {}\n      {}\n", command.name,
                 command.arguments, command.summary);
    return asked ? 0 : error_exit_code(ErrorCode::kInvalidArgument);
  }
  std::vector<std::string> known;
  for (const Command& command : second ? group : commands)
    known.push_back(second ? command.name.substr(words[0].size() + 1)
                           : command.name.substr(0, command.name.find(' ')));
  const auto near = suggest(second ? words[1] : words[0], known);
  return report({ErrorCode::kInvalidArgument,
                 fmt::format("there is no command \"{}{}{}\"{}; see `farcall --help`", words[0],
                             second ? " " : "", second ? words[1] : "",
                             near ? fmt::format(", did you mean \"{}\"?", *near) : "")},
                false);
}

int run(int argc, char** argv) {
  const std::vector<Command> commands = all_commands();
  std::vector<std::string> words = leading_options_last({argv + 1, argv + argc});
  if (words.empty() || words[0] == "--help" || words[0] == "-h" || words[0] == "help") {
    fmt::print("{}", overview(commands));
    return words.empty() ? error_exit_code(ErrorCode::kInvalidArgument) : 0;
  }
  if (words[0] == "--version") {
    fmt::print("farcall {}\n", FARCALL_VERSION);
    return 0;
  }
  const std::string two = words.size() > 1 ? words[0] + " " + words[1] : words[0];
  for (const Command& command : commands) {
    const bool hit = command.name == words[0] || command.name == two;
    if (!hit) continue;
    const long skip = command.name == words[0] ? 1 : 2;
    auto invocation = parse_command_line(command, {words.begin() + skip, words.end()});
    const bool wants_json = std::find(words.begin(), words.end(), "--json") != words.end();
    if (!invocation) return report(invocation.error(), wants_json);
    if (invocation->has("help")) {
      fmt::print("{}", command_help(command));
      return 0;
    }
    auto code = command.run(*invocation);
    return code ? *code : report(code.error(), invocation->json);
  }
  return unknown(commands, words);
}

}  // namespace
}  // namespace farcall::cli

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  farcall::start_logging("farcall", "", "warn");
  try {
    return farcall::cli::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "farcall: a fault of farcall itself: {}\n", error.what());
    return farcall::error_exit_code(farcall::ErrorCode::kInternal);
  }
}
