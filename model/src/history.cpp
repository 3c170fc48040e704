#include "model/history.h"

#include <algorithm>
#include <numeric>

namespace farcall {

TaskHistory merged(const TaskHistory& known, const TaskHistory& report) {
  const auto charges = [](const TaskHistory& h) {
    return std::accumulate(h.failures.begin(), h.failures.end(), 0);
  };
  const int forgotten = report.attempt - 1 - charges(report);
  if (forgotten <= 0) return report;
  TaskHistory result = report;
  // The report's charges are the newest. When both know some of the same, the class of those is not
  // known, and the larger number of each class is what is certain.
  const bool apart = charges(known) <= forgotten;
  for (std::size_t i = 0; i < kFailureClassCount; ++i)
    result.failures[i] = apart ? static_cast<std::uint16_t>(result.failures[i] + known.failures[i])
                               : std::max(result.failures[i], known.failures[i]);
  return result;
}

}  // namespace farcall
