#include "interchange/core/scaling.h"

#include <algorithm>
#include <cmath>

namespace farcall::interchange {
namespace {

int size(const ScalingView& view) { return static_cast<int>(view.blocks.size()); }

// Those that a queue has to be waited for first are given up last made first; then the emptiest.
bool goes_before(const ScalingBlock& left, const ScalingBlock& right) {
  if (left.runs != right.runs) return !left.runs;
  if (left.runs && left.load != right.load) return left.load < right.load;
  return left.id > right.id;
}

void give_back_surplus(const ScalingSettings& settings, const ScalingView& view, int needed,
                       ScalingPlan& plan) {
  std::vector<ScalingBlock> candidates = view.blocks;
  std::sort(candidates.begin(), candidates.end(), goes_before);
  int surplus = size(view) - needed;
  for (const ScalingBlock& block : candidates) {
    if (surplus <= 0) return;
    // One that runs and is empty has a time of grace of its own; it is still the one to go.
    const bool empty = block.runs && block.load == 0;
    const Duration unneeded_for = empty ? block.idle : view.excess_for;
    if (unneeded_for >= settings.max_idletime) plan.give_back.push_back(block.id);
    --surplus;
  }
}

void give_back_idle(const ScalingSettings& settings, const ScalingView& view, ScalingPlan& plan) {
  const bool none = view.tasks == 0 && view.no_task_for >= settings.max_idletime;
  int spare = size(view) - settings.min_blocks;
  // The oldest stay: they have the least queueing to do again.
  for (auto block = view.blocks.rbegin(); block != view.blocks.rend() && spare > 0; ++block) {
    const bool idle = settings.strategy == Strategy::kHtexAutoScale && block->runs &&
                      block->load == 0 && block->idle >= settings.max_idletime;
    if (!none && !idle) continue;
    plan.give_back.push_back(block->id);
    --spare;
  }
}

}  // namespace

int needed_blocks(const ScalingSettings& settings, const ScalingView& view) {
  if (settings.strategy == Strategy::kNone) return view.first ? settings.init_blocks : 0;
  const std::uint64_t amount = settings.strategy == Strategy::kAuto ? view.cores : view.tasks;
  int count = 0;
  if (amount > 0) {
    // The size of a node is not known before the first one has called: one block finds out.
    const double per_block =
        static_cast<double>(view.slots_per_node) * static_cast<double>(settings.nodes_per_block);
    const double need =
        per_block > 0 ? std::ceil(static_cast<double>(amount) * settings.parallelism / per_block)
                      : 1.0;
    count = static_cast<int>(std::clamp(need, 1.0, 1e6));
  }
  if (view.first) count = std::max(count, settings.init_blocks);
  return std::min(std::max(count, settings.min_blocks), settings.max_blocks);
}

ScalingPlan plan_blocks(const ScalingSettings& settings, const ScalingView& view) {
  ScalingPlan plan;
  const int needed = needed_blocks(settings, view);
  int room = size(view);
  if (settings.strategy == Strategy::kAuto)
    room -= static_cast<int>(std::count_if(view.blocks.begin(), view.blocks.end(),
                                           [](const ScalingBlock& b) { return b.ends_soon; }));
  plan.make = std::max(0, std::min(needed - room, settings.max_blocks - size(view)));
  if (plan.make > 0 || settings.strategy == Strategy::kNone) return plan;
  if (settings.strategy == Strategy::kAuto)
    give_back_surplus(settings, view, needed, plan);
  else
    give_back_idle(settings, view, plan);
  return plan;
}

}  // namespace farcall::interchange
