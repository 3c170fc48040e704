// A set of task indices as sorted, disjoint half-open ranges: a million tasks that are all pending
// are one range.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace farcall {

struct Range {
  std::uint32_t first = 0;
  std::uint32_t last = 0;  // one past the end
  std::uint32_t size() const { return last - first; }
  bool operator==(const Range&) const = default;
};

class RangeSet {
 public:
  RangeSet() = default;
  RangeSet(std::initializer_list<Range> ranges) {
    for (Range range : ranges) insert(range);
  }

  // Empty ranges are ignored. O(log n + ranges touched) at the end, O(n) in the middle.
  void insert(Range range);
  void insert(std::uint32_t index) { insert(Range{index, index + 1}); }
  void insert(const RangeSet& other);
  void erase(Range range);
  void erase(std::uint32_t index) { erase(Range{index, index + 1}); }
  void erase(const RangeSet& other);
  void clear() { ranges_.clear(); }

  bool contains(std::uint32_t index) const;
  bool contains(Range range) const;
  bool empty() const { return ranges_.empty(); }
  std::uint64_t count() const;
  // REQUIRES: !empty()
  std::uint32_t front() const { return ranges_.front().first; }
  std::uint32_t back_end() const { return ranges_.back().last; }

  RangeSet intersection(const RangeSet& other) const;
  RangeSet intersection(Range range) const;
  RangeSet difference(const RangeSet& other) const;
  // Removes and returns the lowest `count` indices (fewer when there are fewer).
  RangeSet take_front(std::uint64_t count);

  const std::vector<Range>& ranges() const { return ranges_; }
  // "0-4,7,9-12" for people, last index inclusive.
  std::string string() const;
  // From untrusted input: nullopt unless ascending, disjoint and non-empty ranges.
  static std::optional<RangeSet> from_flat(const std::vector<std::uint32_t>& first_last_pairs);

  template <class F>
  void for_each(F&& f) const {
    for (Range range : ranges_)
      for (std::uint32_t i = range.first; i != range.last; ++i) f(i);
  }
  bool operator==(const RangeSet&) const = default;

 private:
  std::vector<Range> ranges_;
};

}  // namespace farcall
