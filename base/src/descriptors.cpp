#include "base/descriptors.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/log.h"

namespace farcall {

namespace {
constexpr rlim_t kEnough = 4096;
// In the environment, as provider modules have a copy of this code each, and with it its variables.
constexpr char kBefore[] = "FARCALL_DESCRIPTORS_BEFORE";
}  // namespace

void raise_descriptor_limit(std::string_view peers) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0)
    ::setenv(kBefore, std::to_string(before).c_str(), 0);
  else
    log_warn("the limit of file descriptors stays at {}, it cannot be raised to {}: {}", before,
             limit.rlim_max, std::strerror(errno));
  if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < kEnough)
    log_warn("only {} file descriptors are allowed (ulimit -Hn): with many {} raise it",
             limit.rlim_max, peers);
}

void restore_descriptor_limit() {
  const char* before = std::getenv(kBefore);
  rlimit limit{};
  if (before == nullptr || ::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = std::min<rlim_t>(std::strtoull(before, nullptr, 10), limit.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace farcall
