// The one event loop of every program: sockets, file descriptors, timers and work posted from other
// threads, all handled on the thread that calls run().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/clock.h"

namespace zmq {
class context_t;
}

namespace farcall::wire {

class Loop {
 public:
  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // One context, hence one set of I/O threads, per loop.
  zmq::context_t& context();

  // Called when `fd` is readable (level-triggered). Removing inside a callback is fine.
  void add_fd(int fd, std::function<void()> readable);
  void remove_fd(int fd);
  // Leaves it alone for so long: what comes meanwhile is handled together, with one wake-up.
  void pause_fd(int fd, Duration pause);
  // `drain` is called whenever the ZeroMQ socket behind `handle` may have input. It reads until
  // there is none or it has read kDrainMax messages, and says how many. For Dialer and Listener.
  static constexpr std::size_t kDrainMax = 256;
  void add_socket(void* handle, std::function<std::size_t()> drain);
  // To be called after each send: sending takes notice of input, which is then not told again.
  void touched(void* handle);
  void remove_socket(void* handle);

  // Once, not before `at`. Inputs that are waiting are handled before any timer, so that a process
  // that was stopped and goes on does not accuse those who wrote to it meanwhile.
  using TimerId = std::uint64_t;
  TimerId at(MonoTime at, std::function<void()> action);
  TimerId after(Duration delay, std::function<void()> action);
  void cancel_timer(TimerId id);
  // After all inputs of a turn of the loop, before it sleeps: for what is worth collecting.
  void after_each_turn(std::function<void()> action);

  // From any thread, also from a signal-handling thread: runs `action` on the loop.
  void post(std::function<void()> action);

  // Until stop(). Time is read once per turn.
  void run();
  // One turn, waiting at most `limit`. For tests and for callers with a loop of their own.
  void run_once(Duration limit);
  void stop();  // from any thread
  // As of this turn.
  const Now& now() const;

  // SIGTERM, SIGINT (and SIGHUP) call `action` on the loop. REQUIRES: called before any thread is
  // started, so that the signals are blocked in all of them.
  void on_signals(std::function<void(int)> action);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace farcall::wire
