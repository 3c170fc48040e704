#include "interchange/core/fit.h"

#include <algorithm>
#include <limits>

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
