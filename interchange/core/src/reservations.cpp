// Conservative backfill: every task that waits for certain slots has a time and slots of its own
// kept, in the order of the queue, as early as what runs and what is kept for those ahead of it
// allow. What comes after it starts only where it is over by then, so that nothing that came later
// delays it.
#include <algorithm>

#include "interchange/core/core.h"

namespace farcall::interchange {
namespace {

// Times at which a reservation may begin that are tried; of more every n-th, which is later than
// need be and never wrong.
constexpr std::size_t kTimesMax = 64;
// What should be over by its walltime and is not: its end is being told.
constexpr Duration kOverdue = std::chrono::seconds(1);

bool usable(const Pilot& pilot) { return pilot.peer != 0 && pilot.may_work; }

Room whole(const Pilot& pilot) {
  return {pilot.slots, pilot.slots, static_cast<std::uint32_t>(pilot.gpus.size()),
          pilot.memory_mib};
}

MonoTime not_before(MonoTime ends, Now now) {
  return ends == MonoTime::max() ? ends : std::max(ends, now.mono + kOverdue);
}

std::vector<MonoTime> times_of(const std::vector<Pilot*>& pilots,
                               const std::map<PilotId, NodePlan>& plan, Now now) {
  std::set<MonoTime> all;
  for (const Pilot* pilot : pilots) plan.at(pilot->id).add_times(all);
  all.erase(all.begin(), all.upper_bound(now.mono));
  std::vector<MonoTime> times;
  const std::size_t step = all.size() / kTimesMax + 1;
  std::size_t at = 0;
  for (MonoTime time : all)
    if (++at % step == 0 || at == all.size()) times.push_back(time);
  return times;
}

BlockNodes nodes_of(std::map<PilotId, Pilot>& all) {
  BlockNodes nodes;
  for (auto& [id, pilot] : all)
    if (usable(pilot)) nodes[pilot.block].push_back(&pilot);
  for (auto& [block, pilots] : nodes)
    std::stable_sort(pilots.begin(), pilots.end(),
                     [](const Pilot* a, const Pilot* b) { return a->node_rank < b->node_rank; });
  return nodes;
}

}  // namespace

void Core::make_plan(Now now) {
  plan_.emplace(Plan{nodes_of(pilots_.all()), {}});
  for (const auto& [block, pilots] : plan_->nodes)
    for (const Pilot* pilot : pilots)
      plan_->free.emplace(pilot->id, NodePlan{whole(*pilot), pilot->ends});
  for (auto& [id, pilot] : pilots_.all()) {
    for (const Placement& placement : pilot.placements) plan_for(placement, id, now);
    const auto at = plan_->free.find(id);
    // What waits there begins later than its walltime knows.
    if (at != plan_->free.end() && pilot.load > pilot.slots)
      at->second.hold({now.mono, MonoTime::max(), pilot.slots, 0, 0});
  }
}

// What a placement led by `pilot` has, on all of its nodes.
void Core::plan_for(const Placement& placement, PilotId pilot, Now now) {
  const MonoTime until = not_before(placement.ends, now);
  const auto hold = [&](PilotId id, const Hold& what) {
    if (const auto at = plan_->free.find(id); at != plan_->free.end()) at->second.hold(what);
  };
  if (placement.shares.empty()) return hold(pilot, {now.mono, until, placement.load(), 0, 0});
  for (const wire::PlacedShare& share : placement.shares)
    hold(share.pilot, {now.mono, until, share.slots.size(),
                       static_cast<std::uint32_t>(share.gpus.size()), share.memory_mib});
}

// Cores that tasks may have there beside what is kept for those ahead of them; `waits`: at the
// pilot, so that nobody knows when they would begin.
std::uint64_t Core::kept_free(const Pilot& pilot, const Submission& s, bool waits, Now now) const {
  const auto is_of = [&](const Reservation& each) { return each.slots.contains(pilot.id); };
  if (std::none_of(reservations_.begin(), reservations_.end(), is_of)) return UINT64_MAX;
  if (waits || !plan_) return 0;
  const auto at = plan_->free.find(pilot.id);
  return at == plan_->free.end() ? 0 : at->second.least(now.mono, latest_end(s, now)).slots;
}

// False: no block that is there could ever have it.
bool Core::reserve(const Submission& submission, const Wish& wish, const Reservation* before,
                   Now now) {
  Reservation made{submission.id, MonoTime::max(), {}};
  if (before != nullptr) made.slots = before->slots;
  const Duration takes = latest_end(submission, now) - now.mono;
  const bool endless = submission.header->walltime_ms == 0;
  const std::vector<Pilot*>* where = nullptr;
  std::vector<Part> best;
  for (const auto& [block, pilots] : plan_->nodes)
    for (MonoTime time : times_of(pilots, plan_->free, now)) {
      if (time >= made.start) break;
      std::vector<Room> rooms;
      for (const Pilot* pilot : pilots) {
        rooms.push_back(
            plan_->free.at(pilot->id).least(time, endless ? MonoTime::max() : time + takes));
        if (!in_time(*pilot, submission, false, Now{time, now.wall})) rooms.back().slots = 0;
      }
      auto parts = fit(wish, rooms);
      if (!parts) continue;
      made.start = time;
      best = std::move(*parts);
      where = &pilots;
      break;
    }
  if (where == nullptr) return reserve_some_day(made, submission, wish, now);
  const MonoTime until = endless ? MonoTime::max() : made.start + takes;
  made.slots.clear();
  for (const Part& part : best) {
    const Pilot& pilot = *(*where)[part.node];
    const std::uint64_t slots = wish.exclusive ? pilot.slots : part.units * wish.slots;
    made.slots[pilot.id] = slots;
    plan_->free.at(pilot.id).hold(
        {made.start, until, slots, part.units * wish.gpus, wish.memory_mib});
  }
  reservations_.push_back(std::move(made));
  return true;
}

// Nobody knows when: what it needs is kept from now on, on the nodes it had before or else the
// least busy ones of one block.
bool Core::reserve_some_day(Reservation& made, const Submission& submission, const Wish& wish,
                            Now now) {
  std::vector<Part> best;
  std::vector<Pilot*> where;
  std::optional<std::uint64_t> best_load;
  for (const auto& [block, pilots] : plan_->nodes) {
    std::vector<Pilot*> order = pilots;
    std::erase_if(order,
                  [&](const Pilot* pilot) { return !in_time(*pilot, submission, false, now); });
    const auto rank = [&](const Pilot* pilot) {
      return std::pair(!made.slots.contains(pilot->id), pilot->load);
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](const Pilot* a, const Pilot* b) { return rank(a) < rank(b); });
    std::vector<Room> rooms;
    std::optional<std::vector<Part>> parts;
    for (std::size_t count = 1; !parts && rooms.size() < order.size(); count *= 2) {
      while (rooms.size() < std::min(count, order.size()))
        rooms.push_back(whole(*order[rooms.size()]));
      parts = fit(wish, rooms);
    }
    if (!parts) continue;
    std::uint64_t load = 0;
    for (const Part& part : *parts)
      load += rank(order[part.node]).first ? order[part.node]->load : 0;
    if (best_load && load >= *best_load) continue;
    best_load = load;
    best = std::move(*parts);
    where = std::move(order);
  }
  if (!best_load) return false;
  made.slots.clear();
  for (const Part& part : best) {
    const Pilot& pilot = *where[part.node];
    const std::uint64_t slots = wish.exclusive ? pilot.slots : part.units * wish.slots;
    made.slots[pilot.id] = slots;
    plan_->free.at(pilot.id).hold(
        {now.mono, MonoTime::max(), slots, part.units * wish.gpus, wish.memory_mib});
  }
  reservations_.push_back(std::move(made));
  return true;
}

}  // namespace farcall::interchange
