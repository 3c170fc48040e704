// Errors as values. A code exists only where a caller reacts to it; everything else is text.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace farcall {

// One table gives code, name (on the wire and in --json) and the exit code of the command line.
// Names and numbers are never reused. X(enumerator, wire number, name, exit code, meaning)
#define FARCALL_ERROR_TABLE(X)                                                                \
  X(kInternal, 1, "internal", 70, "a fault of farcall itself")                                \
  X(kInvalidArgument, 2, "invalid_argument", 64, "the request makes no sense as it stands")   \
  X(kConfig, 3, "config", 78, "a configuration file cannot be used")                          \
  X(kNotFound, 4, "not_found", 66, "no such endpoint, function, submission, task or file")    \
  X(kExists, 5, "exists", 73, "the name or id is taken by something else")                    \
  X(kUnreachable, 6, "unreachable", 69, "nobody answers at that address")                     \
  X(kDenied, 7, "denied", 77, "the key is not known or may not do this")                      \
  X(kVersion, 8, "version", 76, "the two sides speak different protocol versions")            \
  X(kTimeout, 9, "timeout", 75, "no answer in time; the outcome is not known")                \
  X(kTooLarge, 10, "too_large", 65, "a value is larger than the limit")                       \
  X(kIo, 11, "io", 74, "the operating system refused a file or a process")                    \
  X(kCorrupt, 12, "corrupt", 65, "stored or received bytes are not what they should be")      \
  X(kSchedulerRefused, 13, "scheduler_refused", 1, "the batch scheduler said no")             \
  X(kSchedulerLimit, 14, "scheduler_limit", 1, "a submit limit of the scheduler: wait")       \
  X(kSchedulerUnavailable, 15, "scheduler_unavailable", 69, "the scheduler does not answer")  \
  X(kOutcomeUnknown, 16, "outcome_unknown", 75, "a command may or may not have taken effect") \
  X(kTaskFailed, 17, "task_failed", 1, "the task ended without a result")                     \
  X(kCancelled, 18, "cancelled", 1, "the task was cancelled")                                 \
  X(kBusy, 19, "busy", 75, "somebody else holds it; try later")                               \
  X(kResultLost, 20, "result_lost", 66, "a large result or file at its endpoint is lost")

enum class ErrorCode : int {
#define FARCALL_ERROR_ENUM(enumerator, number, name, exit_code, meaning) enumerator = number,
  FARCALL_ERROR_TABLE(FARCALL_ERROR_ENUM)
#undef FARCALL_ERROR_ENUM
};

std::string_view error_name(ErrorCode code);
int error_exit_code(ErrorCode code);
// An unknown number (a newer peer's) becomes kInternal.
ErrorCode error_from_number(int number);

// What failed, on which object, found against expected, what to do next: all in `message`, which
// is meant for people and starts lower-case without a final stop.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;

  bool operator==(const Error&) const = default;
};

template <class T>
using Result = tl::expected<T, Error>;

template <class... Args>
tl::unexpected<Error> fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected<Error>(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}

// Passes the error of a Result<U> on as the error of another Result.
inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }

// Our own bugs, also in release builds: prints file, line, condition and text, then aborts.
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& text);
#define FARCALL_CHECK(condition, text)                                                 \
  do {                                                                                 \
    if (!(condition)) ::farcall::check_failed(__FILE__, __LINE__, #condition, (text)); \
  } while (false)

}  // namespace farcall
