#include "relay/server/server.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "wire/zmq/listener.h"

namespace farcall::relay {

namespace {

constexpr Duration kRetryCommit = std::chrono::seconds(1);

// Takes all writes that wait as one transaction, and answers reads in between. While one
// transaction is being synced the loop collects the next: that is the group commit.
class StoreThread {
 public:
  StoreThread(wire::Loop& loop, std::unique_ptr<Store> store) : loop_(loop), store_(std::move(store)) {
    thread_ = std::thread([this] { run(); });
  }
  ~StoreThread() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  std::function<void(std::uint64_t)> on_committed;  // on the loop's thread
  std::function<void(ReadAnswer)> on_answer;        // likewise

  void put(Effects& effects) {
    {
      std::lock_guard lock(mutex_);
      if (effects.commit != 0) {
        for (Write& write : effects.writes) writes_.push_back(std::move(write));
        commit_ = effects.commit;
      }
      for (Read& read : effects.reads) reads_.push_back(std::move(read));
    }
    wake_.notify_one();
  }

 private:
  void run() {
    while (true) {
      std::vector<Write> writes;
      std::deque<Read> reads;
      std::uint64_t commit = 0;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return stopping_ || !writes_.empty() || !reads_.empty(); });
        if (stopping_ && writes_.empty()) return;
        writes.swap(writes_);
        reads.swap(reads_);
        commit = commit_;
      }
      if (!writes.empty() && !commit_all(writes, commit)) return;
      for (Read& read : reads) answer(read);
    }
  }

  // Nothing is acknowledged until it succeeds, so trying again loses nothing.
  bool commit_all(const std::vector<Write>& writes, std::uint64_t commit) {
    while (true) {
      auto done = store_->apply(writes);
      if (done) break;
      log_error("nothing can be recorded, trying again every second: {}", done.error().message);
      std::unique_lock lock(mutex_);
      if (wake_.wait_for(lock, kRetryCommit, [this] { return stopping_; })) return false;
    }
    loop_.post([this, commit] { on_committed(commit); });
    return true;
  }

  void answer(const Read& read) {
    ReadAnswer result;
    result.id = read.id;
    if (const auto* body = std::get_if<ReadBody>(&read.what)) {
      result.bytes = store_->read_function_body(body->function);
    } else if (const auto* chunk = std::get_if<ReadChunk>(&read.what)) {
      result.bytes = store_->read_chunk(chunk->submission, chunk->first);
    } else {
      const auto& outcomes = std::get<ReadOutcomes>(read.what);
      result.rows = store_->read_outcomes(outcomes.submission, outcomes.wanted, outcomes.bytes_max);
    }
    loop_.post([this, result = std::make_shared<ReadAnswer>(std::move(result))] { on_answer(std::move(*result)); });
  }

  wire::Loop& loop_;
  std::unique_ptr<Store> store_;  // of the thread
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Write> writes_;   // guarded by mutex_, like all below
  std::deque<Read> reads_;
  std::uint64_t commit_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace

struct Server::Impl {
  wire::Loop& loop;
  std::unique_ptr<wire::Listener> listener;
  std::optional<Relay> core;
  std::unique_ptr<StoreThread> store;
  wire::Loop::TimerId timer = 0;

  explicit Impl(wire::Loop& l) : loop(l) {}

  void perform() {
    Effects effects = core->take_effects();
    if (effects.commit != 0 || !effects.reads.empty()) store->put(effects);
    for (auto& [peer, message] : effects.send) listener->send(peer, message);
    for (auto& [peer, error] : effects.refuse) listener->refuse(peer, error);
    for (auto& [peer, reason] : effects.reset) listener->reset(peer, reason);
    if (timer != 0) loop.cancel_timer(timer);
    timer = loop.at(core->next_tick(), [this] {
      timer = 0;
      core->tick(loop.now());
      perform();
    });
  }
};

Result<std::unique_ptr<Server>> Server::open(wire::Loop& loop, ServerOptions options, std::unique_ptr<Store> store,
                                             Contents contents) {
  auto impl = std::make_unique<Impl>(loop);
  Impl* raw = impl.get();
  wire::ListenerHandlers handlers;
  handlers.on_hello = [raw](wire::PeerId peer, const std::string& key, const wire::Message& message) {
    raw->core->hello(raw->loop.now(), peer, key, message);
    raw->perform();
  };
  handlers.on_message = [raw](wire::PeerId peer, const wire::Message& message) {
    raw->core->message(raw->loop.now(), peer, message);
    raw->perform();
  };
  handlers.on_gone = [raw](wire::PeerId peer) {
    raw->core->gone(raw->loop.now(), peer);
    raw->perform();
  };
  auto listener = wire::Listener::open(loop, {.address = options.listen, .keys = options.keys}, handlers);
  if (!listener) return fail(listener.error());
  raw->listener = std::move(*listener);
  options.settings.address = raw->listener->address();
  options.settings.server_key = options.keys.public_key;
  raw->core.emplace(options.settings, std::move(contents), Rng::from_entropy());
  raw->store = std::make_unique<StoreThread>(loop, std::move(store));
  raw->store->on_committed = [raw](std::uint64_t commit) {
    raw->core->committed(raw->loop.now(), commit);
    raw->perform();
  };
  raw->store->on_answer = [raw](ReadAnswer answer) {
    raw->core->answered(raw->loop.now(), std::move(answer));
    raw->perform();
  };
  raw->perform();
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() {
  if (impl_->timer != 0) impl_->loop.cancel_timer(impl_->timer);
}
const std::string& Server::address() const { return impl_->listener->address(); }

}  // namespace farcall::relay
