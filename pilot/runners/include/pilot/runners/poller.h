// A small epoll of the runners' own: readable and writable descriptors, timers and ended children
// behind one descriptor that any loop can wait for. Not thread-safe.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>

#include "base/clock.h"

namespace farcall::pilot {

class Poller {
 public:
  // Blocks SIGCHLD in this thread: REQUIRES that no other thread is started before, and that nobody
  // else in the process waits for children. All children are reaped here, adopted ones included.
  Poller();
  ~Poller();
  Poller(const Poller&) = delete;

  // Readable when dispatch() has something to do.
  int fd() const { return epoll_; }
  // Handles what is ready, waiting at most `limit` for the first.
  void dispatch(Duration limit = Duration{0});

  using Ready = std::function<void(bool readable, bool writable)>;
  void add(int fd, Ready ready);
  void want_write(int fd, bool wanted);
  void remove(int fd);

  // `status` as wait(2) gives it. Once.
  void on_exit(pid_t pid, std::function<void(int status)> action);
  bool is_ours(pid_t pid) const { return children_.contains(pid); }

  using TimerId = std::uint64_t;
  TimerId after(Duration delay, std::function<void()> action);
  void cancel(TimerId id);

 private:
  void reap();
  void run_timers();
  void arm();

  int epoll_ = -1, signals_ = -1, timer_ = -1;
  std::map<int, std::shared_ptr<Ready>> fds_;
  std::map<pid_t, std::function<void(int)>> children_;
  std::map<std::pair<MonoTime, TimerId>, std::function<void()>> timers_;
  std::map<TimerId, MonoTime> due_;
  TimerId last_timer_ = 0;
};

}  // namespace farcall::pilot
