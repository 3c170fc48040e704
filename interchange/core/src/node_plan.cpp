#include "interchange/core/node_plan.h"

#include <algorithm>

namespace farcall::interchange {

Room NodePlan::at(MonoTime time) const {
  Room room = whole_;
  for (const Hold& hold : holds_) {
    if (hold.from > time || hold.until <= time) continue;
    room.slots -= static_cast<std::uint32_t>(std::min<std::uint64_t>(room.slots, hold.slots));
    room.gpus -= std::min(room.gpus, hold.gpus);
    room.memory_mib -= std::min(room.memory_mib, hold.memory_mib);
  }
  return room;
}

Room NodePlan::least(MonoTime from, MonoTime until) const {
  Room room = at(from);
  for (const Hold& hold : holds_) {
    if (hold.from <= from || hold.from >= until) continue;
    const Room then = at(hold.from);
    room.slots = std::min(room.slots, then.slots);
    room.gpus = std::min(room.gpus, then.gpus);
    room.memory_mib = std::min(room.memory_mib, then.memory_mib);
  }
  if (until != MonoTime::max() && until > ends_) room.slots = 0;
  return room;
}

void NodePlan::add_times(std::set<MonoTime>& times) const {
  for (const Hold& hold : holds_)
    if (hold.until != MonoTime::max()) times.insert(hold.until);
}

}  // namespace farcall::interchange
