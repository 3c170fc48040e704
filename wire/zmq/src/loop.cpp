#include "wire/zmq/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
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
  void* socket = nullptr;  // ZeroMQ, whose descriptor `fd` then is
  int fd = -1;
  std::function<void()> readable;
  std::function<std::size_t()> drain;
  // The descriptor of a ZeroMQ socket tells of changes, not of input: what a send or an unfinished
  // drain has left behind is not told again.
  bool due = true;
  bool removed = false;
  bool paused = false;
};

int descriptor_of(void* socket) {
  int fd = -1;
  std::size_t size = sizeof fd;
  FARCALL_CHECK(zmq_getsockopt(socket, ZMQ_FD, &fd, &size) == 0, "a ZeroMQ socket's descriptor");
  return fd;
}
}  // namespace

struct Loop::Impl {
  zmq::context_t context;
  int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  std::vector<std::unique_ptr<Source>> sources;
  std::vector<std::unique_ptr<Source>> removed;  // until the end of the turn
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
  void add(std::unique_ptr<Source> source);
  Source* find_fd(int fd);
  void set_paused(Source& source, bool paused);
  template <class Matches>
  void remove(Matches&& matches);
  void run(Source& source);
  bool drain_due();
  void wait_and_dispatch(Duration limit);
  void run_posted();
  void run_timers();
};

void Loop::Impl::add(std::unique_ptr<Source> source) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = source.get();
  FARCALL_CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, source->fd, &event) == 0,
                std::string("epoll_ctl: ") + std::strerror(errno));
  sources.push_back(std::move(source));
}

Source* Loop::Impl::find_fd(int fd) {
  for (auto& source : sources)
    if (!source->socket && source->fd == fd) return source.get();
  return nullptr;
}

void Loop::Impl::set_paused(Source& source, bool paused) {
  epoll_event event{};
  event.events = paused ? 0U : static_cast<std::uint32_t>(EPOLLIN);
  event.data.ptr = &source;
  FARCALL_CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_MOD, source.fd, &event) == 0,
                std::string("epoll_ctl: ") + std::strerror(errno));
  source.paused = paused;
}

template <class Matches>
void Loop::Impl::remove(Matches&& matches) {
  for (auto source = sources.begin(); source != sources.end();) {
    if (!matches(**source)) {
      ++source;
      continue;
    }
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, (*source)->fd, nullptr);
    (*source)->removed = true;
    removed.push_back(std::move(*source));
    source = sources.erase(source);
  }
}

Loop::Loop() : impl_(std::make_unique<Impl>()) {
  impl_->context.set(zmq::ctxopt::blocky, false);
  FARCALL_CHECK(impl_->wake_fd >= 0 && impl_->epoll_fd >= 0, "eventfd or epoll_create1");
  add_fd(impl_->wake_fd, [this] {
    std::uint64_t count = 0;
    (void)!read(impl_->wake_fd, &count, sizeof count);
  });
}

Loop::~Loop() {
  close(impl_->wake_fd);
  close(impl_->epoll_fd);
  if (impl_->signal_fd >= 0) close(impl_->signal_fd);
}

zmq::context_t& Loop::context() { return impl_->context; }
const Now& Loop::now() const { return impl_->now; }

void Loop::add_fd(int fd, std::function<void()> readable) {
  auto source = std::make_unique<Source>();
  source->fd = fd;
  source->readable = std::move(readable);
  source->due = false;
  impl_->add(std::move(source));
}
void Loop::remove_fd(int fd) {
  impl_->remove([fd](const Source& s) { return !s.socket && s.fd == fd; });
}
void Loop::pause_fd(int fd, Duration pause) {
  Source* source = impl_->find_fd(fd);
  if (source == nullptr || source->paused) return;
  impl_->set_paused(*source, true);
  after(pause, [this, fd] {
    Source* resting = impl_->find_fd(fd);
    if (resting != nullptr && resting->paused) impl_->set_paused(*resting, false);
  });
}
void Loop::add_socket(void* handle, std::function<std::size_t()> drain) {
  auto source = std::make_unique<Source>();
  source->socket = handle;
  source->fd = descriptor_of(handle);
  source->drain = std::move(drain);
  impl_->add(std::move(source));
}
void Loop::touched(void* handle) {
  for (auto& source : impl_->sources)
    if (source->socket == handle) source->due = true;
}
void Loop::remove_socket(void* handle) {
  impl_->remove([handle](const Source& s) { return s.socket == handle; });
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
    if (impl_->posted.size() > 1) return;  // the first one has woken it
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

// True: there was input.
bool Loop::Impl::drain_due() {
  bool any = false;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    Source& source = *sources[i];
    if (!std::exchange(source.due, false)) continue;
    const std::size_t messages = source.drain();
    any = any || messages > 0;
    source.due = source.due || messages >= kDrainMax;
  }
  return any;
}

void Loop::Impl::run(Source& source) {
  if (source.removed) return;  // by a callback before this one
  if (!source.socket) return source.readable();
  source.due = false;
  if (source.drain() >= kDrainMax) source.due = true;
}

void Loop::Impl::wait_and_dispatch(Duration limit) {
  const Duration sleep = drain_due() ? Duration(0) : time_to_next_timer(limit);
  // Rounded up, so that a timer is due when the wait returns.
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(sleep);
  const MonoTime before = read_clock().mono;
  std::array<epoll_event, 64> events;
  const int count = epoll_wait(epoll_fd, events.data(), static_cast<int>(events.size()),
                               static_cast<int>(milliseconds.count()));
  FARCALL_CHECK(count >= 0 || errno == EINTR, std::string("epoll_wait: ") + std::strerror(errno));
  read_time({before.since_start - stalled}, milliseconds);
  for (int i = 0; i < count; ++i)
    run(*static_cast<Source*>(events[static_cast<std::size_t>(i)].data.ptr));
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
  impl_->removed.clear();
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
