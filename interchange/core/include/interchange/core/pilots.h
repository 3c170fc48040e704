// The pilots that have called, with what was placed on each. A pilot without a connection keeps its
// placements until it calls again or has been silent for the lost-timeout.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "interchange/core/effects.h"
#include "interchange/core/node_plan.h"
#include "interchange/core/queue.h"

namespace farcall::interchange {

// What runs on a node that gets no more tasks may end: the allocation's end is the limit.
inline constexpr Duration kDrainGrace = std::chrono::hours(24 * 31);

// Of a placement whose pilot, or a node that it needs, was lost, and whose tasks are not tried
// again: their results may still come.
struct Lost {
  PilotId pilot;  // the lost one
  std::string why;
  Duration until{0};      // alive time of the loop
  bool searched = false;  // for what the pilot may have left, at the end
};

struct Placement {
  std::uint64_t id = 0;  // on disk
  Submission* submission = nullptr;
  std::uint16_t attempt = 1;
  RangeSet tasks;                   // not finished, not taken back
  MonoTime since;                   // placed, or found on disk
  MonoTime ends = MonoTime::max();  // at the latest, if its walltime began at once
  // Of one task that gets certain slots: what it got, the pilot's own share first. Empty: any slots
  // of the pilot, counted.
  std::vector<wire::PlacedShare> shares;
  std::optional<Lost> lost;

  std::uint64_t load() const {
    return shares.empty() ? tasks.count() * submission->cores() : shares.front().slots.size();
  }
  wire::AttemptRef ref() const { return {submission->id, tasks.front(), attempt}; }
};
// A task led by another pilot that holds slots of this one.
struct GuestTask {
  std::uint32_t slots = 0;
  MonoTime ends = MonoTime::max();
};

struct Pilot {
  PilotId id;
  BlockId block;
  std::string node;
  std::uint32_t node_rank = 0;
  std::int64_t incarnation = 0;
  std::string job_start;  // nonce of the start of the batch job that it belongs to
  std::uint32_t cores = 0;
  std::uint32_t slots = 0;
  std::uint64_t load = 0;                          // cores of what is placed, guests included
  std::vector<std::uint32_t> processors, domains;  // as in its hello
  std::vector<std::string> gpus;
  std::uint64_t memory_mib = 0;
  RangeSet slots_given, gpus_given;  // to certain tasks
  std::uint64_t memory_given_mib = 0;
  std::map<wire::AttemptRef, GuestTask> guests;
  PeerId peer = 0;         // 0: no connection
  bool may_work = false;   // gets tasks; false: may only deliver
  bool recovered = false;  // known from disk, has not called yet
  // What its tasks are charged with when it is given up; kNone: nothing, we ended it ourselves.
  FailureClass loss = FailureClass::kLost;
  std::string loss_why;
  Duration heard{0};                // alive time of the loop
  Duration expires{0};              // alive time; lost then
  MonoTime ends = MonoTime::max();  // of the allocation
  std::uint32_t reported_running = 0;
  // Placed here, but not held according to its hello: their outcomes may be among those that it
  // sends again, so that they go back to the queue only when these have come.
  std::vector<wire::AttemptRef> missing;
  std::uint64_t outcomes_awaited = 0;
  std::set<std::uint64_t> batches_seen;  // while some are awaited: a repeated one does not count
  Duration missing_until{0};             // alive time
  bool searched = false;  // what it may have left has been looked for since it was last heard of
  std::vector<Placement> placements;
  std::unordered_set<SubmissionId> sent_headers;  // in this session
  std::unordered_set<FunctionId> sent_functions;
  std::map<SubmissionId, RangeSet> running;  // as reported

  Placement* holder_of(const Submission& submission, std::uint32_t index) {
    for (Placement& placement : placements)
      if (placement.submission == &submission && placement.tasks.contains(index)) return &placement;
    return nullptr;
  }
};

class Pilots {
 public:
  Pilot* find(PilotId id);
  Pilot* find_peer(PeerId peer);
  Pilot& add(PilotId id);
  void connect(Pilot& pilot, PeerId peer);
  void disconnect(Pilot& pilot);
  void remove(Pilot& pilot);

  void add_placement(Pilot& pilot, Placement placement);
  // Takes one task off; appends the placement's id to `dropped` when it was the last.
  void take_off(Pilot& pilot, Placement& placement, std::uint32_t index,
                std::vector<std::uint64_t>& dropped);
  // What its tasks need has become known.
  void count_load(const Submission& submission);
  // Who has it; nullptr: nobody.
  Pilot* holder_of(const Submission& submission, std::uint32_t index, Placement*& placement);

  // By id, not by address: the same events give the same placement in every run.
  struct ById {
    bool operator()(const Pilot* left, const Pilot* right) const { return left->id < right->id; }
  };
  // May take more; those that are full are left out.
  std::set<Pilot*, ById>& open() { return open_; }
  void update_open(Pilot& pilot, std::int64_t prefetch);
  // Those whose guests have changed since this was called.
  std::set<PilotId> take_guests_changed() { return std::exchange(guests_changed_, {}); }
  const std::set<PilotId>& guests_changed() const { return guests_changed_; }
  static std::vector<wire::Guest> guests_of(const Pilot& pilot);

  std::map<PilotId, Pilot>& all() { return pilots_; }
  const std::map<PilotId, Pilot>& all() const { return pilots_; }
  std::string sanity_check() const;

 private:
  void give(Pilot& pilot, const Placement& placement);
  void take_back(const Placement& placement);
  std::string check_shares() const;

  std::set<PilotId> guests_changed_;
  std::map<PilotId, Pilot> pilots_;
  std::map<PeerId, Pilot*> by_peer_;
  std::set<Pilot*, ById> open_;
};

using BlockNodes = std::map<BlockId, std::vector<Pilot*>>;

// What is kept for a task that waits for certain slots: nothing that comes after it may have them
// from `start` on.
struct Reservation {
  SubmissionId submission;
  MonoTime start = MonoTime::max();  // at the latest; max: not known, they are kept from now on
  std::map<PilotId, std::uint64_t> slots;
};
// So many tasks get one; what comes after the last of these waits until there are fewer.
inline constexpr std::size_t kReservationsMax = 64;

// Of one turn of placement: what runs, and what is kept for the tasks ahead in the queue.
struct Plan {
  BlockNodes nodes;
  std::map<PilotId, NodePlan> free;
};

// How long tasks of a function take, for how many may wait at a pilot.
struct Pace {
  std::uint32_t runs = 0;
  double mean_ms = 0;  // the latest counting most
};
// At most so many tasks of a short function wait at a pilot for each of its slots.
inline constexpr std::uint64_t kPrefetchMax = 256;
// What waits there waits for slots that come free: those that certain tasks were given may take
// long.
inline std::uint64_t behind_free_slots(const Pilot& pilot, std::uint64_t wanted) {
  if (pilot.slots_given.empty()) return wanted;
  const std::uint64_t given = pilot.slots_given.count();
  return pilot.slots > given ? wanted * (pilot.slots - given) / pilot.slots : 0;
}
// Cores' worth of tasks that may be at a pilot at all.
inline std::uint64_t capacity(const Pilot& pilot, std::int64_t prefetch) {
  return pilot.slots + behind_free_slots(pilot, prefetch < 0
                                                    ? pilot.slots * kPrefetchMax
                                                    : static_cast<std::uint64_t>(prefetch));
}

}  // namespace farcall::interchange
