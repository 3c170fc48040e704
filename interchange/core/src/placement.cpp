// Which pending task goes to which pilot.
#include <algorithm>

#include "interchange/core/core.h"

namespace farcall::interchange {
namespace {

// What waits at a pilot is work for about so long: enough to hide the way to the relay and back,
// and not more than the end of a submission may be uneven by.
constexpr double kPrefetch_ms = 50;
// Times come in whole milliseconds, so that a mean says little below this.
constexpr double kShortestMean_ms = 1.0 / 8;
constexpr std::uint32_t kPaceRuns = 32;  // before a mean is trusted
constexpr double kMeanOver = 64;
constexpr std::size_t kPacesMax = 10'000;

bool fits(const Pilot& pilot, const Submission& submission) {
  return submission.cores() <= pilot.slots;
}

}  // namespace

MonoTime latest_end(const Submission& submission, Now now) {
  const std::uint64_t walltime_ms = submission.header ? submission.header->walltime_ms : 0;
  return walltime_ms == 0 ? MonoTime::max() : now.mono + milliseconds(walltime_ms);
}

void Core::place(Now now) {
  for (PilotId id : pilots_.guests_changed())
    if (Pilot* pilot = pilots_.find(id)) pilots_.update_open(*pilot, settings_.prefetch);
  if (stopping_ || blocks_.draining() || queue_.ready().empty() || pilots_.open().empty()) return;
  // The relay is away and the disk fills: what runs may end, nothing more starts.
  if (spool_bytes_ > settings_.spool_bytes_max) return;
  // Slots first everywhere, then what waits at the pilots: a free node is not left idle for the
  // sake of a neighbour's queue.
  place_up_to(false, now);
  place_up_to(true, now);
}

std::uint64_t Core::prefetch_of(const Pilot& pilot, const Submission& submission) const {
  if (settings_.prefetch >= 0) return static_cast<std::uint64_t>(settings_.prefetch);
  const auto found = paces_.find(submission.header->function);
  if (found == paces_.end() || found->second.runs < kPaceRuns)
    return 0;  // it may run for hours: what waits behind it could run on a node to come
  const double tasks = kPrefetch_ms / std::max(found->second.mean_ms, kShortestMean_ms);
  return pilot.slots *
         std::clamp<std::uint64_t>(static_cast<std::uint64_t>(tasks), 1, kPrefetchMax);
}

void Core::pace(const Submission& submission, const TaskOutcome& outcome) {
  if (!submission.header || outcome.started_ms == 0) return;
  if (paces_.size() >= kPacesMax) paces_.clear();
  Pace& pace = paces_[submission.header->function];
  const auto took_ms =
      static_cast<double>(std::max<std::int64_t>(outcome.ended_ms - outcome.started_ms, 0));
  pace.mean_ms += (took_ms - pace.mean_ms) / (pace.runs < kMeanOver ? pace.runs + 1 : kMeanOver);
  if (pace.runs < kMeanOver) ++pace.runs;
}

void Core::place_up_to(bool prefetch, Now now) {
  const auto limit = [&](const Pilot& pilot, const Submission& submission) -> std::uint64_t {
    return pilot.slots + (prefetch ? behind_free_slots(pilot, prefetch_of(pilot, submission)) : 0);
  };
  std::vector<Pilot*> free;
  for (Pilot* pilot : pilots_.open())
    if (prefetch || pilot->load < pilot->slots) free.push_back(pilot);
  // A reservation holds for what comes after its task in the queue, so they are made anew on the
  // way.
  std::vector<Reservation> before;
  if (!prefetch) before = std::exchange(reservations_, {});
  if (prefetch && reservations_.size() >= kReservationsMax) return;
  // With no slot free, the first task that needs certain ones is still to be found: it reserves.
  const auto goes_on = [&] {
    if (reservations_.size() >= kReservationsMax) return false;
    return !free.empty() || (!prefetch && reservations_.empty() && queue_.wide_waits());
  };
  for (auto next = queue_.ready().begin(); next != queue_.ready().end() && goes_on();) {
    Submission& submission = *next->second;
    ++next;
    if (!submission.simple()) {
      if (prefetch) continue;
      if (!plan_) make_plan(now);
      place_wide(submission, before, now);
      continue;
    }
    const std::uint64_t cores = submission.cores();
    for (std::size_t i = 0; i < free.size() && !submission.pending.empty();) {
      Pilot& pilot = *free[i];
      const std::uint64_t most = limit(pilot, submission);
      const std::uint64_t room = std::min(most > pilot.load ? most - pilot.load : 0,
                                          kept_free(pilot, submission, prefetch, now));
      // One message for many tasks: a pilot with enough to do is not topped up for each.
      const bool worth = pilot.load < pilot.slots || room >= (most - pilot.slots) / 4;
      if (room >= cores && worth && fits(pilot, submission) &&
          in_time(pilot, submission, prefetch, now))
        dispatch(pilot, submission, queue_.take_pending(submission, room / cores), now);
      const bool more = prefetch ? worth && pilot.load < most : pilot.load < pilot.slots;
      if (more) {
        ++i;
        continue;
      }
      free[i] = free.back();
      free.pop_back();
    }
  }
  plan_.reset();
}

void Core::dispatch(Pilot& pilot, Submission& submission, const RangeSet& tasks, Now now) {
  std::map<std::uint16_t, RangeSet> by_attempt;
  RangeSet first = tasks;
  if (!submission.histories.empty())
    tasks.for_each([&](std::uint32_t index) {
      const std::uint16_t attempt = submission.attempt_of(index);
      if (attempt == 1) return;
      by_attempt[attempt].insert(index);
      first.erase(index);
    });
  if (!first.empty()) by_attempt[1] = std::move(first);
  for (auto& [attempt, indices] : by_attempt) {
    const std::uint64_t id = next_placement_++;
    placed_now_.push_back({id,
                           pilot.id,
                           pilot.block,
                           submission.id,
                           attempt,
                           indices,
                           submission.cores(),
                           {},
                           submission.never_again()});
    pilots_.add_placement(pilot, {.id = id,
                                  .submission = &submission,
                                  .attempt = attempt,
                                  .tasks = indices,
                                  .since = now.mono,
                                  .ends = latest_end(submission, now),
                                  .shares = {}});
    if (plan_) plan_for(pilot.placements.back(), pilot.id, now);
  }
  counters_.dispatched += tasks.count();
  dispatch_now_[pilot.id].emplace_back(&submission, tasks);
  pilots_.update_open(pilot, settings_.prefetch);
}

void Core::flush_dispatches() {
  if (!placed_now_.empty() || !dropped_now_.empty())
    effects_.push_back(
        effect::SavePlacements{std::exchange(placed_now_, {}), std::exchange(dropped_now_, {})});
  for (PilotId id : pilots_.take_guests_changed())
    if (Pilot* pilot = pilots_.find(id); pilot != nullptr && pilot->peer != 0)
      send_pilot(*pilot, wire::make_message(wire::Guests{Pilots::guests_of(*pilot)}));
  // What is not wanted any more makes room for what comes.
  for (auto& [pilot_id, attempts] : std::exchange(cancel_now_, {}))
    if (Pilot* pilot = pilots_.find(pilot_id); pilot != nullptr && pilot->peer != 0)
      send_pilot(*pilot, wire::make_message(wire::CancelAttempts{std::move(attempts)}));
  for (auto& [pilot_id, groups] : std::exchange(dispatch_now_, {})) {
    Pilot* pilot = pilots_.find(pilot_id);
    if (pilot == nullptr || pilot->peer == 0) continue;  // its next hello will not name them
    wire::Dispatch message;
    wire::Places places;
    std::vector<Bytes> payload, arguments;
    for (const auto& [submission, tasks] : groups) {
      const Function* function = queue_.function(submission->header->function);
      FARCALL_CHECK(function != nullptr, "a task was taken whose function never came");
      if (pilot->sent_functions.insert(function->record.id).second) {
        message.functions.push_back(function->record);
        payload.push_back(function->body);
      }
      if (pilot->sent_headers.insert(submission->id).second)
        message.submissions.push_back(*submission->header);
      std::vector<std::uint32_t> sizes;
      arguments.push_back(Queue::arguments(*submission, tasks, sizes));
      wire::DispatchGroup group{submission->id, {}};
      group.tasks.reserve(sizes.size());
      std::size_t at = 0;
      tasks.for_each([&](std::uint32_t index) {
        group.tasks.push_back({index, submission->attempt_of(index), sizes[at++]});
      });
      if (!submission->simple())
        tasks.for_each([&](std::uint32_t index) {
          if (const Placement* placement = pilot->holder_of(*submission, index))
            places.places.push_back(place_of(*placement));
        });
      message.groups.push_back(std::move(group));
    }
    if (arguments.size() == 1) {
      payload.push_back(std::move(arguments.front()));
    } else {
      std::string joined;
      for (const Bytes& piece : arguments) joined += piece.view();
      payload.emplace_back(std::move(joined));
    }
    if (!places.places.empty()) send_pilot(*pilot, wire::make_message(places));
    send_pilot(*pilot, wire::make_message(message, std::move(payload)));
  }
}

}  // namespace farcall::interchange
