// The journal on a thread of its own: everything that waits goes into one transaction.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "interchange/journal/journal.h"
#include "wire/zmq/loop.h"

namespace farcall::interchange {

class JournalThread {
 public:
  JournalThread(wire::Loop& loop, std::unique_ptr<Journal> journal);
  // Writes what waits, then ends.
  ~JournalThread();

  // Writes at once, on the caller's thread: only what needs no sync, and only when nothing is under
  // way. Two changes of threads cost more than such a write. False: not done, use put().
  bool put_now(const std::vector<JournalWrite>& writes);
  // `done` runs on the loop's thread after `writes` are in the journal; in the order of the calls.
  void put(std::vector<JournalWrite> writes, std::function<void()> done);

 private:
  void run();
  bool apply(const std::vector<JournalWrite>& writes);

  wire::Loop& loop_;
  std::unique_ptr<Journal> journal_;  // of the thread while busy_, else guarded by mutex_
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<JournalWrite> writes_;  // guarded by mutex_, like all below
  std::vector<std::function<void()>> done_;
  bool busy_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace farcall::interchange
