// Whether a task that needs certain cores fits, and onto which nodes and slots. Pure arithmetic; it
// knows neither pilots nor submissions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "model/offer.h"
#include "model/range_set.h"

namespace farcall::interchange {

// Any cores of any one node will do: it is enough to count them.
inline bool is_simple(const Resources& r) {
  return r.ranks == 0 && r.nodes <= 1 && !r.exclusive && r.gpus == 0 && r.memory_mib == 0;
}
// On all nodes; those of whole nodes are not known here.
inline std::uint32_t total_cores(const Resources& r) {
  return std::max(1U, r.cores) * std::max({1U, r.nodes, r.ranks});
}

struct Part {
  std::size_t node = 0;  // index into the rooms
  std::uint32_t units = 0;
};

// Units on as few nodes as fit, or evenly on as many as the wish says; of those that would do, the
// ones with the least room, so that large holes stay whole. In the order of `rooms`; nullopt: not
// now.
std::optional<std::vector<Part>> fit(const Wish& wish, const std::vector<Room>& rooms);

// `count` of the free ones: from one memory domain if one has enough (the tightest), else from as
// few as possible; neighbours first. `domains`: sizes, in the order of the numbers.
// REQUIRES: count <= free.count().
std::vector<std::uint32_t> pick_slots(const RangeSet& free, std::uint32_t count,
                                      const std::vector<std::uint32_t>& domains);

}  // namespace farcall::interchange
