// The scheduler's commands, one after the other on a thread of their own: the loop never waits for
// them, and the scheduler never gets two at once from us.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "providers/provider.h"
#include "wire/zmq/loop.h"

namespace farcall::interchange {

class ProviderThread {
 public:
  ProviderThread(wire::Loop& loop, std::unique_ptr<providers::Provider> provider);
  // Waits for the command that runs; those that wait are dropped.
  ~ProviderThread();

  // `call` runs on the thread; what it returns runs on the loop.
  using Call = std::function<std::function<void()>(providers::Provider&)>;
  void put(Call call);

 private:
  void run();

  wire::Loop& loop_;
  std::unique_ptr<providers::Provider> provider_;  // of the thread
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Call> calls_;  // guarded by mutex_
  bool stopping_ = false;   // guarded by mutex_
  std::thread thread_;
};

}  // namespace farcall::interchange
