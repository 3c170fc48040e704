// One block: an intent to have a batch job, and what became of it. The transition table is the only
// place where a block's state changes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/ids.h"

namespace farcall::interchange {

// X(enumerator, number on disk, name)
#define FARCALL_BLOCK_STATE_TABLE(X)                                                               \
  X(kIntent, 1, "intent")         /* being written down; nothing submitted */                      \
  X(kSubmitting, 2, "submitting") /* the submit command runs, once, ever */                        \
  X(kInDoubt, 3, "in_doubt")      /* it may have worked: the job is looked for by its name */      \
  X(kQueued, 4, "queued")                                                                          \
  X(kRunning, 5, "running")                                                                        \
  X(kEnding, 6, "ending") /* not wanted any more, or its processes are being ended */              \
  X(kEnded, 7, "ended")                                                                            \
  X(kAbandoned, 8, "abandoned") /* never found; a job that shows up under the name is cancelled */ \
  X(kRefused, 9, "refused")     /* the scheduler said no, or was surely not reached */

enum class BlockState : std::uint8_t {
#define FARCALL_X(enumerator, number, name) enumerator = number,
  FARCALL_BLOCK_STATE_TABLE(FARCALL_X)
#undef FARCALL_X
};
std::string_view name_of(BlockState state);
inline bool is_final(BlockState state) { return state >= BlockState::kEnded; }

// What happens to a block.
enum class BlockEvent : std::uint8_t {
  kSaved,      // the intent is on disk
  kForgotten,  // not wanted before it was submitted
  kAccepted,   // the scheduler gave an id
  kRefused,
  kUnknown,  // the submit command's outcome is not known, or a restart found it under way
  kFound,    // under its name
  kGivenUp,  // not found in the time of grace
  kWaits,    // the scheduler says: waiting
  kRuns,     // the scheduler says so, or a pilot of it called
  kEnds,     // the scheduler says so, or we have asked for its end
  kGone,     // ended, or the scheduler does not know it any more
};
std::string_view name_of(BlockEvent event);

// nullopt: the event does not fit the state.
std::optional<BlockState> next_state(BlockState state, BlockEvent event);

// Why a job ended, as far as it matters to the tasks on it.
enum class BlockEnd : std::uint8_t {
  kUnknown,
  kCompleted,
  kFailed,
  kCancelled,
  kWalltime,
  kPreempted
};
std::string_view name_of(BlockEnd end);

// As it is on disk.
struct BlockRecord {
  BlockId id;
  std::string job_name;  // unique for ever
  std::string job_id;    // the scheduler's
  BlockState state = BlockState::kIntent;
  BlockEnd end = BlockEnd::kUnknown;
  int nodes = 1;
  double walltime_s = 0;
  std::string reason;         // the scheduler's or ours, for people
  std::int64_t made_ms = 0;   // wall clock
  std::int64_t since_ms = 0;  // in this state
  std::uint32_t cores = 0;    // of each node, as far as known; for the budget
  std::int64_t ran_ms = 0;    // wall clock at which it began to run; 0: it does not
  double used_s = 0;          // that it ran before: it may have been requeued
  bool operator==(const BlockRecord&) const = default;
};

// False, with the event counted as an error and logged, when it does not fit. Logs old→new and why.
bool apply(BlockRecord& block, BlockEvent event, std::string_view cause, Now now);

}  // namespace farcall::interchange
