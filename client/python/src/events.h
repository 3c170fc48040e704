// What the client's I/O thread has to say, kept until the Python thread that serves futures takes
// it: the I/O thread never waits for the interpreter lock, and one wait for it serves a whole
// batch.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <variant>
#include <vector>

#include "farcall/client.h"

namespace farcall::python {

using Event = std::variant<OutcomeBatch, SubmissionProgress, TaskNotes>;

// Thread-safe. Unbounded by itself: a queued OutcomeBatch holds its lease, which bounds it.
class EventQueue {
 public:
  void push(Event event) {
    {
      std::lock_guard lock(mutex_);
      if (closed_) return;
      // Notes are for whoever keeps up.
      if (std::holds_alternative<TaskNotes>(event) && events_.size() >= kNotesBehindMax) return;
      events_.push_back(std::move(event));
    }
    changed_.notify_one();
  }

  // Everything there is, after waiting for the first at most `timeout`; empty after close().
  std::vector<Event> take(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, timeout, [this] { return closed_ || !events_.empty(); });
    return std::exchange(events_, {});
  }

  void close() {
    std::vector<Event> dropped;  // their leases call back into the client: not under the lock
    {
      std::lock_guard lock(mutex_);
      closed_ = true;
      dropped.swap(events_);
    }
    changed_.notify_all();
  }

  bool closed() {
    std::lock_guard lock(mutex_);
    return closed_;
  }

 private:
  static constexpr std::size_t kNotesBehindMax = 1000;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Event> events_;
  bool closed_ = false;
};

}  // namespace farcall::python
