#include "interchange/core/pace.h"

#include <algorithm>

namespace farcall::interchange {
namespace {

constexpr Duration kLocalInterval = seconds(1);
constexpr Duration kShortest = seconds(5);
constexpr Duration kLongest = seconds(300);
constexpr int kDoublingsMax = 6;

}  // namespace

void SchedulerPace::called(Now now) {
  calls_.push_back(now.mono);
  while (now.mono - calls_.front() >= std::chrono::hours(1)) calls_.pop_front();
}

int SchedulerPace::calls_last_hour(Now now) const {
  return static_cast<int>(std::count_if(calls_.begin(), calls_.end(), [&](MonoTime at) {
    return now.mono - at < std::chrono::hours(1);
  }));
}

Duration SchedulerPace::interval(bool calm, Now now) const {
  if (unanswered_ > 0)
    return std::min(kShortest * (1 << std::min(unanswered_, kDoublingsMax)), kLongest);
  if (settings_.scheduler_is_local) return kLocalInterval;
  if (calm) return std::max(settings_.scheduler_interval, kLocalInterval);
  // What has waited for long is asked about less often than what was submitted a moment ago.
  const Duration age = now.mono - last_change_;
  return std::clamp<Duration>(age / 4, std::min(kShortest, settings_.scheduler_interval),
                              settings_.scheduler_interval);
}

bool SchedulerPace::query_due(bool calm, Now now) const {
  if (under_way_) return false;
  if (!asked_) return true;
  const Duration wait = interval(calm, now);
  // Many endpoints on one cluster must not ask in step.
  const auto extra =
      settings_.scheduler_is_local
          ? Duration{0}
          : Duration(static_cast<Duration::rep>(static_cast<double>(wait.count()) * jitter_));
  return now.mono - last_query_ >= wait + extra;
}

void SchedulerPace::query_began(Now now) {
  under_way_ = asked_ = true;
  last_query_ = now.mono;
  jitter_ = static_cast<double>(rng_.below(1000)) / 5000.0;
  called(now);
}

void SchedulerPace::query_ended(bool answered, Now now) {
  under_way_ = false;
  if (answered) {
    unanswered_ = 0;
  } else if (++unanswered_ == 1) {
    unanswered_since_ = now.mono;
  }
}

}  // namespace farcall::interchange
