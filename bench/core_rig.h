// The interchange's core between a relay and pilots that answer at once: what placing and
// completing a task costs, with nothing else in the way. Used by the benchmarks and by the guard of
// instruction counts.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "interchange/core/core.h"

namespace farcall::bench {

struct CoreRigOptions {
  std::uint32_t pilots = 1;
  std::uint32_t slots = 128;       // of each
  std::uint64_t window = 100'000;  // tasks that the core takes from the relay
  std::int64_t prefetch = -1;      // as in interchange::Settings
};

class CoreRig {
 public:
  explicit CoreRig(CoreRigOptions options);

  // `count` no-op tasks in one submission, as the relay delivers them.
  void deliver(std::uint32_t count);
  // Runs until every delivered task has ended and its outcome is acknowledged; how many there were.
  std::uint64_t run();
  // One turn: what is asked for is done, every dispatched task is answered.
  bool turn();

  const interchange::Core& core() const { return *core_; }
  std::uint64_t completed() const { return completed_; }
  std::uint64_t messages() const { return messages_; }  // to and from pilots

 private:
  void handle(interchange::Effect& effect);
  void answer(interchange::PeerId peer, const wire::Message& message);

  CoreRigOptions options_;
  Now now_;
  std::unique_ptr<interchange::Core> core_;
  std::uint64_t completed_ = 0, messages_ = 0, next_batch_ = 0, submissions_ = 0;
  struct Answer {
    interchange::PeerId peer;
    wire::Message message;
  };
  std::vector<Answer> answers_;
  std::vector<wire::Message> from_relay_;
  FunctionId function_;
  EndpointId endpoint_;
};

}  // namespace farcall::bench
