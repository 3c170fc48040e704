// Tasks that are never tried again (retry: never): when their pilot is lost they stay placed there
// for a while, because it may only be cut off and still bring their results.
#include "base/log.h"
#include "interchange/core/core.h"

namespace farcall::interchange {
namespace {

constexpr auto kLateResult = std::chrono::minutes(10);

}  // namespace

// `lost`: its own pilot, or one of the other nodes that the task needs. False: it is to be charged.
bool Core::waits_for_late_result(Placement& placement, const Pilot& lost, const std::string& why) {
  if (placement.lost) return true;
  const Submission& submission = *placement.submission;
  if (!submission.never_again()) return false;
  placement.lost = Lost{lost.id, why, alive_ + kLateResult, false};
  next_late_ = std::min(next_late_, placement.lost->until);
  log_info("{} tasks of {} are never tried again: their results may come for {} s",
           placement.tasks.count(), submission.id.string(),
           std::chrono::seconds(kLateResult).count());
  return true;
}

// Tasks that other pilots lead and that need this one go on. What it leads itself: reconcile().
void Core::found_again(const Pilot& pilot) {
  for (const auto& [ref, guest] : pilot.guests) {
    Placement* placement = nullptr;
    Submission* submission = queue_.find(ref.submission);
    FARCALL_CHECK(submission != nullptr, "a guest is of no submission");
    const Pilot* lead = pilots_.holder_of(*submission, ref.index, placement);
    FARCALL_CHECK(lead != nullptr, "a guest's task is at no pilot");
    if (placement->lost && placement->lost->pilot == pilot.id) placement->lost.reset();
  }
}

void Core::end_late_waits(Now now) {
  if (alive_ < next_late_) return;
  next_late_ = Duration::max();
  std::vector<std::pair<PilotId, wire::AttemptRef>> over;
  for (auto& [id, pilot] : pilots_.all())
    for (Placement& placement : pilot.placements) {
      if (!placement.lost) continue;
      const bool ends = alive_ >= placement.lost->until;
      if (!ends || !std::exchange(placement.lost->searched, true)) {
        if (ends) effects_.push_back(effect::CollectLeft{pilot.block});
        // What was found is here at the next tick.
        next_late_ = std::min(next_late_, ends ? alive_ : placement.lost->until);
        continue;
      }
      placement.tasks.for_each([&, pilot_id = id](std::uint32_t index) {
        over.push_back({pilot_id, {placement.submission->id, index, placement.attempt}});
      });
    }
  for (const auto& [id, ref] : over) {
    if (unjudged_.contains({ref.submission, ref.index})) {
      next_late_ = alive_;  // its outcome is here and waits for somebody who can judge it
      continue;
    }
    Pilot& pilot = *pilots_.find(id);
    Submission& submission = *queue_.find(ref.submission);
    Placement& placement = *pilot.holder_of(submission, ref.index);
    const std::string why =
        fmt::format("{}; no result came for {} s, and it is never to be tried again",
                    placement.lost->why, std::chrono::seconds(kLateResult).count());
    const Pilot* lost = pilots_.find(placement.lost->pilot);
    pilots_.take_off(pilot, placement, ref.index, dropped_now_);
    pilots_.update_open(pilot, settings_.prefetch);
    cancel_now_[id].push_back(ref);
    charge(submission, ref.index, FailureClass::kLost, why, lost == nullptr ? &pilot : lost, now);
  }
}

}  // namespace farcall::interchange
