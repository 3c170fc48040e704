// The bytes of a failure, as docs/payloads.md has them.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "model/task.h"

namespace farcall::wire {

// What a person needs to know of a failure that is not the user's own exception.
struct FailureText {
  std::string type;     // "WorkerCrashed", "TaskTimeExceeded" …
  std::string message;  // a whole sentence
  FailureClass failure = FailureClass::kNone;
  std::string host;
  int signal = 0;     // 0: none
  std::string limit;  // "walltime 1.5 s"; empty: none
  std::uint16_t attempt = 0;
  std::string job_id;  // of the batch job; empty: not known
};

// 'E', the length and the JSON; without a pickled exception.
Bytes failure_data(const FailureText& failure);

// The same with the batch job in which it happened, unless one stands there; a pickled exception
// behind it stays. What is no failure comes back as it is.
std::string with_job_id(std::string_view data, const std::string& job_id);

}  // namespace farcall::wire
