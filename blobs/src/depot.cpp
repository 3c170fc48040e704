#include "blobs/depot.h"

#include <deque>
#include <map>
#include <utility>

#include "base/log.h"
#include "blobs/disk_thread.h"
#include "blobs/transfer.h"
#include "wire/codec.h"

namespace farcall::blobs {

namespace {

std::string name_of(const std::string& scope, const std::string& hash) {
  return scope.empty() ? hash : scope + "/" + hash;
}

}  // namespace

struct Depot::Impl {
  struct Peer {
    std::string scope;
    Send send;
    Transfer transfer;
  };
  struct Waiter {
    Source source;
    wire::BlobRef blob;
    Done done;
  };
  // Fetched from one at a time, the source of the first that waits.
  struct Fetch {
    Source source = 0;
    std::deque<Waiter> waiters;
  };
  struct Here {
    std::uint64_t size = 0;
    std::uint64_t used = 0;  // when, as a place in used_
  };

  DepotOptions options;
  Post post;
  std::map<Source, Peer> peers;
  std::map<std::string, Fetch> fetches;  // by name
  std::map<std::string, Here> here;
  std::map<std::uint64_t, std::string> used;
  std::map<std::string, std::uint64_t> pins;
  std::uint64_t last_use = 0, bytes = 0;
  std::shared_ptr<Impl*> self = std::make_shared<Impl*>(this);
  DiskThread<Store> disk;  // last: its thread ends first

  Impl(DepotOptions o, Post p) : options(std::move(o)), post(std::move(p)), disk(options.root) {}
  ~Impl() { *self = nullptr; }

  // `work` on the disk's thread, then `after` on the loop with what it gave.
  template <class Work, class After>
  void on_disk(Work work, After after) {
    disk.put([this_post = post, weak = std::weak_ptr<Impl*>(self), work = std::move(work),
              after = std::move(after)](Store& store) {
      auto result = work(store);
      this_post([weak, after, result = std::move(result)] {
        if (auto alive = weak.lock(); alive && *alive != nullptr) after(**alive, result);
      });
    });
  }
  void later(std::function<void()> action) {
    post([weak = std::weak_ptr<Impl*>(self), action = std::move(action)] {
      if (auto alive = weak.lock(); alive && *alive != nullptr) action();
    });
  }

  void add(const std::string& name, std::uint64_t size);
  void touch(Here& entry, const std::string& name);
  void erase(const std::string& name);
  void make_room(std::uint64_t size);
  void look(Source source, const std::string& name, const wire::BlobRef& blob, Done done);
  void fetch(Source source, const wire::BlobRef& blob, Done done);
  void begin(const std::string& name);
  void ended(const std::string& name, const Result<void>& outcome);
  void perform(Source source);
  void perform(Source source, const std::string& scope, Transfer::Effect& effect);
  template <class F>
  void with(Source source, F&& f) {
    auto found = peers.find(source);
    if (found == peers.end()) return;
    f(found->second.transfer);
    perform(source);
  }
};

// --- what is here --------------------------------------------------------------------------------

void Depot::Impl::touch(Here& entry, const std::string& name) {
  used.erase(entry.used);
  entry.used = ++last_use;
  used[entry.used] = name;
}

void Depot::Impl::add(const std::string& name, std::uint64_t size) {
  auto [entry, is_new] = here.try_emplace(name);
  if (is_new) {
    entry->second.size = size;
    bytes += size;
  }
  touch(entry->second, name);
}

void Depot::Impl::erase(const std::string& name) {
  auto found = here.find(name);
  if (found == here.end()) return;
  bytes -= found->second.size;
  used.erase(found->second.used);
  here.erase(found);
  disk.put([name](Store& store) { store.remove(name); });
}

void Depot::Impl::make_room(std::uint64_t size) {
  if (options.bytes_max == 0) return;
  for (auto next = used.begin(); next != used.end() && bytes + size > options.bytes_max;) {
    const std::string name = next->second;
    ++next;
    if (pins.contains(name)) continue;
    log_debug("blob {} makes room for another one", name);
    erase(name);
  }
}

// --- fetching ------------------------------------------------------------------------------------

void Depot::Impl::begin(const std::string& name) {
  auto found = fetches.find(name);
  if (found == fetches.end()) return;
  const Waiter first = found->second.waiters.front();
  found->second.source = first.source;
  make_room(first.blob.size);
  with(first.source, [&](Transfer& transfer) { transfer.want(first.blob); });
}

// It should be here, but somebody may have removed or cut the file.
void Depot::Impl::look(Source source, const std::string& name, const wire::BlobRef& blob,
                       Done done) {
  on_disk([name, size = blob.size](Store& store) { return store.is_there(name, size); },
          [this, source, name, blob, done = std::move(done)](Impl&, bool there) {
            if (there) return done({});
            erase(name);
            fetch(source, blob, done);
          });
}

void Depot::Impl::fetch(Source source, const wire::BlobRef& blob, Done done) {
  auto peer = peers.find(source);
  if (peer == peers.end())
    return later([done = std::move(done)] {
      done(fail(ErrorCode::kUnreachable, "whoever had it has gone"));
    });
  const std::string name = name_of(peer->second.scope, blob.hash);
  auto [entry, is_new] = fetches.try_emplace(name);
  entry->second.waiters.push_back({source, blob, std::move(done)});
  if (is_new) begin(name);
}

void Depot::Impl::ended(const std::string& name, const Result<void>& outcome) {
  auto found = fetches.find(name);
  if (found == fetches.end()) return;
  std::deque<Waiter> over, rest;
  for (Waiter& waiter : found->second.waiters)
    (outcome || waiter.source == found->second.source ? over : rest).push_back(std::move(waiter));
  if (outcome) add(name, over.front().blob.size);
  found->second.waiters = std::move(rest);
  if (found->second.waiters.empty())
    fetches.erase(found);
  else
    later([this, name] { begin(name); });
  if (!outcome) log_warn("blob {}: {}", name, outcome.error().message);
  for (Waiter& waiter : over) waiter.done(outcome);
}

void Depot::Impl::perform(Source source) {
  auto found = peers.find(source);
  if (found == peers.end()) return;
  const std::string scope = found->second.scope;
  for (Transfer::Effect& effect : found->second.transfer.take_effects())
    perform(source, scope, effect);
}

void Depot::Impl::perform(Source source, const std::string& scope, Transfer::Effect& effect) {
  const auto after = [source](const std::string& hash, auto&& told) {
    return [source, hash, told](Impl& impl, const auto& result) {
      impl.with(source, [&](Transfer& transfer) {
        if (result)
          told(transfer, result);
        else
          transfer.broken(hash, result.error());
      });
    };
  };
  if (auto* open = std::get_if<Transfer::Open>(&effect)) {
    const wire::BlobRef blob = open->blob;
    on_disk(
        [name = name_of(scope, blob.hash), blob](Store& store) { return store.begin(name, blob); },
        after(blob.hash, [hash = blob.hash](Transfer& transfer, const auto& have) {
          transfer.opened(hash, *have);
        }));
  } else if (auto* ask = std::get_if<Transfer::Ask>(&effect)) {
    if (auto peer = peers.find(source); peer != peers.end())
      peer->second.send(wire::make_message(ask->get));
  } else if (auto* write = std::get_if<Transfer::Write>(&effect)) {
    on_disk([name = name_of(scope, write->blob.hash), offset = write->offset,
             data = write->data](Store& store) { return store.append(name, offset, data.view()); },
            after(write->blob.hash,
                  [hash = write->blob.hash, size = write->data.size()](
                      Transfer& transfer, const auto&) { transfer.written(hash, size); }));
  } else if (auto* close = std::get_if<Transfer::Close>(&effect)) {
    const wire::BlobRef blob = close->blob;
    on_disk(
        [name = name_of(scope, blob.hash), blob](Store& store) { return store.finish(name, blob); },
        after(blob.hash,
              [hash = blob.hash](Transfer& transfer, const auto&) { transfer.closed(hash); }));
  } else if (auto* end = std::get_if<Transfer::Ended>(&effect)) {
    ended(name_of(scope, end->blob.hash), end->outcome);
  }
}

Result<void> check_question(const wire::BlobGet& get) {
  if (wire::is_blob_hash(get.blob.hash) && get.size <= wire::kBlobChunkBytes &&
      get.offset <= get.blob.size && get.size <= get.blob.size - get.offset)
    return {};
  return fail(ErrorCode::kInvalidArgument,
              "{} bytes from offset {} on of blob {} of {} bytes cannot be given", get.size,
              get.offset, get.blob.hash, get.blob.size);
}

wire::Message answer_to(const wire::BlobGet& get, const Result<Bytes>& bytes) {
  if (bytes) return wire::make_message(wire::BlobChunk{get.blob, get.offset, 0, ""}, {*bytes});
  const Error& error = bytes.error();
  return wire::make_message(
      wire::BlobChunk{get.blob, get.offset, static_cast<std::int32_t>(error.code), error.message});
}

// --- Depot ---------------------------------------------------------------------------------------

Depot::Depot(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Depot::~Depot() = default;

Result<std::unique_ptr<Depot>> Depot::open(DepotOptions options, Post post) {
  auto impl = std::make_unique<Impl>(std::move(options), std::move(post));
  auto entries = impl->disk.store().open();
  if (!entries) return fail(entries.error());
  for (const Store::Entry& entry : *entries) impl->add(entry.name, entry.size);
  impl->disk.start();
  impl->make_room(0);
  return std::unique_ptr<Depot>(new Depot(std::move(impl)));
}

void Depot::connect(Source source, std::string scope, Send send) {
  Impl::Peer& peer = impl_->peers[source];
  peer.scope = std::move(scope);
  peer.send = std::move(send);
  peer.transfer.down();
  peer.transfer.up();
  impl_->perform(source);
}

void Depot::disconnect(Source source) {
  impl_->with(source, [](Transfer& transfer) { transfer.down(); });
}

void Depot::forget(Source source) {
  impl_->with(source, [](Transfer& transfer) {
    transfer.abandon({ErrorCode::kUnreachable, "whoever had it has gone"});
  });
  impl_->peers.erase(source);
  for (auto& [name, fetch] : impl_->fetches)
    std::erase_if(fetch.waiters, [&](const Impl::Waiter& w) { return w.source == source; });
  std::erase_if(impl_->fetches, [](const auto& item) { return item.second.waiters.empty(); });
}

void Depot::take(Source source, const wire::BlobChunk& chunk, Bytes data) {
  impl_->with(source, [&](Transfer& transfer) { transfer.chunk(chunk, std::move(data)); });
}

void Depot::fetch(Source source, const wire::BlobRef& blob, Done done) {
  auto peer = impl_->peers.find(source);
  const std::string name =
      name_of(peer == impl_->peers.end() ? std::string() : peer->second.scope, blob.hash);
  auto found = impl_->here.find(name);
  if (found != impl_->here.end()) {
    impl_->touch(found->second, name);
    return impl_->look(source, name, blob, std::move(done));
  }
  impl_->fetch(source, blob, std::move(done));
}

void Depot::serve(const std::string& scope, const wire::BlobGet& get, Send reply) {
  const std::string name = name_of(scope, get.blob.hash);
  const auto answer = [get, reply](const Result<Bytes>& bytes) { reply(answer_to(get, bytes)); };
  if (auto fine = check_question(get); !fine) return answer(fail(fine.error()));
  if (auto found = impl_->here.find(name); found != impl_->here.end())
    impl_->touch(found->second, name);
  impl_->on_disk(
      [name, get](Store& store) -> Result<Bytes> {
        if (get.size == 0 && !store.is_there(name, get.blob.size))
          return fail(ErrorCode::kNotFound, "it is not here");
        return store.read(name, get.offset, get.size);
      },
      [name, get, answer](Impl& impl, const Result<Bytes>& bytes) {
        if (bytes) {
          impl.add(name, get.blob.size);
          return answer(bytes);
        }
        // Somebody removed or cut it: it has to come anew.
        if (bytes.error().code != ErrorCode::kIo) impl.erase(name);
        if (bytes.error().code != ErrorCode::kNotFound) return answer(bytes);
        answer(fail(ErrorCode::kNotFound, "blob {} is not here any more", get.blob.hash));
      });
}

void Depot::verify(std::filesystem::path file, const wire::BlobRef& blob, Done done) {
  impl_->on_disk([file = std::move(file), blob](Store&) { return verify_file(file, blob); },
                 [done = std::move(done)](Impl&, const Result<void>& good) { done(good); });
}

bool Depot::has(const std::string& scope, const std::string& hash) const {
  return impl_->here.contains(name_of(scope, hash));
}
std::filesystem::path Depot::file(const std::string& scope, const std::string& hash) const {
  return impl_->options.root / name_of(scope, hash);
}
void Depot::pin(const std::string& scope, const std::string& hash) {
  ++impl_->pins[name_of(scope, hash)];
}
void Depot::unpin(const std::string& scope, const std::string& hash) {
  auto found = impl_->pins.find(name_of(scope, hash));
  if (found == impl_->pins.end() || --found->second > 0) return;
  impl_->pins.erase(found);
  impl_->make_room(0);
}
void Depot::drop(const std::string& scope, const std::string& hash) {
  const std::string name = name_of(scope, hash);
  impl_->add(name, 0);  // others may have put it there
  impl_->erase(name);
}

std::vector<Depot::Kept> Depot::all() const {
  std::vector<Kept> kept;
  for (const auto& [name, entry] : impl_->here) {
    const auto slash = name.find('/');
    Kept each;
    if (slash != std::string::npos) each.scope = name.substr(0, slash);
    each.blob = {name.substr(slash == std::string::npos ? 0 : slash + 1), entry.size};
    kept.push_back(std::move(each));
  }
  return kept;
}
std::uint64_t Depot::bytes() const { return impl_->bytes; }
std::uint64_t Depot::bytes_max() const { return impl_->options.bytes_max; }

}  // namespace farcall::blobs
