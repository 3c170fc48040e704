// A store of files with the one thread that is in it: runs what it is given, in order.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace farcall::blobs {

template <class Store>
class DiskThread {
 public:
  template <class... Args>
  explicit DiskThread(Args&&... args) : store_(std::forward<Args>(args)...) {}
  // What has not begun is not done any more.
  ~DiskThread() {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
    }
    changed_.notify_one();
    if (thread_.joinable()) thread_.join();
  }
  DiskThread(const DiskThread&) = delete;

  // Before start() only.
  Store& store() { return store_; }
  void start() {
    thread_ = std::thread([this] { run(); });
  }
  // Any thread.
  void put(std::function<void(Store&)> job) {
    {
      std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
    }
    changed_.notify_one();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
      if (ending_) return;
      auto job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job(store_);
      job = nullptr;
      lock.lock();
    }
  }

  Store store_;
  std::mutex mutex_;  // of the two below
  std::deque<std::function<void(Store&)>> jobs_;
  bool ending_ = false;
  std::condition_variable changed_;
  std::thread thread_;
};

}  // namespace farcall::blobs
