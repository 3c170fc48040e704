// One logger per process, lines to stderr or a file:
//   2026-01-31T12:00:00.123Z INFO  interchange: block 3f2a…: submitted→running, job 17, after 2.1 s
// Thread-safe. Tests fail on a line at ERROR: see set_log_observer.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string>
#include <string_view>

namespace farcall {

enum class LogLevel : int { kTrace, kDebug, kInfo, kWarn, kError };

// `component` stands in front of each line; `file` empty means stderr. A file is appended to and
// renamed to FILE.1 … at 64 MiB, three of them kept.
// Level: trace, debug, info, warn, error ($FARCALL_LOG overrides; an unknown word means info).
// A file that cannot be written: stderr is used and says so.
void start_logging(const std::string& component, const std::string& file = "",
                   const std::string& level = "info");

// Sees every line that is logged, on the thread that logs it and before it is written. An empty
// function switches it off. Must not log.
using LogObserver = std::function<void(LogLevel, std::string_view text)>;
void set_log_observer(LogObserver observer);

bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view text);

template <class... Args>
void log_debug(fmt::format_string<Args...> f, Args&&... args) {
  if (log_enabled(LogLevel::kDebug))
    log_line(LogLevel::kDebug, fmt::format(f, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(fmt::format_string<Args...> f, Args&&... args) {
  if (log_enabled(LogLevel::kInfo))
    log_line(LogLevel::kInfo, fmt::format(f, std::forward<Args>(args)...));
}
template <class... Args>
void log_warn(fmt::format_string<Args...> f, Args&&... args) {
  if (log_enabled(LogLevel::kWarn))
    log_line(LogLevel::kWarn, fmt::format(f, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> f, Args&&... args) {
  if (log_enabled(LogLevel::kError))
    log_line(LogLevel::kError, fmt::format(f, std::forward<Args>(args)...));
}

}  // namespace farcall
