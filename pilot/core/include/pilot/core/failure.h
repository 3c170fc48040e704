// The bytes of a failure, as docs/payloads.md has them.
#pragma once

#include <string>

#include "base/bytes.h"
#include "model/task.h"

namespace farcall::pilot {

// What a person needs to know of a failure that is not the user's own exception.
struct FailureText {
  std::string type;     // "WorkerCrashed", "TaskTimeExceeded" …
  std::string message;  // a whole sentence
  FailureClass failure = FailureClass::kNone;
  std::string host;
  int signal = 0;     // 0: none
  std::string limit;  // "walltime 1.5 s"; empty: none
  std::uint16_t attempt = 0;
  std::string used = {};           // "1480 MiB", "312 processes"; empty: not known
  std::string module = "farcall";  // of the type
};

// 'E', the length and the JSON; without a pickled exception.
Bytes failure_data(const FailureText& failure);

}  // namespace farcall::pilot
