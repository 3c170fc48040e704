// One logger per process, lines to stderr or a file:
//   2026-01-31T12:00:00.123Z INFO  interchange: block 3f2a…: submitted→running, job 17, after 2.1 s
// Thread-safe. Tests fail on a line at ERROR: see set_log_observer.
#pragma once

#include <spdlog/spdlog.h>

#include <functional>
#include <string>

namespace farcall {

// `component` stands in front of each line; `file` empty means stderr.
// Level: trace, debug, info, warn, error ($FARCALL_LOG overrides).
void start_logging(const std::string& component, const std::string& file = "",
                   const std::string& level = "info");

template <class... Args>
void log_debug(fmt::format_string<Args...> f, Args&&... args) {
  spdlog::debug(f, std::forward<Args>(args)...);
}
template <class... Args>
void log_info(fmt::format_string<Args...> f, Args&&... args) {
  spdlog::info(f, std::forward<Args>(args)...);
}
template <class... Args>
void log_warn(fmt::format_string<Args...> f, Args&&... args) {
  spdlog::warn(f, std::forward<Args>(args)...);
}
template <class... Args>
void log_error(fmt::format_string<Args...> f, Args&&... args) {
  spdlog::error(f, std::forward<Args>(args)...);
}

}  // namespace farcall
