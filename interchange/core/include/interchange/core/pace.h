// How often the scheduler is asked: one query for all jobs per interval, seldom while nothing
// changes, ever more seldom while it does not answer; and how many calls of any kind were made.
#pragma once

#include <deque>

#include "base/clock.h"
#include "interchange/core/settings.h"

namespace farcall::interchange {

class SchedulerPace {
 public:
  SchedulerPace(const Settings& settings, Rng rng) : settings_(settings), rng_(rng) {}

  // A command is about to be run.
  void called(Now now);
  // A query is due. `calm`: every block runs and its pilots call home, so that it would tell
  // little.
  bool query_due(bool calm, Now now) const;
  void query_began(Now now);
  void query_ended(bool answered, Now now);
  // Something was submitted, cancelled or heard that makes the next answer interesting.
  void changed(Now now) { last_change_ = now.mono; }

  // Consecutive queries without an answer, and since when there was none.
  int unanswered() const { return unanswered_; }
  MonoTime unanswered_since() const { return unanswered_since_; }
  int calls_last_hour(Now now) const;

 private:
  Duration interval(bool calm, Now now) const;

  const Settings& settings_;
  Rng rng_;
  std::deque<MonoTime> calls_;
  bool under_way_ = false;
  bool asked_ = false;
  MonoTime last_query_, last_change_, unanswered_since_;
  double jitter_ = 0;  // a part of the interval, drawn anew at each query
  int unanswered_ = 0;
};

}  // namespace farcall::interchange
