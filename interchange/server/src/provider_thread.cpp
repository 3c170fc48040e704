#include "provider_thread.h"

namespace farcall::interchange {

ProviderThread::ProviderThread(wire::Loop& loop, std::unique_ptr<providers::Provider> provider)
    : loop_(loop), provider_(std::move(provider)) {
  thread_ = std::thread([this] { run(); });
}

ProviderThread::~ProviderThread() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void ProviderThread::put(Call call) {
  {
    std::lock_guard lock(mutex_);
    calls_.push_back(std::move(call));
  }
  wake_.notify_one();
}

void ProviderThread::run() {
  while (true) {
    Call call;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !calls_.empty(); });
      if (stopping_) return;
      call = std::move(calls_.front());
      calls_.pop_front();
    }
    loop_.post(call(*provider_));
  }
}

}  // namespace farcall::interchange
