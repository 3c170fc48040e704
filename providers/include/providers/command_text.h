// What the commands of schedulers have in common: what they print, and lists they are given. Pure.
#pragma once

#include <charconv>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/subprocess.h"

namespace farcall::providers {

std::string_view trimmed(std::string_view text);  // of blanks and line ends
std::vector<std::string_view> split(std::string_view text, char separator);
std::optional<long long> to_number(std::string_view text);  // the whole text
bool has(std::string_view text, std::string_view part);
bool has_any(std::string_view text, std::initializer_list<std::string_view> parts);
double seconds_of(Duration duration);

// Its words on one line, shortened: standard error, or output when there is no error; the
// "command: error: " in front of a line is left out. "no text" when there is none.
std::string words_of(const CommandOutput& output);

// Host names without their domains, which schedulers may leave out or not. What is no plain name is
// left out.
std::vector<std::string> short_names(const std::vector<std::string>& hosts);

// So many ids at most that a thousand do not meet the time limit of one command; only ids of the
// same `key` are together.
using Ids = std::vector<std::string>;
std::vector<Ids> in_chunks(const Ids& ids,
                           const std::function<std::string(const std::string&)>& key);
// Calls cancel for each: one that is refused does not keep the others from being cancelled, but a
// scheduler that is away would cost the time limit each time. The first error is reported.
Result<void> cancel_each(const std::vector<Ids>& chunks,
                         const std::function<Result<void>(const Ids&)>& cancel);

}  // namespace farcall::providers
