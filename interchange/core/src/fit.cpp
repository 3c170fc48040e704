#include "interchange/core/fit.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace farcall::interchange {
namespace {

struct Candidate {
  std::size_t node = 0;
  std::uint32_t units = 0;
};

// All on one node, else the largest holes first and the tightest that takes the rest.
std::optional<std::vector<Part>> on_few_nodes(const Wish& wish, std::vector<Candidate>& ascending) {
  std::vector<Part> parts;
  std::uint32_t left = wish.units;
  while (left > 0) {
    if (ascending.empty()) return std::nullopt;
    const auto tight = std::find_if(ascending.begin(), ascending.end(),
                                    [&](const Candidate& each) { return each.units >= left; });
    const std::uint32_t most = ascending.back().units;
    const auto chosen =
        tight != ascending.end()
            ? tight
            : std::find_if(ascending.begin(), ascending.end(),
                           [&](const Candidate& each) { return each.units == most; });
    const std::uint32_t here = std::min(left, chosen->units);
    parts.push_back({chosen->node, here});
    left -= here;
    ascending.erase(chosen);
  }
  return parts;
}

std::optional<std::vector<Part>> evenly(const Wish& wish, const std::vector<Candidate>& ascending) {
  const std::uint32_t least = wish.units / wish.nodes;
  const std::uint32_t with_one_more = wish.units % wish.nodes;
  if (least == 0 || ascending.size() < wish.nodes) return std::nullopt;
  std::vector<Part> parts;
  std::uint32_t more_left = with_one_more, least_left = wish.nodes - with_one_more;
  for (const Candidate& each : ascending) {
    if (least_left > 0 && each.units >= least) {
      parts.push_back({each.node, least});
      --least_left;
    } else if (more_left > 0 && each.units > least) {
      parts.push_back({each.node, least + 1});
      --more_left;
    }
  }
  if (least_left + more_left > 0) return std::nullopt;
  return parts;
}

}  // namespace

Wish Wish::of(const Resources& resources) {
  Wish wish;
  wish.nodes = resources.nodes;
  wish.slots = std::max(1U, resources.cores);
  wish.gpus = resources.gpus;
  wish.memory_mib = resources.memory_mib;
  wish.exclusive = resources.exclusive;
  if (resources.ranks > 0) {
    wish.units = resources.ranks;
  } else {
    wish.units = wish.nodes = std::max(1U, resources.nodes);
    wish.one_on_each = true;
  }
  return wish;
}

std::string counted(std::uint64_t number, const std::string& what) {
  return std::to_string(number) + " " + what + (number == 1 ? "" : "s");
}

std::string describe(const Resources& resources) {
  const std::uint32_t nodes = std::max(1U, resources.nodes);
  std::string share = counted(std::max(1U, resources.cores), "core");
  if (resources.gpus > 0) share += " and " + counted(resources.gpus, "GPU");
  std::string text = resources.ranks > 0 ? counted(resources.ranks, "rank") + " with " + share +
                                               (resources.ranks > 1 ? " each" : "")
                     : nodes > 1 ? counted(nodes, "node") + " with " + share + " each"
                                 : share;
  if (resources.ranks > 0 && resources.nodes > 0) text += ", on " + counted(nodes, "node");
  if (resources.memory_mib > 0)
    text += fmt::format(", {} MiB of memory{}", resources.memory_mib,
                        nodes > 1 || resources.ranks > 0 ? " on each node" : "");
  if (resources.exclusive) text += ", with nothing else on its nodes";
  return text;
}

std::uint32_t Wish::units_on(const Room& room) const {
  if (memory_mib > room.memory_mib || (exclusive && room.slots < room.slots_total)) return 0;
  std::uint32_t result = room.slots / slots;
  if (gpus > 0) result = std::min(result, room.gpus / gpus);
  if (one_on_each) result = std::min(result, 1U);
  return result;
}

std::optional<std::vector<Part>> fit(const Wish& wish, const std::vector<Room>& rooms) {
  std::vector<Candidate> candidates;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < rooms.size(); ++i) {
    const std::uint32_t units = wish.units_on(rooms[i]);
    if (units == 0) continue;
    candidates.push_back({i, units});
    total += units;
  }
  if (total < wish.units) return std::nullopt;
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.units < b.units; });
  auto parts = wish.nodes == 0 ? on_few_nodes(wish, candidates) : evenly(wish, candidates);
  if (parts)
    std::sort(parts->begin(), parts->end(),
              [](const Part& a, const Part& b) { return a.node < b.node; });
  return parts;
}

std::vector<std::uint32_t> pick_slots(const RangeSet& free, std::uint32_t count,
                                      const std::vector<std::uint32_t>& domains) {
  std::vector<RangeSet> parts;
  std::uint32_t first = 0;
  for (std::uint32_t size : domains) {
    parts.push_back(free.intersection(RangeSet{{first, first + size}}));
    first += size;
  }
  // What no domain is known of.
  constexpr auto kEnd = std::numeric_limits<std::uint32_t>::max();
  parts.push_back(free.intersection(RangeSet{{first, kEnd}}));
  std::vector<std::uint32_t> result;
  while (count > 0) {
    RangeSet* best = nullptr;
    for (RangeSet& part : parts) {
      if (part.empty()) continue;
      const bool enough = part.count() >= count;
      const bool best_enough = best != nullptr && best->count() >= count;
      if (best == nullptr || (enough && (!best_enough || part.count() < best->count())) ||
          (!enough && !best_enough && part.count() > best->count()))
        best = &part;
    }
    // A gap that holds them all, if there is one: neighbours share caches.
    const auto gap = std::find_if(best->ranges().begin(), best->ranges().end(),
                                  [&](Range range) { return range.size() >= count; });
    const RangeSet from = gap != best->ranges().end() ? RangeSet{*gap} : *best;
    const RangeSet taken = RangeSet(from).take_front(count);
    taken.for_each([&](std::uint32_t slot) { result.push_back(slot); });
    best->erase(taken);
    count -= static_cast<std::uint32_t>(taken.count());
  }
  std::sort(result.begin(), result.end());
  return result;
}

}  // namespace farcall::interchange
