// What running tasks say while they run. Part of farcall/client.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"

namespace farcall {

// What a running task says of itself, or prints. At most ten a second of a task; some are dropped
// when somebody on the way has no room, which the offsets show.
struct TaskNote {
  std::uint32_t index = 0;
  std::uint16_t attempt = 1;
  bool has_progress = false;  // `done`, `total`, `text` were said
  double done = 0;
  double total = 0;  // 0: not known
  std::string text;
  std::string out, err;  // what was printed, where FARCALL_TASK_STREAM asks for it
  std::uint64_t out_offset = 0, err_offset = 0;  // of its first byte in all that the task prints
};
struct TaskNotes {
  SubmissionId submission;
  std::vector<TaskNote> notes;
};

}  // namespace farcall
