#include "interchange/core/pilots.h"

#include <algorithm>

namespace farcall::interchange {

Pilot* Pilots::find(PilotId id) {
  const auto found = pilots_.find(id);
  return found == pilots_.end() ? nullptr : &found->second;
}

Pilot* Pilots::find_peer(PeerId peer) {
  const auto found = by_peer_.find(peer);
  return found == by_peer_.end() ? nullptr : found->second;
}

Pilot& Pilots::add(PilotId id) {
  Pilot& pilot = pilots_[id];
  pilot.id = id;
  return pilot;
}

void Pilots::connect(Pilot& pilot, PeerId peer) {
  disconnect(pilot);
  pilot.peer = peer;
  by_peer_[peer] = &pilot;
}

void Pilots::disconnect(Pilot& pilot) {
  if (pilot.peer != 0) by_peer_.erase(pilot.peer);
  pilot.peer = 0;
  pilot.sent_headers.clear();
  pilot.sent_functions.clear();
  open_.erase(&pilot);
}

void Pilots::remove(Pilot& pilot) {
  FARCALL_CHECK(pilot.placements.empty() && pilot.guests.empty(),
                "a pilot that holds tasks is removed");
  disconnect(pilot);
  pilots_.erase(PilotId(pilot.id));
}

void Pilots::add_placement(Pilot& pilot, Placement placement) {
  pilot.load += placement.load();
  if (!placement.shares.empty()) give(pilot, placement);
  pilot.placements.push_back(std::move(placement));
}

void Pilots::give(Pilot& lead, const Placement& placement) {
  for (const wire::PlacedShare& share : placement.shares) {
    Pilot& pilot = share.pilot == lead.id ? lead : add(share.pilot);
    for (std::uint32_t slot : share.slots) pilot.slots_given.insert(slot);
    for (std::uint32_t gpu : share.gpus) pilot.gpus_given.insert(gpu);
    pilot.memory_given_mib += share.memory_mib;
    if (&pilot == &lead) continue;
    const auto slots = static_cast<std::uint32_t>(share.slots.size());
    pilot.load += slots;
    pilot.guests[placement.ref()] = {slots, placement.ends};
    guests_changed_.insert(pilot.id);
  }
}

void Pilots::take_back(const Placement& placement) {
  for (std::size_t i = 0; i < placement.shares.size(); ++i) {
    const wire::PlacedShare& share = placement.shares[i];
    Pilot& pilot = pilots_.at(share.pilot);
    for (std::uint32_t slot : share.slots) pilot.slots_given.erase(slot);
    for (std::uint32_t gpu : share.gpus) pilot.gpus_given.erase(gpu);
    pilot.memory_given_mib -= share.memory_mib;
    pilot.load -= share.slots.size();
    if (i == 0) continue;
    pilot.guests.erase(placement.ref());
    guests_changed_.insert(pilot.id);
  }
}

std::vector<wire::Guest> Pilots::guests_of(const Pilot& pilot) {
  std::vector<wire::Guest> result;
  for (const auto& [ref, guest] : pilot.guests) result.push_back({ref, guest.slots});
  return result;
}

void Pilots::count_load(const Submission& submission) {
  for (auto& [id, pilot] : pilots_) {
    const bool holds =
        std::any_of(pilot.placements.begin(), pilot.placements.end(),
                    [&](const auto& each) { return each.submission == &submission; });
    if (!holds) continue;
    pilot.load = 0;
    for (const Placement& each : pilot.placements) pilot.load += each.load();
    for (const auto& [ref, guest] : pilot.guests) pilot.load += guest.slots;
  }
}

void Pilots::take_off(Pilot& pilot, Placement& placement, std::uint32_t index,
                      std::vector<std::uint64_t>& dropped) {
  if (placement.shares.empty())
    pilot.load -= placement.submission->cores();
  else
    take_back(placement);
  placement.tasks.erase(index);
  if (!placement.tasks.empty()) return;
  dropped.push_back(placement.id);
  if (&placement != &pilot.placements.back()) placement = std::move(pilot.placements.back());
  pilot.placements.pop_back();
}

Pilot* Pilots::holder_of(const Submission& submission, std::uint32_t index, Placement*& placement) {
  for (auto& [id, pilot] : pilots_) {
    placement = pilot.holder_of(submission, index);
    if (placement != nullptr) return &pilot;
  }
  return nullptr;
}

void Pilots::update_open(Pilot& pilot, std::int64_t prefetch) {
  if (pilot.peer != 0 && pilot.may_work && pilot.load < capacity(pilot, prefetch))
    open_.insert(&pilot);
  else
    open_.erase(&pilot);
}

// No slot and no GPU is given twice, nothing is kept that nobody has.
std::string Pilots::check_shares() const {
  std::map<PilotId, RangeSet> slots, gpus;
  std::map<PilotId, std::size_t> guests;
  for (const auto& [id, pilot] : pilots_)
    for (const Placement& placement : pilot.placements) {
      if (placement.shares.empty()) continue;
      if (placement.tasks.count() != 1 || !(placement.shares.front().pilot == id))
        return "the shares of a task are not led by its pilot";
      for (const wire::PlacedShare& share : placement.shares) {
        const auto at = pilots_.find(share.pilot);
        if (at == pilots_.end()) return "a task has a share of a pilot that is not known";
        if (!(at->second.block == pilot.block)) return "a task has shares in two blocks";
        if (share.pilot != id) {
          ++guests[share.pilot];
          if (!at->second.guests.contains(placement.ref())) return "a share has no guest";
        }
        for (std::uint32_t slot : share.slots) {
          if (slots[share.pilot].contains(slot)) return "a slot is given twice";
          slots[share.pilot].insert(slot);
        }
        for (std::uint32_t gpu : share.gpus) {
          if (gpus[share.pilot].contains(gpu)) return "a GPU is given twice";
          gpus[share.pilot].insert(gpu);
        }
      }
    }
  const auto same = [](const auto& counted, PilotId id, const RangeSet& kept) {
    const auto found = counted.find(id);
    return found == counted.end() ? kept.empty() : found->second == kept;
  };
  for (const auto& [id, pilot] : pilots_) {
    const auto guest = guests.find(id);
    if (!same(slots, id, pilot.slots_given) || !same(gpus, id, pilot.gpus_given) ||
        (guest == guests.end() ? 0 : guest->second) != pilot.guests.size())
      return "pilot " + id.string() + " keeps slots, GPUs or guests that no task has";
  }
  return "";
}

std::string Pilots::sanity_check() const {
  if (std::string wrong = check_shares(); !wrong.empty()) return wrong;
  // Bit by bit: the simulator asks after each event, and ranges in no order are slow to unite.
  std::map<const Submission*, std::vector<bool>> unseen;
  for (const auto& [id, pilot] : pilots_) {
    std::uint64_t load = 0;
    for (const auto& [ref, guest] : pilot.guests) load += guest.slots;
    for (const Placement& placement : pilot.placements) {
      if (placement.tasks.empty()) return "an empty placement is kept";
      load += placement.load();
      const RangeSet& all = placement.submission->placed;
      std::vector<bool>& left = unseen[placement.submission];
      if (left.empty() && !all.empty()) {
        left.resize(all.back_end());
        all.for_each([&](std::uint32_t task) { left[task] = true; });
      }
      bool wrong = false;
      placement.tasks.for_each([&](std::uint32_t task) {
        if (task >= left.size() || !left[task]) return void(wrong = true);
        left[task] = false;
      });
      if (wrong)
        return "a task of " + placement.submission->id.string() +
               " is placed twice, or not in the set of placed ones";
    }
    if (load != pilot.load)
      return "the load of pilot " + id.string() + " is not that of its placements";
    if (pilot.peer != 0 && by_peer_.find(pilot.peer) == by_peer_.end())
      return "a connected pilot is not filed under its connection";
  }
  for (const auto& [submission, left] : unseen)
    if (std::find(left.begin(), left.end(), true) != left.end())
      return "the set of placed tasks of " + submission->id.string() + " has one that no pilot has";
  for (const Pilot* pilot : open_)
    if (pilot->peer == 0 || !pilot->may_work) return "a pilot that must not get tasks is open";
  return "";
}

}  // namespace farcall::interchange
