// Tasks that get certain slots: those with ranks, several nodes, GPUs, memory or whole nodes.
//
// They are placed when all that they need is free at once, and never wait at a pilot. Each that
// fits nowhere yet has a reservation (reservations.cpp), which nothing that comes after it may
// touch.
#include <algorithm>

#include "interchange/core/core.h"

namespace farcall::interchange {
namespace {

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

void Core::place_wide(Submission& submission, const std::vector<Reservation>& before, Now now) {
  const Wish wish = Wish::of(submission.header->resources);
  while (!submission.pending.empty() && place_one_wide(submission, wish, now)) {
  }
  // The same nodes as before as long as they would do: else two half empty ones could alternate.
  auto old = std::find_if(before.begin(), before.end(),
                          [&](const auto& each) { return each.submission == submission.id; });
  for (std::uint64_t left = submission.pending.count();
       left > 0 && reservations_.size() < kReservationsMax; --left) {
    const bool has_old = old != before.end() && old->submission == submission.id;
    if (!reserve(submission, wish, has_old ? &*old++ : nullptr, now)) return;
  }
}

bool Core::place_one_wide(Submission& submission, const Wish& wish, Now now) {
  const std::vector<Pilot*>* best_nodes = nullptr;
  std::vector<Part> best;
  const MonoTime ends = latest_end(submission, now);
  for (const auto& [block, pilots] : plan_->nodes) {
    std::vector<Room> rooms;
    for (const Pilot* pilot : pilots) {
      rooms.push_back(plan_->free.at(pilot->id).least(now.mono, ends));
      if (!in_time(*pilot, submission, false, now)) rooms.back().slots = 0;
    }
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
                      .ends = latest_end(submission, now),
                      .shares = {}};
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
                         submission.cores(), placement.shares, submission.never_again()});
  plan_for(placement, lead.id, now);
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
