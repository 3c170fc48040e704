#include "model/range_set.h"

#include <algorithm>

namespace farcall {

namespace {
// The first range that ends after `index`, which is the only one that can hold it.
template <class Ranges>
auto first_ending_after(Ranges& ranges, std::uint32_t index) {
  return std::upper_bound(ranges.begin(), ranges.end(), index,
                          [](std::uint32_t i, const Range& range) { return i < range.last; });
}
}  // namespace

void RangeSet::insert(Range range) {
  if (range.first >= range.last) return;
  if (ranges_.empty() || range.first > ranges_.back().last) {
    ranges_.push_back(range);
    return;
  }
  // Neighbours that merely touch are merged as well.
  auto begin = std::lower_bound(ranges_.begin(), ranges_.end(), range.first,
                                [](const Range& r, std::uint32_t i) { return r.last < i; });
  auto end = begin;
  while (end != ranges_.end() && end->first <= range.last) {
    range.first = std::min(range.first, end->first);
    range.last = std::max(range.last, end->last);
    ++end;
  }
  if (begin == end) {
    ranges_.insert(begin, range);
  } else {
    *begin = range;
    ranges_.erase(begin + 1, end);
  }
}

void RangeSet::insert(const RangeSet& other) {
  for (Range range : other.ranges_) insert(range);
}

void RangeSet::erase(Range range) {
  if (range.first >= range.last) return;
  auto begin = first_ending_after(ranges_, range.first);
  if (begin == ranges_.end() || begin->first >= range.last) return;
  if (begin->first < range.first && begin->last > range.last) {
    Range tail{range.last, begin->last};
    begin->last = range.first;
    ranges_.insert(begin + 1, tail);
    return;
  }
  if (begin->first < range.first) (begin++)->last = range.first;
  auto end = begin;
  while (end != ranges_.end() && end->last <= range.last) ++end;
  if (end != ranges_.end() && end->first < range.last) end->first = range.last;
  ranges_.erase(begin, end);
}

void RangeSet::erase(const RangeSet& other) {
  for (Range range : other.ranges_) erase(range);
}

bool RangeSet::contains(std::uint32_t index) const {
  auto it = first_ending_after(ranges_, index);
  return it != ranges_.end() && it->first <= index;
}

bool RangeSet::contains(Range range) const {
  if (range.first >= range.last) return true;
  auto it = first_ending_after(ranges_, range.first);
  return it != ranges_.end() && it->first <= range.first && it->last >= range.last;
}

std::uint64_t RangeSet::count() const {
  std::uint64_t total = 0;
  for (Range range : ranges_) total += range.size();
  return total;
}

RangeSet RangeSet::intersection(Range range) const {
  RangeSet result;
  for (auto it = first_ending_after(ranges_, range.first);
       it != ranges_.end() && it->first < range.last; ++it) {
    result.ranges_.push_back({std::max(it->first, range.first), std::min(it->last, range.last)});
  }
  return result;
}

RangeSet RangeSet::intersection(const RangeSet& other) const {
  RangeSet result;
  for (Range range : other.ranges_) result.insert(intersection(range));
  return result;
}

RangeSet RangeSet::difference(const RangeSet& other) const {
  RangeSet result = *this;
  result.erase(other);
  return result;
}

RangeSet RangeSet::take_front(std::uint64_t count) {
  RangeSet taken;
  std::size_t used = 0;
  while (count > 0 && used < ranges_.size()) {
    Range& range = ranges_[used];
    const auto n = static_cast<std::uint32_t>(std::min<std::uint64_t>(count, range.size()));
    taken.ranges_.push_back({range.first, range.first + n});
    range.first += n;
    count -= n;
    if (range.first == range.last) ++used;
  }
  ranges_.erase(ranges_.begin(), ranges_.begin() + static_cast<std::ptrdiff_t>(used));
  return taken;
}

std::string RangeSet::string() const {
  std::string text;
  for (Range range : ranges_) {
    if (!text.empty()) text += ',';
    text += std::to_string(range.first);
    if (range.size() > 1) text += '-' + std::to_string(range.last - 1);
  }
  return text;
}

std::optional<RangeSet> RangeSet::from_flat(const std::vector<std::uint32_t>& pairs) {
  if (pairs.size() % 2 != 0) return std::nullopt;
  RangeSet result;
  for (std::size_t i = 0; i < pairs.size(); i += 2) {
    if (pairs[i] >= pairs[i + 1]) return std::nullopt;
    if (i > 0 && pairs[i] <= pairs[i - 1]) return std::nullopt;
    result.ranges_.push_back({pairs[i], pairs[i + 1]});
  }
  return result;
}

}  // namespace farcall
