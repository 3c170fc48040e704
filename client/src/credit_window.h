// How much the relay may send us, from what has arrived and what has been consumed. Pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "wire/messages.h"

namespace farcall::client {

class CreditWindow {
 public:
  CreditWindow(std::uint64_t tasks, std::uint64_t bytes) : tasks_{tasks}, bytes_{bytes} {}

  // A new session: its counters start again, but what is not consumed yet still takes its memory.
  void restart() {
    tasks_.restart();
    bytes_.restart();
  }
  void receive(std::uint64_t tasks, std::uint64_t bytes) {
    tasks_.receive(tasks);
    bytes_.receive(bytes);
  }
  void release(std::uint64_t tasks, std::uint64_t bytes) {
    tasks_.release(tasks);
    bytes_.release(bytes);
  }
  // What to tell the relay, when it is worth a message.
  std::optional<wire::Credit> take_grant() {
    if (!tasks_.worth_telling() && !bytes_.worth_telling()) return std::nullopt;
    return wire::Credit{tasks_.tell(), bytes_.tell()};
  }

 private:
  struct Counter {
    std::uint64_t window;
    std::uint64_t received = 0;     // in this session
    std::uint64_t outstanding = 0;  // not consumed, of all sessions
    std::uint64_t told = 0;         // in this session

    void restart() { received = told = 0; }
    void receive(std::uint64_t n) {
      received += n;
      outstanding += n;
    }
    void release(std::uint64_t n) { outstanding -= std::min(n, outstanding); }
    std::uint64_t grant() const { return received + window - std::min(window, outstanding); }
    // A quarter of the window at a time: one grant for many small results.
    bool worth_telling() const {
      return grant() > told && (grant() - told >= (window + 3) / 4 || outstanding == 0);
    }
    std::uint64_t tell() { return told = std::max(told, grant()); }
  };
  Counter tasks_;
  Counter bytes_;
};

}  // namespace farcall::client
