// Reading what a scheduler's command printed. Pure.
#pragma once

#include <charconv>
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

}  // namespace farcall::providers
