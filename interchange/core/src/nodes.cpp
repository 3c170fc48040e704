#include "interchange/core/nodes.h"

#include <algorithm>

#include "base/log.h"

namespace farcall::interchange {
namespace {

constexpr std::size_t kFailuresOfABadNode = 3;
constexpr std::int64_t kForgiven_ms = 24LL * 3600 * 1000;

}  // namespace

bool NodeHealth::failed(const std::string& node, const TaskId& task, const std::string& why,
                        Now now) {
  if (node.empty() || is_bad(node)) return false;
  auto& tasks = failures_[node];
  tasks.insert(task);
  if (tasks.size() < kFailuresOfABadNode) return false;
  if (bad_.size() + 1 > std::max<std::size_t>(1, seen_.size() / 2)) return false;
  bad_[node] = {node, why, now.wall.milliseconds_since_epoch()};
  failures_.erase(node);
  log_warn("node {}: gets nothing any more: the workers of {} tasks in a row did not start: {}",
           node, kFailuresOfABadNode, why);
  return true;
}

void NodeHealth::succeeded(const std::string& node) {
  if (!failures_.empty()) failures_.erase(node);
}

std::vector<BadNode> NodeHealth::bad() const {
  std::vector<BadNode> list;
  for (const auto& [name, node] : bad_) list.push_back(node);
  return list;
}

void NodeHealth::tick(Now now) {
  std::erase_if(bad_, [&](const auto& item) {
    return now.wall.milliseconds_since_epoch() - item.second.since_ms > kForgiven_ms;
  });
}

}  // namespace farcall::interchange
