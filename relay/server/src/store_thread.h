// Keeps the store busy on a thread of its own: takes all writes that wait as one commit.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <variant>
#include <vector>

#include "relay/core/core.h"

namespace farcall::relay {

class StoreThread {
 public:
  // Called on the store's thread.
  struct Handlers {
    std::function<void(std::uint64_t ticket)> committed;
    std::function<void(LoadChunk, Result<Bytes>)> chunk_loaded;
    std::function<void(std::uint64_t token, Result<LoadedRows>)> rows_loaded;
    // The disk is full, or refuses: the same is tried again until it is committed.
    std::function<void(Error)> stuck;
    std::function<void(Error)> failed;  // nothing is written after this
  };
  StoreThread(std::unique_ptr<Store> store, Handlers handlers);
  // Writes what waits if the disk takes it, then ends.
  ~StoreThread();

  void commit(std::uint64_t ticket, std::vector<Write> writes);
  void load(LoadChunk what);
  void load(LoadRows what);

 private:
  struct Commit {
    std::uint64_t ticket;
    std::vector<Write> writes;
  };
  using Job = std::variant<Commit, LoadChunk, LoadRows>;
  void push(Job job);
  void run();
  // False: the store failed.
  bool run_jobs(std::deque<Job> jobs);
  bool flush(Commit& batch);

  std::unique_ptr<Store> store_;
  Handlers handlers_;
  std::mutex mutex_;  // of the two below
  std::deque<Job> jobs_;
  bool ending_ = false;
  std::condition_variable changed_;
  std::thread thread_;
};

}  // namespace farcall::relay
