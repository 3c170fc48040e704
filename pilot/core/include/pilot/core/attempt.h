// One attempt as the pilot holds it, and the one table of what can happen to it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/clock.h"
#include "model/task.h"
#include "wire/messages.h"
#include "wire/places.h"

namespace farcall::pilot {

// A function with its body. Shared by the tasks that call it; immutable.
struct Function {
  FunctionRecord record;
  Bytes body;
};

// All that a runner needs to run one attempt. Cheap to copy.
struct Assignment {
  wire::AttemptRef ref;
  std::shared_ptr<const Function> function;
  std::shared_ptr<const SubmissionHeader> header;
  Bytes arguments;
  std::map<std::string, std::string> blobs;      // files of those that it refers to, by hash
  std::shared_ptr<const wire::TaskPlace> place;  // nullptr: any of our cores

  TaskId task() const { return {ref.submission, ref.index}; }
};

enum class AttemptState : std::uint8_t { kQueued, kHanded, kRunning, kEnding, kGone };
enum class AttemptEvent : std::uint8_t { kStart, kBegan, kReturned, kKill, kFinished, kDrop };
std::string_view name_of(AttemptState state);
std::string_view name_of(AttemptEvent event);

// Why a running attempt is being killed; what its end is reported as.
enum class EndReason : std::uint8_t { kNone, kCancelled, kTimeExceeded, kAbandoned, kHandedBack };

// Queued: ours, not started. Handed: with its runner, perhaps behind another one on the same
// worker. Running: its runner has begun it. Ending: its runner was told to kill it. nullopt: cannot
// happen.
std::optional<AttemptState> next_state(AttemptState state, AttemptEvent event);

struct Attempt {
  Assignment work;
  AttemptState state = AttemptState::kQueued;
  EndReason end = EndReason::kNone;
  MonoTime began;                   // kRunning and later
  WallTime began_wall;              // the same moment
  std::optional<Assignment> again;  // abandoned, and dispatched again before it was dead
};

// Effects of the core (see core.h) for tasks over several nodes.
// As a part of a task that another pilot leads; answered by on_guest_ended().
struct StartGuest {
  wire::Spawn spawn;
};
// Kill what was started for it here.
struct EndGuest {
  wire::AttemptRef ref;
};
// The answer to spawn().
struct GuestEnded {
  wire::Spawned spawned;
};

}  // namespace farcall::pilot
