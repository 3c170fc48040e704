#include "pilot/core/attempt.h"

namespace farcall::pilot {

std::string_view name_of(AttemptState state) {
  switch (state) {
    case AttemptState::kQueued:
      return "queued";
    case AttemptState::kHanded:
      return "handed";
    case AttemptState::kRunning:
      return "running";
    case AttemptState::kEnding:
      return "ending";
    case AttemptState::kGone:
      return "gone";
  }
  return "unknown";
}

std::string_view name_of(AttemptEvent event) {
  switch (event) {
    case AttemptEvent::kStart:
      return "start";
    case AttemptEvent::kBegan:
      return "began";
    case AttemptEvent::kReturned:
      return "returned";
    case AttemptEvent::kKill:
      return "kill";
    case AttemptEvent::kFinished:
      return "finished";
    case AttemptEvent::kDrop:
      return "drop";
  }
  return "unknown";
}

std::optional<AttemptState> next_state(AttemptState state, AttemptEvent event) {
  using S = AttemptState;
  using E = AttemptEvent;
  struct Row {
    S from;
    E event;
    S to;
  };
  static constexpr Row kTable[] = {
      {S::kQueued, E::kStart, S::kHanded},  {S::kQueued, E::kDrop, S::kGone},
      {S::kHanded, E::kBegan, S::kRunning}, {S::kHanded, E::kReturned, S::kQueued},
      {S::kHanded, E::kKill, S::kEnding},   {S::kHanded, E::kFinished, S::kGone},
      {S::kRunning, E::kKill, S::kEnding},  {S::kRunning, E::kFinished, S::kGone},
      {S::kEnding, E::kBegan, S::kEnding},  {S::kEnding, E::kReturned, S::kGone},
      {S::kEnding, E::kFinished, S::kGone},
  };
  for (const Row& row : kTable)
    if (row.from == state && row.event == event) return row.to;
  return std::nullopt;
}

}  // namespace farcall::pilot
