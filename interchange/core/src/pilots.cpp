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
  FARCALL_CHECK(pilot.placements.empty(), "a pilot that holds tasks is removed");
  disconnect(pilot);
  pilots_.erase(PilotId(pilot.id));
}

void Pilots::add_placement(Pilot& pilot, Placement placement) {
  pilot.load += placement.tasks.count() * placement.submission->cores();
  pilot.placements.push_back(std::move(placement));
}

void Pilots::count_load(const Submission& submission) {
  for (auto& [id, pilot] : pilots_) {
    const bool holds =
        std::any_of(pilot.placements.begin(), pilot.placements.end(),
                    [&](const auto& each) { return each.submission == &submission; });
    if (!holds) continue;
    pilot.load = 0;
    for (const Placement& each : pilot.placements)
      pilot.load += each.tasks.count() * each.submission->cores();
  }
}

void Pilots::take_off(Pilot& pilot, Placement& placement, std::uint32_t index,
                      std::vector<std::uint64_t>& dropped) {
  placement.tasks.erase(index);
  pilot.load -= placement.submission->cores();
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

std::string Pilots::sanity_check() const {
  std::map<const Submission*, RangeSet> placed;
  for (const auto& [id, pilot] : pilots_) {
    std::uint64_t load = 0;
    for (const Placement& placement : pilot.placements) {
      if (placement.tasks.empty()) return "an empty placement is kept";
      load += placement.tasks.count() * placement.submission->cores();
      RangeSet& all = placed[placement.submission];
      if (!all.intersection(placement.tasks).empty()) return "a task is placed twice";
      all.insert(placement.tasks);
    }
    if (load != pilot.load)
      return "the load of pilot " + id.string() + " is not that of its placements";
    if (pilot.peer != 0 && by_peer_.find(pilot.peer) == by_peer_.end())
      return "a connected pilot is not filed under its connection";
  }
  for (const auto& [submission, tasks] : placed)
    if (!(tasks == submission->placed))
      return "the placements of " + submission->id.string() + " are not what its set says";
  for (const Pilot* pilot : open_)
    if (pilot->peer == 0 || !pilot->may_work) return "a pilot that must not get tasks is open";
  return "";
}

}  // namespace farcall::interchange
