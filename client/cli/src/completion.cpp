// farcall completion bash
#include <fmt/format.h>

#include <set>

#include "command.h"

namespace farcall::cli {

namespace {

std::string option_words(const Command& command) {
  std::string words;
  for (const auto& options : {command.options, common_options()})
    for (const Option& option : options)
      words += " --" + option.name.substr(0, option.name.find(','));
  return words;
}

Result<int> completion(const Invocation& invocation) {
  if (invocation.words[0] != "bash")
    return fail(ErrorCode::kInvalidArgument, "there is a completion for bash only, not for {}",
                invocation.words[0]);
  fmt::print("{}", bash_completion(all_commands()));
  return 0;
}

}  // namespace

namespace {
// clang-format takes the braces of the shell for its own.
// clang-format off
constexpr std::string_view kBashScript =
    R"BASH(# bash completion of farcall: source <(farcall completion bash)
_farcall() {
  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" words=''
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '@FIRST@' -- "$current")); return
  fi
  if [ "$COMP_CWORD" -eq 2 ] && [ "${current:0:1}" != - ]; then
    case "${COMP_WORDS[1]}" in
@GROUPS@    esac
    if [ -n "$words" ]; then COMPREPLY=($(compgen -W "$words" -- "$current")); return; fi
  fi
  if [ "${current:0:1}" != - ]; then
    case "$previous ${COMP_WORDS[1]} ${COMP_WORDS[2]}" in
      -e\ *|--endpoint\ *|*\ endpoint\ start|*\ endpoint\ stop|*\ endpoint\ restart|*\ endpoint\ status|*\ endpoint\ drain|*\ endpoint\ resume|*\ endpoint\ script|*\ endpoint\ logs|*\ endpoint\ delete)
        COMPREPLY=($(compgen -W "$(ls "${FARCALL_HOME:-$HOME/.farcall}/endpoints" 2>/dev/null)" -- "$current")) ;;
      *) COMPREPLY=($(compgen -f -- "$current")) ;;
    esac
    return
  fi
  local name="${COMP_WORDS[1]}"
  case ' @NAMES@ ' in *" $name "*) name="$name ${COMP_WORDS[2]}" ;; esac
  case "$name" in
@OPTIONS@  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _farcall farcall
)BASH";
// clang-format on

std::string replaced(std::string text, std::string_view mark, std::string_view by) {
  for (std::size_t at = text.find(mark); at != text.npos; at = text.find(mark, at + by.size()))
    text.replace(at, mark.size(), by);
  return text;
}
}  // namespace

std::string bash_completion(const std::vector<Command>& commands) {
  std::map<std::string, std::string> second;  // first word -> second words
  std::string cases;
  for (const Command& command : commands) {
    const std::size_t blank = command.name.find(' ');
    std::string& words = second[command.name.substr(0, blank)];
    if (blank != std::string::npos) words += " " + command.name.substr(blank + 1);
    cases +=
        fmt::format("    '{}') words='{}' ;;\n", command.name, option_words(command).substr(1));
  }
  std::string first, groups, names;
  for (const auto& [word, words] : second) {
    first += (first.empty() ? "" : " ") + word;
    if (words.empty()) continue;
    names += (names.empty() ? "" : " ") + word;
    groups += fmt::format("      {}) words='{}' ;;\n", word, words.substr(1));
  }
  std::string script = replaced(std::string(kBashScript), "@FIRST@", first);
  script = replaced(std::move(script), "@GROUPS@", groups);
  script = replaced(std::move(script), "@OPTIONS@", cases);
  return replaced(std::move(script), "@NAMES@", names);
}

std::vector<Command> completion_commands() {
  return {{"completion",
           "bash",
           1,
           1,
           false,
           "print a completion script for the shell",
           "",
           "source <(farcall completion bash)",
           {},
           completion}};
}

}  // namespace farcall::cli
