#include "pilot/runners/poller.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/error.h"

namespace farcall::pilot {

namespace {
int checked(int result, const char* what) {
  FARCALL_CHECK(result >= 0, std::string(what) + ": " + std::strerror(errno));
  return result;
}
void watch(int epoll, int operation, int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  checked(epoll_ctl(epoll, operation, fd, &event), "epoll_ctl");
}
}  // namespace

Poller::Poller() {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGCHLD);
  pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  epoll_ = checked(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  signals_ = checked(signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK), "signalfd");
  timer_ = checked(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), "timerfd_create");
  watch(epoll_, EPOLL_CTL_ADD, signals_, EPOLLIN);
  watch(epoll_, EPOLL_CTL_ADD, timer_, EPOLLIN);
}

Poller::~Poller() {
  close(timer_);
  close(signals_);
  close(epoll_);
}

void Poller::add(int fd, Ready ready) {
  fds_[fd] = std::make_shared<Ready>(std::move(ready));
  watch(epoll_, EPOLL_CTL_ADD, fd, EPOLLIN);
}

void Poller::want_write(int fd, bool wanted) {
  watch(epoll_, EPOLL_CTL_MOD, fd, EPOLLIN | (wanted ? EPOLLOUT : 0u));
}

void Poller::remove(int fd) {
  if (fds_.erase(fd) > 0) epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
}

void Poller::dispatch(Duration limit) {
  std::array<epoll_event, 64> events;
  const auto limit_ms = std::chrono::duration_cast<std::chrono::milliseconds>(limit).count();
  const int count = epoll_wait(epoll_, events.data(), events.size(), static_cast<int>(limit_ms));
  bool children = false, timers = false;
  for (int i = 0; i < count; ++i) {
    const int fd = events[i].data.fd;
    if (fd == signals_) {
      children = true;
    } else if (fd == timer_) {
      timers = true;
    } else if (auto found = fds_.find(fd); found != fds_.end()) {
      // Kept alive: the callback may remove itself.
      const std::shared_ptr<Ready> ready = found->second;
      const auto flags = events[i].events;
      (*ready)((flags & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0, (flags & EPOLLOUT) != 0);
    }
  }
  // What children wrote before they ended is read first.
  if (children) reap();
  if (timers) run_timers();
}

void Poller::reap() {
  signalfd_siginfo info;
  while (read(signals_, &info, sizeof info) > 0) {
  }
  for (;;) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0) return;
    auto found = children_.find(pid);
    if (found == children_.end()) continue;  // adopted, or nobody asked
    auto action = std::move(found->second);
    children_.erase(found);
    action(status);
  }
}

void Poller::on_exit(pid_t pid, std::function<void(int)> action) {
  children_[pid] = std::move(action);
}

Poller::TimerId Poller::after(Duration delay, std::function<void()> action) {
  const TimerId id = ++last_timer_;
  const MonoTime at = read_clock().mono + delay;
  timers_.emplace(std::make_pair(at, id), std::move(action));
  due_.emplace(id, at);
  arm();
  return id;
}

void Poller::cancel(TimerId id) {
  auto found = due_.find(id);
  if (found == due_.end()) return;
  timers_.erase({found->second, id});
  due_.erase(found);
  arm();
}

void Poller::run_timers() {
  std::uint64_t expirations = 0;
  [[maybe_unused]] auto ignored = read(timer_, &expirations, sizeof expirations);
  const MonoTime now = read_clock().mono;
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    auto action = std::move(timers_.begin()->second);
    due_.erase(timers_.begin()->first.second);
    timers_.erase(timers_.begin());
    action();
  }
  arm();
}

void Poller::arm() {
  itimerspec spec{};
  if (!timers_.empty()) {
    const auto at = std::max<std::int64_t>(timers_.begin()->first.first.since_start.count(), 1);
    spec.it_value.tv_sec = at / 1'000'000'000;
    spec.it_value.tv_nsec = at % 1'000'000'000;
  }
  timerfd_settime(timer_, TFD_TIMER_ABSTIME, &spec, nullptr);
}

}  // namespace farcall::pilot
