// Holds running attempts to their memory and their number of processes: looks at their trees while
// they run, and ends what uses too much.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "pilot/runners/poller.h"
#include "pilot/runners/runner.h"

namespace farcall::pilot {

class Limits {
 public:
  Limits(Poller& poller, RunnerSettings settings);
  ~Limits();

  void began(const Assignment& work, Runner& runner);
  void over(const wire::AttemptRef& ref) { watched_.erase(ref); }

 private:
  struct Watched {
    Assignment work;
    Runner* runner = nullptr;
    std::uint32_t max_processes = 0;  // that it asked for
  };
  void look();
  void look_at(const Watched& watched, bool everyone);

  Poller& poller_;
  const RunnerSettings settings_;
  std::map<wire::AttemptRef, Watched> watched_;
  Poller::TimerId timer_ = 0;
  std::uint64_t calm_threads_ = 0;  // of the node, when all trees were last looked at
};

}  // namespace farcall::pilot
