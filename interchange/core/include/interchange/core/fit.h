// Whether a task that needs certain cores fits, and onto which nodes and slots. Pure arithmetic; it
// knows neither pilots nor submissions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/range_set.h"
#include "model/task.h"

namespace farcall::interchange {

// Any cores of any one node will do: it is enough to count them.
inline bool is_simple(const Resources& r) {
  return r.ranks == 0 && r.nodes <= 1 && !r.exclusive && r.gpus == 0 && r.memory_mib == 0;
}
// On all nodes; those of whole nodes are not known here.
inline std::uint32_t total_cores(const Resources& r) {
  return std::max(1U, r.cores) * std::max({1U, r.nodes, r.ranks});
}

// What a node has to give.
struct Room {
  std::uint32_t slots = 0;  // free ones
  std::uint32_t slots_total = 0;
  std::uint32_t gpus = 0;
  std::uint64_t memory_mib = 0;
};

// Cores and GPUs of a task with ranks are those of each rank, of another one those on each of its
// nodes. A task as a number of equal units (its ranks; or one for each of its nodes) to be laid on
// nodes.
struct Wish {
  std::uint32_t units = 1;
  std::uint32_t nodes = 1;       // 0: as few as fit
  bool one_on_each = false;      // of the nodes; else as many as fit
  std::uint32_t slots = 1;       // of each unit
  std::uint32_t gpus = 0;        // of each unit
  std::uint64_t memory_mib = 0;  // on each node
  bool exclusive = false;        // nothing else on its nodes

  static Wish of(const Resources& resources);
  // How many units this node can take now.
  std::uint32_t units_on(const Room& room) const;
};

// "4 ranks with 2 cores and 1 GPU each, on 2 nodes": what a task needs, for people.
std::string describe(const Resources& resources);
// "1 core", "2 cores".
std::string counted(std::uint64_t number, const std::string& what);

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
