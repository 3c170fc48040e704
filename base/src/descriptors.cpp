#include "base/descriptors.h"

#include <sys/resource.h>

#include <cerrno>
#include <cstring>

#include "base/log.h"

namespace farcall {

namespace {
constexpr rlim_t kEnough = 4096;
rlimit before{};
bool raised = false;
}  // namespace

void raise_descriptor_limit(std::string_view peers) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  if (!raised) before = limit;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0)
    raised = true;
  else
    log_warn("the limit of file descriptors stays at {}, it cannot be raised to {}: {}",
             before.rlim_cur, limit.rlim_max, std::strerror(errno));
  if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < kEnough)
    log_warn("only {} file descriptors are allowed (ulimit -Hn): with many {} raise it",
             limit.rlim_max, peers);
}

void restore_descriptor_limit() {
  if (raised) ::setrlimit(RLIMIT_NOFILE, &before);
}

}  // namespace farcall
