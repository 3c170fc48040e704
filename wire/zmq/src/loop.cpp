#include "wire/zmq/loop.h"

#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <mutex>
#include <set>
#include <vector>
#include <zmq.hpp>

#include "base/error.h"

namespace farcall::wire {

namespace {
// A turn that took this much longer than it was allowed to sleep means that the process itself was
// stopped (SIGSTOP, a suspended machine): that time does not count against anybody.
constexpr Duration kStall = std::chrono::milliseconds(500);

struct Source {
  void* socket = nullptr;  // ZeroMQ, else `fd`
  int fd = -1;
  std::function<void()> action;
};
}  // namespace

struct Loop::Impl {
  zmq::context_t context;
  std::vector<std::shared_ptr<Source>> sources;
  std::map<std::pair<MonoTime, TimerId>, std::function<void()>> timers;
  std::map<TimerId, MonoTime> timer_times;
  TimerId last_timer = 0;
  std::vector<std::function<void()>> each_turn;
  Now now = read_clock();
  Duration stalled{0};
  int signal_fd = -1;
  int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

  std::mutex mutex;
  std::vector<std::function<void()>> posted;  // guarded by mutex
  bool stopping = false;                      // guarded by mutex

  Duration time_to_next_timer(Duration limit) const {
    if (timers.empty()) return limit;
    return std::clamp(timers.begin()->first.first - now.mono, Duration(0), limit);
  }
  void read_time(MonoTime before, Duration allowed) {
    now = read_clock();
    const Duration took = (now.mono - before) - stalled;
    if (took > allowed + kStall) stalled += took - allowed;
    now.mono.since_start -= stalled;
  }
  void wait_and_dispatch(Duration limit);
  void run_posted();
  void run_timers();
};

Loop::Loop() : impl_(std::make_unique<Impl>()) {
  impl_->context.set(zmq::ctxopt::blocky, false);
  FARCALL_CHECK(impl_->wake_fd >= 0, "eventfd");
  add_fd(impl_->wake_fd, [this] {
    std::uint64_t count = 0;
    (void)!read(impl_->wake_fd, &count, sizeof count);
  });
}

Loop::~Loop() {
  close(impl_->wake_fd);
  if (impl_->signal_fd >= 0) close(impl_->signal_fd);
}

zmq::context_t& Loop::context() { return impl_->context; }
const Now& Loop::now() const { return impl_->now; }

void Loop::add_fd(int fd, std::function<void()> readable) {
  impl_->sources.push_back(std::make_shared<Source>(Source{nullptr, fd, std::move(readable)}));
}
void Loop::remove_fd(int fd) {
  std::erase_if(impl_->sources, [fd](const auto& s) { return !s->socket && s->fd == fd; });
}
void Loop::add_socket(void* handle, std::function<void()> drain) {
  impl_->sources.push_back(std::make_shared<Source>(Source{handle, -1, std::move(drain)}));
}
void Loop::remove_socket(void* handle) {
  std::erase_if(impl_->sources, [handle](const auto& s) { return s->socket == handle; });
}

Loop::TimerId Loop::at(MonoTime at, std::function<void()> action) {
  const TimerId id = ++impl_->last_timer;
  impl_->timers.emplace(std::pair(at, id), std::move(action));
  impl_->timer_times.emplace(id, at);
  return id;
}
Loop::TimerId Loop::after(Duration delay, std::function<void()> action) {
  // Measured from now and not from the start of the turn, which may be long ago for a caller that
  // turns the loop itself.
  const MonoTime start{read_clock().mono.since_start - impl_->stalled};
  return at(start + delay, std::move(action));
}
void Loop::cancel_timer(TimerId id) {
  auto found = impl_->timer_times.find(id);
  if (found == impl_->timer_times.end()) return;
  impl_->timers.erase({found->second, id});
  impl_->timer_times.erase(found);
}
void Loop::after_each_turn(std::function<void()> action) {
  impl_->each_turn.push_back(std::move(action));
}

void Loop::post(std::function<void()> action) {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->posted.push_back(std::move(action));
  }
  const std::uint64_t one = 1;
  (void)!write(impl_->wake_fd, &one, sizeof one);
}

void Loop::stop() {
  post([this] {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  });
}

void Loop::run() {
  while (true) {
    {
      std::lock_guard lock(impl_->mutex);
      if (impl_->stopping) {
        impl_->stopping = false;
        return;
      }
    }
    run_once(std::chrono::seconds(60));
  }
}

void Loop::Impl::wait_and_dispatch(Duration limit) {
  std::vector<std::shared_ptr<Source>> polled = sources;
  std::vector<zmq::pollitem_t> items;
  items.reserve(polled.size());
  for (const auto& source : polled) items.push_back({source->socket, source->fd, ZMQ_POLLIN, 0});
  const Duration sleep = time_to_next_timer(limit);
  // Rounded up, so that a timer is due when the poll returns.
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(sleep);
  const MonoTime before = read_clock().mono;
  try {
    zmq::poll(items, milliseconds);
  } catch (const zmq::error_t& error) {
    FARCALL_CHECK(error.num() == EINTR, error.what());
    for (auto& item : items) item.revents = 0;
  }
  read_time({before.since_start - stalled}, milliseconds);
  for (std::size_t i = 0; i < items.size(); ++i) {
    if ((items[i].revents & (ZMQ_POLLIN | ZMQ_POLLERR)) == 0) continue;
    // A callback before this one may have removed it.
    if (std::find(sources.begin(), sources.end(), polled[i]) == sources.end()) continue;
    polled[i]->action();
  }
}

void Loop::Impl::run_posted() {
  std::vector<std::function<void()>> actions;
  {
    std::lock_guard lock(mutex);
    actions.swap(posted);
  }
  for (auto& action : actions) action();
}

void Loop::Impl::run_timers() {
  // Only those due now: a timer that sets itself again at once must not keep the inputs waiting.
  const TimerId newest = last_timer;
  while (!timers.empty()) {
    auto first = timers.begin();
    if (first->first.first > now.mono || first->first.second > newest) return;
    auto action = std::move(first->second);
    timer_times.erase(first->first.second);
    timers.erase(first);
    action();
  }
}

void Loop::run_once(Duration limit) {
  impl_->wait_and_dispatch(limit);
  impl_->run_posted();
  impl_->run_timers();
  for (std::size_t i = 0; i < impl_->each_turn.size(); ++i) impl_->each_turn[i]();
}

void Loop::on_signals(std::function<void(int)> action) {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  impl_->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  FARCALL_CHECK(impl_->signal_fd >= 0, "signalfd");
  add_fd(impl_->signal_fd, [this, action = std::move(action)] {
    signalfd_siginfo info;
    while (read(impl_->signal_fd, &info, sizeof info) == sizeof info)
      action(static_cast<int>(info.ssi_signo));
  });
}

}  // namespace farcall::wire
