// Columns for people. Pure.
#pragma once

#include <string>
#include <vector>

namespace farcall::cli {

// "NAME   STATE" and rows beneath, columns as wide as their longest cell (in code points), two
// spaces between, no spaces at the end of a line. No rows: the heading alone.
std::string format_table(const std::vector<std::string>& heading,
                         const std::vector<std::vector<std::string>>& rows);

// 1.5 s, 2 min 3 s, 1 h 4 min, 3 d 2 h.
std::string format_age(double seconds);
// "2026-01-31 12:00:00" UTC; "-" for 0.
std::string format_time(long long ms_since_epoch);

}  // namespace farcall::cli
