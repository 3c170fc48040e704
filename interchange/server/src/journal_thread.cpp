#include "journal_thread.h"

#include "base/log.h"

namespace farcall::interchange {

namespace {
constexpr Duration kRetry = std::chrono::seconds(1);
}

JournalThread::JournalThread(wire::Loop& loop, std::unique_ptr<Journal> journal)
    : loop_(loop), journal_(std::move(journal)) {
  thread_ = std::thread([this] { run(); });
}

JournalThread::~JournalThread() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void JournalThread::put(std::vector<JournalWrite> writes, std::function<void()> done) {
  {
    std::lock_guard lock(mutex_);
    for (JournalWrite& write : writes) writes_.push_back(std::move(write));
    done_.push_back(std::move(done));
  }
  wake_.notify_one();
}

bool JournalThread::put_now(const std::vector<JournalWrite>& writes) {
  for (const JournalWrite& write : writes)
    if (Journal::needs_sync(write)) return false;
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock || busy_ || !done_.empty()) return false;
  return journal_->apply(writes).has_value();  // put() tells of what is wrong, and tries again
}

void JournalThread::run() {
  while (true) {
    std::vector<JournalWrite> writes;
    std::vector<std::function<void()>> done;
    {
      std::unique_lock lock(mutex_);
      busy_ = false;
      wake_.wait(lock, [this] { return stopping_ || !done_.empty(); });
      if (done_.empty()) return;
      busy_ = true;
      writes.swap(writes_);
      done.swap(done_);
    }
    if (!writes.empty() && !apply(writes)) return;
    loop_.post([done = std::move(done)] {
      for (const auto& action : done) action();
    });
  }
}

// What waits for it is told to nobody meanwhile, so trying again loses nothing.
bool JournalThread::apply(const std::vector<JournalWrite>& writes) {
  while (true) {
    auto applied = journal_->apply(writes);
    if (applied) return true;
    log_error("the journal cannot be written, trying again every second: {}",
              applied.error().message);
    std::unique_lock lock(mutex_);
    if (wake_.wait_for(lock, kRetry, [this] { return stopping_; })) return false;
  }
}

}  // namespace farcall::interchange
