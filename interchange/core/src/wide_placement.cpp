// Tasks that get certain slots: those with ranks, several nodes, GPUs, memory or whole nodes.
//
// They are placed when all that they need is free at once, and never wait at a pilot. The first one
// in the queue that fits nowhere gets nodes reserved: nothing that comes after it is placed there,
// unless it is sure to have ended when the reserved nodes are free (EASY backfill).
#include <algorithm>

#include "interchange/core/core.h"

namespace farcall::interchange {
namespace {

bool usable(const Pilot& pilot) { return pilot.peer != 0 && pilot.may_work; }

Room whole(const Pilot& pilot) {
  return {pilot.slots, pilot.slots, static_cast<std::uint32_t>(pilot.gpus.size()),
          pilot.memory_mib};
}

// When all that is there now has ended, as far as walltimes tell.
MonoTime busy_until(const Pilot& pilot, Now now) {
  if (pilot.load > pilot.slots) return MonoTime::max();  // what waits there starts later
  MonoTime until = now.mono;
  for (const Placement& placement : pilot.placements) until = std::max(until, placement.ends);
  for (const auto& [ref, guest] : pilot.guests) until = std::max(until, guest.ends);
  return until;
}

// The processors of these slots: none when slots and processors do not divide evenly, as where
// more workers than cores are wanted.
std::vector<std::uint32_t> processors_of(const Pilot& pilot,
                                         const std::vector<std::uint32_t>& slots) {
  std::vector<std::uint32_t> result;
  const std::size_t each = pilot.slots == 0 ? 0 : pilot.processors.size() / pilot.slots;
  for (std::uint32_t slot : slots)
    for (std::size_t i = slot * each; i < (slot + 1) * each; ++i)
      if (i < pilot.processors.size()) result.push_back(pilot.processors[i]);
  return result;
}

}  // namespace

BlockNodes Core::block_nodes() {
  BlockNodes nodes;
  for (auto& [id, pilot] : pilots_.all())
    if (usable(pilot)) nodes[pilot.block].push_back(&pilot);
  for (auto& [block, pilots] : nodes)
    std::stable_sort(pilots.begin(), pilots.end(),
                     [](const Pilot* a, const Pilot* b) { return a->node_rank < b->node_rank; });
  return nodes;
}

bool Core::may_use(const Pilot& pilot, const Submission& submission, bool waits_first,
                   Now now) const {
  if (!reservation_ || reservation_->submission == submission.id ||
      !reservation_->pilots.contains(pilot.id))
    return true;
  if (waits_first) return false;  // nobody knows when it would begin
  const std::uint64_t walltime_ms = submission.header->walltime_ms;
  return walltime_ms > 0 && reservation_->start != MonoTime::max() &&
         now.mono + milliseconds(walltime_ms) <= reservation_->start;
}

Room Core::room_on(const Pilot& pilot, const Submission& submission, Now now) const {
  Room room = whole(pilot);
  if (!in_time(pilot, submission, false, now) || !may_use(pilot, submission, false, now))
    room.slots = 0;
  room.slots = pilot.load < room.slots ? room.slots - static_cast<std::uint32_t>(pilot.load) : 0;
  room.gpus -= static_cast<std::uint32_t>(pilot.gpus_given.count());
  room.memory_mib -= std::min(room.memory_mib, pilot.memory_given_mib);
  return room;
}

void Core::place_wide(Submission& submission, BlockNodes& nodes,
                      const std::optional<Reservation>& before, Now now) {
  const Wish wish = Wish::of(submission.header->resources);
  while (!submission.pending.empty() && place_one_wide(submission, wish, nodes, now)) {
  }
  if (submission.pending.empty() || reservation_) return;
  // The same nodes as before as long as they would do: else two half empty ones could alternate.
  if (before && before->submission == submission.id) {
    std::vector<Room> rooms;
    for (PilotId id : before->pilots)
      if (const Pilot* pilot = pilots_.find(id);
          pilot != nullptr && usable(*pilot) && in_time(*pilot, submission, false, now))
        rooms.push_back(whole(*pilot));
    if (rooms.size() == before->pilots.size() && fit(wish, rooms)) {
      reservation_ = before;
      MonoTime& start = reservation_->start = now.mono;
      for (PilotId id : before->pilots) start = std::max(start, busy_until(*pilots_.find(id), now));
      return;
    }
  }
  reserve(submission, wish, nodes, now);
}

bool Core::place_one_wide(Submission& submission, const Wish& wish, BlockNodes& nodes, Now now) {
  const std::vector<Pilot*>* best_nodes = nullptr;
  std::vector<Part> best;
  for (const auto& [block, pilots] : nodes) {
    std::vector<Room> rooms;
    for (const Pilot* pilot : pilots) rooms.push_back(room_on(*pilot, submission, now));
    auto parts = fit(wish, rooms);
    if (!parts || (best_nodes != nullptr && parts->size() >= best.size())) continue;
    best = std::move(*parts);
    best_nodes = &pilots;
    if (best.size() == std::max(1U, wish.nodes)) break;
  }
  if (best_nodes == nullptr) return false;
  dispatch_wide(submission, wish, *best_nodes, best, now);
  return true;
}

void Core::dispatch_wide(Submission& submission, const Wish& wish, const std::vector<Pilot*>& nodes,
                         const std::vector<Part>& parts, Now now) {
  const RangeSet task = queue_.take_pending(submission, 1);
  Placement placement{.id = next_placement_++,
                      .submission = &submission,
                      .attempt = submission.attempt_of(task.front()),
                      .tasks = task,
                      .since = now.mono,
                      .shares = {}};
  if (const std::uint64_t walltime_ms = submission.header->walltime_ms; walltime_ms > 0)
    placement.ends = now.mono + milliseconds(walltime_ms);
  for (const Part& part : parts) {
    const Pilot& pilot = *nodes[part.node];
    const RangeSet slots = RangeSet{{0, pilot.slots}}.difference(pilot.slots_given);
    RangeSet gpus =
        RangeSet{{0, static_cast<std::uint32_t>(pilot.gpus.size())}}.difference(pilot.gpus_given);
    wire::PlacedShare share{pilot.id, 0, wish.memory_mib, {}, {}};
    if (submission.header->resources.ranks > 0) share.ranks = part.units;
    // Whole nodes count as a whole, but the ranks are bound to what they asked for.
    share.slots =
        pick_slots(slots, wish.exclusive ? pilot.slots : part.units * wish.slots, pilot.domains);
    gpus.take_front(part.units * wish.gpus).for_each([&](std::uint32_t gpu) {
      share.gpus.push_back(gpu);
    });
    placement.shares.push_back(std::move(share));
  }
  Pilot& lead = *nodes[parts.front().node];
  placed_now_.push_back({placement.id, lead.id, lead.block, submission.id, placement.attempt, task,
                         submission.cores(), placement.shares});
  pilots_.add_placement(lead, std::move(placement));
  ++counters_.dispatched;
  dispatch_now_[lead.id].emplace_back(&submission, task);
  for (const Part& part : parts) pilots_.update_open(*nodes[part.node], settings_.prefetch);
}

wire::TaskPlace Core::place_of(const Placement& placement) {
  wire::TaskPlace place{placement.ref(), {}};
  for (const wire::PlacedShare& share : placement.shares) {
    const Pilot& pilot = *pilots_.find(share.pilot);
    wire::NodeShare out;
    out.node = pilot.node;
    out.node_rank = pilot.node_rank;
    out.ranks = share.ranks;
    out.slots = static_cast<std::uint32_t>(share.slots.size());
    out.processors = processors_of(pilot, share.slots);
    for (std::uint32_t gpu : share.gpus)
      if (gpu < pilot.gpus.size()) out.gpus.push_back(pilot.gpus[gpu]);
    place.shares.push_back(std::move(out));
  }
  return place;
}

// The least busy nodes of one block on which it would fit if they were empty.
void Core::reserve(const Submission& submission, const Wish& wish, const BlockNodes& nodes,
                   Now now) {
  std::optional<std::uint64_t> best_load;
  for (const auto& [block, pilots] : nodes) {
    std::vector<const Pilot*> order(pilots.begin(), pilots.end());
    std::erase_if(order,
                  [&](const Pilot* pilot) { return !in_time(*pilot, submission, false, now); });
    std::stable_sort(order.begin(), order.end(),
                     [](const Pilot* a, const Pilot* b) { return a->load < b->load; });
    std::vector<Room> rooms;
    std::optional<std::vector<Part>> parts;
    for (std::size_t count = 1; !parts && rooms.size() < order.size(); count *= 2) {
      while (rooms.size() < std::min(count, order.size()))
        rooms.push_back(whole(*order[rooms.size()]));
      parts = fit(wish, rooms);
    }
    if (!parts) continue;
    Reservation made{submission.id, {}, now.mono};
    std::uint64_t load = 0;
    for (const Part& part : *parts) {
      const Pilot& pilot = *order[part.node];
      load += pilot.load;
      made.pilots.insert(pilot.id);
      made.start = std::max(made.start, busy_until(pilot, now));
    }
    if (best_load && load >= *best_load) continue;
    best_load = load;
    reservation_ = std::move(made);
  }
}

Offer Core::offer() const {
  const std::uint32_t slots = std::max(settings_.slots_per_node, slots_seen_);
  return {static_cast<std::uint32_t>(settings_.scaling.nodes_per_block),
          {slots, slots, gpus_seen_.value_or(0), memory_seen_mib_},
          slots_seen_ > 0,
          gpus_seen_,
          static_cast<std::int64_t>(settings_.scaling.walltime_s),
          usable_time_s(settings_.scaling)};
}

}  // namespace farcall::interchange
