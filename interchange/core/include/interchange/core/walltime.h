// What is known of how long tasks take, so that none is started where it would be cut off.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "interchange/core/effects.h"
#include "interchange/core/settings.h"

namespace farcall::interchange {

// How long the last runs of each function took.
class Durations {
 public:
  void add(FunctionId function, Duration took);
  // From disk.
  void recover(const std::vector<DurationsRecord>& records);
  // Of the functions that have run since the last call, for the disk.
  std::vector<DurationsRecord> take_changed();
  bool succeeded(FunctionId function) const { return functions_.contains(function); }
  // Nine of ten runs took no longer than this; nullopt until a few have ended.
  std::optional<Duration> usual(FunctionId function) const;

 private:
  static constexpr std::size_t kKept = 32;
  struct Recent {
    std::array<Duration, kKept> took;
    std::uint64_t count = 0;
    mutable std::optional<Duration> quantile;  // of `took`, when nothing was added since
  };
  std::unordered_map<FunctionId, Recent> functions_;
  std::set<FunctionId> changed_;
};

// Whether a task that takes `needs` may be given to a block that has `left` of its time. A task
// that has to wait there first for one like it needs twice as long.
bool fits_in_time(Duration needs, Duration left, bool waits_first);

// Whether a task that was cut off after `had` is charged for it: only one that had most of a block
// to itself shows that blocks are too short for it.
bool had_most_of_a_block(Duration had, const ScalingSettings& settings);

// What a block has for tasks between its start and its end; 0: not known.
double usable_time_s(const ScalingSettings& settings);

}  // namespace farcall::interchange
