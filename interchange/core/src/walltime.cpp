#include "interchange/core/walltime.h"

#include <algorithm>

#include "interchange/core/core.h"

namespace farcall::interchange {
namespace {

constexpr std::uint64_t kRunsToTell = 3;
// A block that has as much of its time left is as good as a fresh one.
constexpr double kFreshShare = 0.75;
// Functions that are remembered; a list of more would grow for ever.
constexpr std::size_t kFunctionsMax = 10'000;
// What is only learned never keeps a task from all blocks: a fresh one is always tried.
constexpr double kLearnedShareMax = 0.8;

}  // namespace

void Durations::add(FunctionId function, Duration took) {
  if (functions_.size() >= kFunctionsMax && !functions_.contains(function)) functions_.clear();
  changed_.insert(function);
  Recent& recent = functions_[function];
  recent.took[recent.count++ % kKept] = took;
  recent.quantile.reset();
}

void Durations::recover(const std::vector<DurationsRecord>& records) {
  for (const DurationsRecord& record : records)
    for (std::uint32_t took : record.took_ms) add(record.function, milliseconds(took));
  changed_.clear();
}

std::vector<DurationsRecord> Durations::take_changed() {
  std::vector<DurationsRecord> records;
  for (FunctionId function : std::exchange(changed_, {})) {
    const auto found = functions_.find(function);
    if (found == functions_.end()) continue;
    const Recent& recent = found->second;
    DurationsRecord record{function, {}};
    const std::uint64_t first = recent.count < kKept ? 0 : recent.count - kKept;
    for (std::uint64_t run = first; run < recent.count; ++run)
      record.took_ms.push_back(static_cast<std::uint32_t>(
          std::chrono::duration_cast<milliseconds>(recent.took[run % kKept]).count()));
    records.push_back(std::move(record));
  }
  return records;
}

std::optional<Duration> Durations::usual(FunctionId function) const {
  const auto found = functions_.find(function);
  if (found == functions_.end() || found->second.count < kRunsToTell) return std::nullopt;
  const Recent& recent = found->second;
  if (!recent.quantile) {
    auto sorted = recent.took;
    const auto count = static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(recent.count, kKept));
    const auto at = sorted.begin() + (count * 9 - 1) / 10;
    std::nth_element(sorted.begin(), at, sorted.begin() + count);
    recent.quantile = *at;
  }
  return recent.quantile;
}

bool fits_in_time(Duration needs, Duration left, bool waits_first) {
  return (waits_first ? needs * 2 : needs) <= left;
}

bool had_most_of_a_block(Duration had, const ScalingSettings& settings) {
  return std::chrono::duration<double>(had).count() >= settings.walltime_s * kFreshShare;
}

double usable_time_s(const ScalingSettings& settings) {
  constexpr double kOverhead_s = 30;
  return settings.walltime_s - std::min(kOverhead_s, settings.walltime_s * 0.1);
}

Duration Core::needs_time(const Submission& submission) const {
  if (!submission.header) return Duration{0};
  if (submission.header->walltime_ms > 0) return milliseconds(submission.header->walltime_ms);
  // Until a few have ended: more than one of them had before it was cut off.
  const Duration learned = durations_.usual(submission.header->function)
                               .value_or(submission.cut_after + submission.cut_after / 4);
  const double most = settings_.scaling.walltime_s * kLearnedShareMax * 1e9;
  return most > 0 ? std::min(learned, Duration(static_cast<Duration::rep>(most))) : learned;
}

bool Core::in_time(const Pilot& pilot, const Submission& submission, bool waits_first,
                   Now now) const {
  if (pilot.ends == MonoTime::max()) return true;
  const Duration needs = needs_time(submission);
  return needs == Duration{0} || fits_in_time(needs, pilot.ends - now.mono, waits_first);
}

// Of an idle block: there is work, and none of it can be done before the block's end.
bool Core::is_too_short(const Pilot& pilot, Now now) const {
  if (pilot.ends == MonoTime::max() || queue_.ready().empty()) return false;
  // A fresh one is not followed by another: that would not have more time either.
  if (pilot.ends - now.mono >
      seconds(static_cast<std::int64_t>(settings_.scaling.walltime_s * kFreshShare)))
    return false;
  return std::none_of(queue_.ready().begin(), queue_.ready().end(),
                      [&](const auto& item) { return in_time(pilot, *item.second, false, now); });
}

}  // namespace farcall::interchange
