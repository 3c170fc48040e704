// How many blocks there should be: a pure decision from what is there and what is wanted.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "interchange/core/settings.h"

namespace farcall::interchange {

// A block that is wanted: made and not on its way out.
struct ScalingBlock {
  BlockId id;
  bool runs = false;       // false: being submitted, or waiting in the scheduler's queue
  bool ends_soon = false;  // of its time so little is left that it does not count as room
  std::uint64_t load = 0;  // cores of the tasks that are placed on it
  Duration idle{0};        // for so long nothing was placed on it, while a pilot was there
};

struct ScalingView {
  std::uint64_t cores = 0;           // of all tasks that are pending or placed
  std::uint64_t tasks = 0;           // those
  std::uint32_t slots_per_node = 0;  // 0: not known yet
  bool first = false;                // nothing was ever made
  std::vector<ScalingBlock> blocks;  // oldest first
  Duration excess_for{0};            // there have been more than needed for so long
  Duration no_task_for{0};
};

struct ScalingPlan {
  int make = 0;
  std::vector<BlockId> give_back;  // what runs on them may end; nothing more is placed there
};

// How many blocks the work needs, within min_blocks and max_blocks; what is there does not matter.
int needed_blocks(const ScalingSettings& settings, const ScalingView& view);
ScalingPlan plan_blocks(const ScalingSettings& settings, const ScalingView& view);

}  // namespace farcall::interchange
