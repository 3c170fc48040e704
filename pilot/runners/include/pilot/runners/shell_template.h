// Shell functions as text: filling the template of docs/payloads.md, and what of it needs a shell.
// Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"

namespace farcall::pilot {

// {name} of the kwargs is replaced, its value quoted as one shell word unless it is in `raw`; {{
// and its }} become braces; every other brace stands for itself, so that awk and ${variables}
// survive. kInvalidArgument for a {name:format} of the kwargs, which would otherwise be left as it
// is.
Result<std::string> fill_template(const std::string& text, const nlohmann::json& kwargs,
                                  const std::set<std::string>& raw);

// The words of a command that a shell would do nothing with but run it: one program with plain
// words. Empty when it takes a shell: quotes, expansions, redirections, several commands,
// assignments, builtins, keywords. Starting a shell costs more than most small programs do.
std::vector<std::string> plain_words(const std::string& command);

}  // namespace farcall::pilot
