// Which processors the tasks of one core are bound to: cpu_affinity of Globus Compute, whose
// patterns are Parsl's (parsl.executors.HighThroughputExecutor). Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "pilot/core/core.h"

namespace farcall::pilot {

using Processors = std::vector<std::uint32_t>;  // numbers of the operating system, ascending

class Affinity {
 public:
  // block: neighbouring processors for each of `workers`; block-reverse: from the last one on;
  // alternating: every `workers`-th; list:0,1:2-3: as written, for one after the other. kConfig: no
  // such pattern, or not one for so many workers and processors.
  static Result<Affinity> make(const std::string& pattern, std::uint32_t workers,
                               Processors processors);

  // Those of the worker number with the fewest holders; it is held as long as the answer is.
  std::shared_ptr<const Processors> take() const;
  // `own` for a task of one core, all of them for one that has more or a place of its own.
  std::shared_ptr<const Processors> of(const Assignment& work,
                                       const std::shared_ptr<const Processors>& own) const;

 private:
  std::vector<std::shared_ptr<const Processors>> each_;
  std::shared_ptr<const Processors> all_;
};

}  // namespace farcall::pilot
