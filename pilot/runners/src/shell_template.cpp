#include "pilot/runners/shell_template.h"

#include <cctype>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>

#include "base/subprocess.h"

namespace farcall::pilot {

namespace {

// As Python's str() of the same value has it, for those who come with templates for str.format.
std::string value_text(const nlohmann::json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_null()) return "None";
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::size_t identifier_end(const std::string& text, std::size_t from) {
  std::size_t i = from;
  while (i < text.size() && (std::isalnum(static_cast<unsigned char>(text[i])) || text[i] == '_'))
    ++i;
  return i;
}

}  // namespace

Result<std::string> fill_template(const std::string& text, const nlohmann::json& kwargs,
                                  const std::set<std::string>& raw) {
  std::string out;
  int doubled = 0;  // {{ that are still open
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool twice = i + 1 < text.size() && text[i + 1] == text[i];
    if (text[i] == '{' && twice) {
      out += '{';
      ++doubled;
      ++i;
      continue;
    }
    if (text[i] == '}' && twice && doubled > 0) {
      out += '}';
      --doubled;
      ++i;
      continue;
    }
    const std::size_t end = text[i] == '{' ? identifier_end(text, i + 1) : i;
    const std::string name = end > i ? text.substr(i + 1, end - i - 1) : "";
    if (name.empty() || end >= text.size() || !kwargs.is_object() || !kwargs.contains(name)) {
      out += text[i];
      continue;
    }
    const bool variable = i > 0 && text[i - 1] == '$';
    if (text[end] == '}') {
      const std::string value = value_text(kwargs.at(name));
      out += raw.contains(name) ? value : shell_quote(value);
      i = end;
    } else if (!variable && std::string_view(":!.[").find(text[end]) != std::string_view::npos) {
      return fail(ErrorCode::kInvalidArgument,
                  "the command has {{{}{}…}}: formats are not supported in the template of a shell "
                  "function; give the argument as the text that is wanted and write {{{}}}",
                  name, text[end], name);
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<std::string> plain_words(const std::string& command) {
  // Of bash, whose own versions of programs may differ from those on PATH.
  static const std::set<std::string> kOfTheShell = {
      "alias",   "bg",       "bind",     "break",     "builtin",  "caller",  "case",    "cd",
      "command", "compgen",  "complete", "compopt",   "continue", "coproc",  "declare", "dirs",
      "disown",  "do",       "done",     "echo",      "elif",     "else",    "enable",  "esac",
      "eval",    "exec",     "exit",     "export",    "false",    "fc",      "fg",      "fi",
      "for",     "function", "getopts",  "hash",      "help",     "history", "if",      "in",
      "jobs",    "kill",     "let",      "local",     "logout",   "mapfile", "popd",    "printf",
      "pushd",   "pwd",      "read",     "readarray", "readonly", "return",  "select",  "set",
      "shift",   "shopt",    "source",   "suspend",   "test",     "then",    "time",    "times",
      "trap",    "true",     "type",     "typeset",   "ulimit",   "umask",   "unalias", "unset",
      "until",   "wait",     "while"};
  constexpr std::string_view kPlain = "_-./:,+@%= \t";
  for (const char c : command)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && kPlain.find(c) == kPlain.npos)
      return {};
  std::istringstream text(command);
  std::vector<std::string> words;
  for (std::string word; text >> word;) words.push_back(std::move(word));
  // An assignment, a job, or "." and ":".
  const auto odd = [](const std::string& name) {
    return name.find_first_of("=%") != name.npos || name == "." || name == ":";
  };
  if (words.empty() || odd(words[0]) || kOfTheShell.contains(words[0])) return {};
  return words;
}

}  // namespace farcall::pilot
