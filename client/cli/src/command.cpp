#include "command.h"

#include <boost/program_options.hpp>
#include <charconv>
#include <regex>

#include "base/config.h"
#include "base/files.h"

namespace farcall::cli {

namespace po = boost::program_options;

namespace {

std::string long_name(const Option& option) { return option.name.substr(0, option.name.find(',')); }

po::options_description describe(const std::vector<Option>& options, const std::string& title) {
  po::options_description description(title, 100, 50);
  for (const Option& option : options) {
    if (option.value.empty()) {
      description.add_options()(option.name.c_str(), option.help.c_str());
    } else {
      auto* value = po::value<std::vector<std::string>>()->value_name(option.value)->composing();
      description.add_options()(option.name.c_str(), value, option.help.c_str());
    }
  }
  return description;
}

// -3 and -1.5e3 are arguments, not options.
std::vector<po::option> negative_number(std::vector<std::string>& arguments) {
  static const std::regex number("-(\\d+\\.?\\d*|\\.\\d+)([eE][+-]?\\d+)?");
  std::vector<po::option> result;
  if (!arguments.empty() && std::regex_match(arguments[0], number)) {
    po::option word;
    word.value = word.original_tokens = {arguments[0]};
    word.position_key = std::numeric_limits<int>::max();
    result.push_back(word);
    arguments.erase(arguments.begin());
  }
  return result;
}

Result<void> check_words(const Command& command, const Invocation& invocation) {
  const std::string usage = fmt::format("farcall {} {}", command.name, command.arguments);
  if (invocation.words.size() < command.words_min)
    return fail(ErrorCode::kInvalidArgument, "`farcall {}` needs {}: {} (see --help)", command.name,
                command.arguments, usage);
  if (invocation.words.size() > command.words_max)
    return fail(ErrorCode::kInvalidArgument,
                "`farcall {}` does not know what to do with \"{}\": {} "
                "(see --help)",
                command.name, invocation.words[command.words_max], usage);
  if (invocation.has_rest && !command.takes_rest)
    return fail(ErrorCode::kInvalidArgument, "`farcall {}` takes no command after --",
                command.name);
  for (const Option& option : command.options) {
    if (option.required && !invocation.has(long_name(option)))
      return fail(ErrorCode::kInvalidArgument, "`farcall {}` needs --{} {}: {} (see --help)",
                  command.name, long_name(option), option.value, usage);
    if (!option.repeated && invocation.list(long_name(option)).size() > 1)
      return fail(ErrorCode::kInvalidArgument, "--{} is given more than once", long_name(option));
  }
  return {};
}

}  // namespace

const std::vector<Option>& common_options() {
  static const std::vector<Option> options = {
      {"home", "DIR", "keys and configurations; default $FARCALL_HOME, else ~/.farcall"},
      {"relay", "ADDRESS", "tcp://HOST:PORT instead of the identity's"},
      {"json", "", "print data as JSON, errors as a JSON object on stderr"},
      {"help,h", "", "this help"},
  };
  return options;
}

std::string Invocation::text(const std::string& name, const std::string& otherwise) const {
  auto found = values.find(name);
  return found == values.end() || found->second.empty() ? otherwise : found->second.back();
}

std::vector<std::string> Invocation::list(const std::string& name) const {
  auto found = values.find(name);
  return found == values.end() ? std::vector<std::string>() : found->second;
}

Result<long long> Invocation::number(const std::string& name, long long otherwise,
                                     long long minimum) const {
  if (!has(name)) return otherwise;
  const std::string value = text(name);
  long long number = 0;
  auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number < minimum)
    return fail(ErrorCode::kInvalidArgument, "--{} is \"{}\", expected a whole number from {} on",
                name, value, minimum);
  return number;
}

Result<double> Invocation::duration(const std::string& name, double otherwise) const {
  if (!has(name)) return otherwise;
  auto seconds = parse_duration(text(name));
  if (!seconds) return fail(ErrorCode::kInvalidArgument, "--{}: {}", name, seconds.error().message);
  return *seconds;
}

Result<Invocation> parse_command_line(const Command& command,
                                      const std::vector<std::string>& arguments) {
  Invocation invocation;
  auto separator = std::find(arguments.begin(), arguments.end(), "--");
  if (separator != arguments.end()) {
    invocation.has_rest = true;
    invocation.rest.assign(separator + 1, arguments.end());
  }
  po::options_description description;
  description.add(describe(command.options, "")).add(describe(common_options(), ""));
  description.add_options()("(words)", po::value<std::vector<std::string>>());
  po::positional_options_description positions;
  positions.add("(words)", -1);
  try {
    const auto style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    const auto parsed = po::command_line_parser({arguments.begin(), separator})
                            .options(description)
                            .positional(positions)
                            .style(style)
                            .extra_style_parser(negative_number)
                            .run();
    for (const po::option& option : parsed.options) {
      if (option.string_key == "(words)") {
        invocation.words.insert(invocation.words.end(), option.value.begin(), option.value.end());
      } else {
        auto& list = invocation.values[option.string_key];
        list.insert(list.end(), option.value.begin(), option.value.end());
      }
    }
  } catch (const po::error& error) {
    return fail(ErrorCode::kInvalidArgument, "{}{} (see `farcall {} --help`)", error.what(),
                command.takes_rest && !invocation.has_rest
                    ? "; if it belongs to the command that is to run there, put -- before that"
                    : "",
                command.name);
  }
  invocation.json = invocation.has("json");
  invocation.relay = invocation.text("relay");
  invocation.home = invocation.text("home", farcall_home().string());
  if (invocation.home.is_relative()) invocation.home = std::filesystem::absolute(invocation.home);
  if (invocation.has("help")) return invocation;
  if (auto fine = check_words(command, invocation); !fine) return fail(fine.error());
  return invocation;
}

std::string command_help(const Command& command) {
  std::string text =
      fmt::format("usage: farcall {}{}{}\n\n{}\n", command.name,
                  command.arguments.empty() ? "" : " ", command.arguments, command.summary);
  if (!command.details.empty()) text += "\n" + command.details + "\n";
  std::ostringstream options;
  if (!command.options.empty()) options << "\n" << describe(command.options, "options");
  options << "\n" << describe(common_options(), "options of every command");
  text += options.str() + "\nexamples:\n";
  std::istringstream lines(command.examples);
  for (std::string line; std::getline(lines, line);) text += "  " + line + "\n";
  return text;
}

std::string exit_code_table() {
  std::string text = "exit codes:\n    0  fine\n";
  std::map<int, std::string> meanings;
#define FARCALL_X(enumerator, number, name, exit_code, meaning) \
  meanings[exit_code] += (meanings[exit_code].empty() ? "" : "; ") + std::string(meaning);
  FARCALL_ERROR_TABLE(FARCALL_X)
#undef FARCALL_X
  meanings[130] = "interrupted (Ctrl-C)";
  for (const auto& [code, meaning] : meanings) text += fmt::format("  {:3}  {}\n", code, meaning);
  return text + "`farcall run` exits with the exit code of the command that it ran.\n";
}

std::string overview(const std::vector<Command>& commands) {
  std::string text =
      "usage: farcall COMMAND [OPTIONS]\n\n"
      "Runs functions and commands on clusters, through a relay of your own.\n\n";
  for (const Command& command : commands)
    text += fmt::format("  {:<21} {}\n", command.name, command.summary);
  return text +
         "\nEvery command has --help with examples, --home DIR and --json.\n"
         "First steps on one machine:\n"
         "  farcall relay start\n"
         "  farcall endpoint configure here --provider local && farcall endpoint start here\n"
         "  farcall run -e here -- hostname\n\n" +
         exit_code_table();
}

std::vector<Command> all_commands() {
  std::vector<Command> all;
  for (auto group :
       {relay_commands, login_commands, endpoint_commands, function_commands, run_commands,
        map_commands, submit_commands, task_commands, group_commands, completion_commands}) {
    for (Command& command : group()) all.push_back(std::move(command));
  }
  return all;
}

}  // namespace farcall::cli
