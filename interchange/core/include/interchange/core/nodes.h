// Nodes on which nothing starts: one of them fails a thousand tasks while the others work.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"

namespace farcall::interchange {

struct BadNode {
  std::string name;
  std::string why;            // of the last failure
  std::int64_t since_ms = 0;  // wall clock
};

class NodeHealth {
 public:
  // A pilot has called from there.
  void seen(const std::string& node) { seen_.insert(node); }
  // A task's worker did not come to life there. True: the node has just become a bad one, because
  // that was so for several tasks in a row. At most half of the nodes can be bad: what fails
  // everywhere is no node's fault, and its tasks are to fail with their own error.
  bool failed(const std::string& node, const TaskId& task, const std::string& why, Now now);
  void succeeded(const std::string& node);
  bool is_bad(const std::string& node) const { return bad_.contains(node); }
  std::vector<BadNode> bad() const;  // by name
  void forgive() { bad_.clear(); }
  // Bad ones get another chance after a day.
  void tick(Now now);

 private:
  std::set<std::string> seen_;
  std::map<std::string, std::set<TaskId>> failures_;  // since the node's last success
  std::map<std::string, BadNode> bad_;
};

}  // namespace farcall::interchange
