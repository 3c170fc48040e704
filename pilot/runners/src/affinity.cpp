#include "pilot/runners/affinity.h"

#include <algorithm>
#include <charconv>
#include <numeric>

namespace farcall::pilot {

namespace {

std::vector<std::string> parts_of(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool parse(const std::string& text, std::uint32_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return !text.empty() && error == std::errc() && end == text.data() + text.size();
}

// "0,4-6"
Result<Processors> listed(const std::string& text, const Processors& usable) {
  Processors found;
  for (const std::string& range : parts_of(text, ',')) {
    const std::size_t dash = range.find('-');
    std::uint32_t first = 0, last = 0;
    if (!parse(range.substr(0, dash), first) ||
        !parse(dash == std::string::npos ? range : range.substr(dash + 1), last) || last < first)
      return fail(ErrorCode::kConfig, "'{}' is no processor and no range of them", range);
    for (const std::uint32_t one : usable)
      if (one >= first && one <= last) found.push_back(one);
    if (!std::binary_search(usable.begin(), usable.end(), last))
      return fail(ErrorCode::kConfig, "this node has no processor {} for it", last);
  }
  return found;
}

}  // namespace

Result<Affinity> Affinity::make(const std::string& pattern, std::uint32_t workers,
                                Processors processors) {
  std::sort(processors.begin(), processors.end());
  const auto refuse = [&](const std::string& why) {
    return fail(ErrorCode::kConfig, "cpu_affinity '{}': {}", pattern, why);
  };
  std::vector<Processors> each(workers);
  if (pattern.starts_with("list:")) {
    const auto lists = parts_of(pattern.substr(5), ':');
    if (lists.size() != workers)
      return refuse(fmt::format("it has {} lists for {} workers", lists.size(), workers));
    for (std::uint32_t i = 0; i < workers; ++i) {
      auto found = listed(lists[i], processors);
      if (!found) return refuse(found.error().message);
      each[i] = std::move(*found);
    }
  } else {
    const std::size_t share = workers == 0 ? 0 : processors.size() / workers;
    if (share == 0)
      return refuse(fmt::format("{} workers cannot have processors of their own where there are {}",
                                workers, processors.size()));
    for (std::uint32_t i = 0; i < workers; ++i) {
      if (pattern == "alternating") {
        for (std::size_t at = i; at < processors.size(); at += workers)
          each[i].push_back(processors[at]);
        continue;
      }
      if (pattern != "block" && pattern != "block-reverse")
        return refuse("it is none of none, block, block-reverse, alternating, list:0,1:2,3");
      const auto first =
          processors.begin() +
          static_cast<std::ptrdiff_t>(share * (pattern == "block" ? i : workers - 1 - i));
      each[i].assign(first, first + static_cast<std::ptrdiff_t>(share));
    }
  }
  Affinity made;
  for (Processors& one : each)
    made.each_.push_back(std::make_shared<const Processors>(std::move(one)));
  made.all_ = std::make_shared<const Processors>(std::move(processors));
  return made;
}

std::shared_ptr<const Processors> Affinity::take() const {
  return *std::min_element(each_.begin(), each_.end(), [](const auto& a, const auto& b) {
    return a.use_count() < b.use_count();
  });
}

std::shared_ptr<const Processors> Affinity::of(const Assignment& work,
                                               const std::shared_ptr<const Processors>& own) const {
  return work.place == nullptr && work.header->resources.cores <= 1 ? own : all_;
}

}  // namespace farcall::pilot
