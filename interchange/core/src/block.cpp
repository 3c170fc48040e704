#include "interchange/core/block.h"

#include <algorithm>
#include <array>

#include "base/log.h"

namespace farcall::interchange {
namespace {

struct Transition {
  BlockState from;
  BlockEvent event;
  BlockState to;
};
using S = BlockState;
using E = BlockEvent;
constexpr std::array kTransitions = {
    Transition{S::kIntent, E::kSaved, S::kSubmitting},
    Transition{S::kIntent, E::kUnknown, S::kInDoubt},
    Transition{S::kIntent, E::kForgotten, S::kEnded},
    Transition{S::kSubmitting, E::kAccepted, S::kQueued},
    Transition{S::kSubmitting, E::kRefused, S::kRefused},
    Transition{S::kSubmitting, E::kUnknown, S::kInDoubt},
    Transition{S::kInDoubt, E::kFound, S::kQueued},
    Transition{S::kInDoubt, E::kUnknown, S::kInDoubt},
    Transition{S::kInDoubt, E::kGivenUp, S::kAbandoned},
    Transition{S::kQueued, E::kRuns, S::kRunning},
    Transition{S::kQueued, E::kEnds, S::kEnding},
    Transition{S::kQueued, E::kGone, S::kEnded},
    Transition{S::kRunning, E::kWaits, S::kQueued},  // requeued by the scheduler
    Transition{S::kRunning, E::kEnds, S::kEnding},
    Transition{S::kRunning, E::kGone, S::kEnded},
    Transition{S::kEnding, E::kGone, S::kEnded},
};

}  // namespace

std::string_view name_of(BlockState state) {
  switch (state) {
#define FARCALL_X(enumerator, number, name) \
  case BlockState::enumerator:              \
    return name;
    FARCALL_BLOCK_STATE_TABLE(FARCALL_X)
#undef FARCALL_X
  }
  return "unknown";
}

std::string_view name_of(BlockEvent event) {
  constexpr std::array<std::string_view, 11> kNames = {
      "saved",    "forgotten", "accepted", "refused", "unknown", "found",
      "given up", "waits",     "runs",     "ends",    "gone"};
  return kNames[static_cast<std::size_t>(event)];
}

std::string_view name_of(BlockEnd end) {
  constexpr std::array<std::string_view, 6> kNames = {"unknown",   "completed", "failed",
                                                      "cancelled", "walltime",  "preempted"};
  return kNames[static_cast<std::size_t>(end)];
}

std::optional<BlockState> next_state(BlockState state, BlockEvent event) {
  for (const Transition& transition : kTransitions)
    if (transition.from == state && transition.event == event) return transition.to;
  return std::nullopt;
}

bool apply(BlockRecord& block, BlockEvent event, std::string_view cause, Now now) {
  const auto next = next_state(block.state, event);
  if (!next) {
    log_warn("block {}: {} does not fit the state {} ({}): ignored", block.job_name, name_of(event),
             name_of(block.state), cause);
    return false;
  }
  const std::int64_t now_ms = now.wall.milliseconds_since_epoch();
  log_info("block {}: {}→{}, job {}, {}, after {:.1f} s", block.job_name, name_of(block.state),
           name_of(*next), block.job_id.empty() ? "not known" : block.job_id, cause,
           static_cast<double>(now_ms - block.since_ms) / 1000.0);
  const bool ran = block.ran_ms > 0;
  const bool runs = *next == BlockState::kRunning || (ran && *next == BlockState::kEnding);
  if (ran && !runs) {
    block.used_s += static_cast<double>(std::max<std::int64_t>(now_ms - block.ran_ms, 0)) / 1000.0;
    block.ran_ms = 0;
  } else if (!ran && runs) {
    block.ran_ms = now_ms;
  }
  block.state = *next;
  block.since_ms = now_ms;
  return true;
}

}  // namespace farcall::interchange
