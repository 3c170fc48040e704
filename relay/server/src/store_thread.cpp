#include "store_thread.h"

namespace farcall::relay {

namespace {
constexpr std::chrono::seconds kTryAgainAfter{1};
}

StoreThread::StoreThread(std::unique_ptr<Store> store, Handlers handlers)
    : store_(std::move(store)), handlers_(std::move(handlers)), thread_([this] { run(); }) {}

StoreThread::~StoreThread() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void StoreThread::push(Job job) {
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
}
void StoreThread::commit(std::uint64_t ticket, std::vector<Write> writes) {
  push(Commit{ticket, std::move(writes)});
}
void StoreThread::load(LoadChunk what) { push(what); }
void StoreThread::load(LoadRows what) { push(std::move(what)); }

void StoreThread::run() {
  while (true) {
    std::deque<Job> jobs;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      jobs.swap(jobs_);
    }
    if (!run_jobs(std::move(jobs))) return;
  }
}

// All writes first, in one transaction: a load asks for what was written before it, and may see
// what was written since.
bool StoreThread::run_jobs(std::deque<Job> jobs) {
  Commit batch{0, {}};
  for (Job& job : jobs)
    if (auto* commit = std::get_if<Commit>(&job)) {
      batch.ticket = commit->ticket;
      batch.writes.insert(batch.writes.end(), std::make_move_iterator(commit->writes.begin()),
                          std::make_move_iterator(commit->writes.end()));
    }
  if (batch.ticket != 0 && !flush(batch)) return false;
  for (Job& job : jobs) {
    if (auto* chunk = std::get_if<LoadChunk>(&job))
      handlers_.chunk_loaded(*chunk, store_->load_chunk(chunk->submission, chunk->first));
    if (auto* rows = std::get_if<LoadRows>(&job))
      handlers_.rows_loaded(rows->token, store_->load_rows(rows->submission, rows->wanted,
                                                           rows->after_seq, rows->bytes_max));
  }
  return true;
}

bool StoreThread::flush(Commit& batch) {
  while (true) {
    Result<void> done = store_->commit(batch.writes);
    if (done) {
      handlers_.committed(batch.ticket);
      return true;
    }
    if (done.error().code != ErrorCode::kIo) {
      handlers_.failed(done.error());
      return false;
    }
    handlers_.stuck(done.error());
    std::unique_lock lock(mutex_);
    if (changed_.wait_for(lock, kTryAgainAfter, [this] { return ending_; })) return false;
  }
}

}  // namespace farcall::relay
