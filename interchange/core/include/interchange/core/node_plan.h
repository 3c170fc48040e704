// What a node will have to give and when, as far as walltimes tell. Pure arithmetic.
#pragma once

#include <set>
#include <vector>

#include "base/clock.h"
#include "interchange/core/fit.h"

namespace farcall::interchange {

// Parts of a node that a task has, or will have.
struct Hold {
  MonoTime from;
  MonoTime until = MonoTime::max();  // at the latest; max: not known
  std::uint64_t slots = 0;
  std::uint32_t gpus = 0;
  std::uint64_t memory_mib = 0;
};

class NodePlan {
 public:
  // `ends`: of the allocation.
  NodePlan(Room whole, MonoTime ends) : whole_(whole), ends_(ends) {}

  void hold(const Hold& hold) { holds_.push_back(hold); }
  // What is free during all of [from, until). Nothing where the allocation ends before.
  Room least(MonoTime from, MonoTime until) const;
  // When something comes free, as far as that is known.
  void add_times(std::set<MonoTime>& times) const;

 private:
  Room at(MonoTime time) const;

  Room whole_;
  MonoTime ends_;
  std::vector<Hold> holds_;
};

}  // namespace farcall::interchange
