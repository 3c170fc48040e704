// What running tasks say while they run: pilot -> interchange -> relay -> client. At most ten a
// second of a task; a hop that has no room drops them; never stored. Packed by wire/codec.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "wire/message.h"

namespace farcall::wire {

inline constexpr MessageType kNotesType{80};

// Progress, and output where the submission's environment asks for it (docs/payloads.md). The
// offsets tell where the bytes stand in all that the task prints, so that a receiver sees what is
// missing.
struct TaskNote {
  std::uint32_t index = 0;
  std::uint16_t attempt = 1;
  bool has_progress = false;  // the next three were said
  double done = 0;
  double total = 0;  // 0: not known
  std::string text;
  std::uint64_t out_offset = 0;
  std::uint32_t out_size = 0;
  std::uint64_t err_offset = 0;
  std::uint32_t err_size = 0;
  bool operator==(const TaskNote&) const = default;
};
struct SubmissionNotes {
  SubmissionId submission;
  std::vector<TaskNote> notes;
  bool operator==(const SubmissionNotes&) const = default;
};
// payload[0]: the output of all notes in order, of each standard output, then standard error.
struct Notes {
  static constexpr MessageType kType = kNotesType;
  std::vector<SubmissionNotes> items;
};

}  // namespace farcall::wire
