#include "relay/server/server.h"

#include <set>

#include "base/log.h"
#include "blobs/depot.h"
#include "store_thread.h"
#include "wire/codec.h"
#include "wire/zmq/listener.h"

namespace farcall::relay {

struct Server::Impl {
  wire::Loop& loop;
  ServerOptions options;
  std::function<void(const Error&)> on_failure;
  std::unique_ptr<Core> core;
  std::unique_ptr<wire::Listener> listener;
  std::unique_ptr<blobs::Depot> depot;
  std::set<PeerId> pulled_from;
  wire::Loop::TimerId timer = 0;
  std::vector<PeerId> lost;  // found gone while sending
  // Posted actions outlive us by a turn of the loop.
  std::shared_ptr<Impl*> self = std::make_shared<Impl*>(this);
  std::unique_ptr<StoreThread> store;  // last: its thread ends before the rest goes

  Impl(wire::Loop& l, ServerOptions o, std::function<void(const Error&)> f)
      : loop(l), options(std::move(o)), on_failure(std::move(f)) {}
  ~Impl() {
    *self = nullptr;
    loop.cancel_timer(timer);
  }

  Result<void> start(std::unique_ptr<Store> opened);
  StoreThread::Handlers store_handlers();
  void post(std::function<void(Impl&)> action) {
    loop.post([weak = std::weak_ptr<Impl*>(self), action = std::move(action)] {
      if (auto alive = weak.lock(); alive && *alive != nullptr) action(**alive);
    });
  }
  void fatal(const Error& error) {
    log_error("the store failed: {}", error.message);
    on_failure(error);
  }
  // A part of a blob that was asked for, past the core: nothing is decided by it.
  void take_chunk(PeerId peer, const wire::Message& message) {
    if (auto chunk = wire::decode<wire::BlobChunk>(message))
      depot->take(peer, *chunk, message.payload.empty() ? Bytes() : message.payload[0]);
  }
  void gone(PeerId peer) {
    if (pulled_from.erase(peer) > 0) depot->forget(peer);
  }
  void pull(const PullBlob& what);
  void apply(Effects effects);
  void carry_out(Effects effects);
};

StoreThread::Handlers Server::Impl::store_handlers() {
  StoreThread::Handlers handlers;
  handlers.committed = [this](std::uint64_t ticket) {
    post([ticket](Impl& impl) { impl.apply(impl.core->committed(ticket, impl.loop.now())); });
  };
  handlers.stuck = [this](Error error) {
    post([error = std::move(error)](Impl& impl) {
      impl.apply(impl.core->store_stuck(error, impl.loop.now()));
    });
  };
  handlers.chunk_loaded = [this](LoadChunk what, Result<Bytes> data) {
    post([what, data = std::move(data)](Impl& impl) {
      if (!data && data.error().code != ErrorCode::kNotFound) return impl.fatal(data.error());
      if (!data) log_warn("{}", data.error().message);
      impl.apply(impl.core->chunk_loaded(what.submission, what.first,
                                         data ? std::optional<Bytes>(*data) : std::nullopt,
                                         impl.loop.now()));
    });
  };
  handlers.rows_loaded = [this](std::uint64_t token, Result<LoadedRows> rows) {
    post([token, rows = std::move(rows)](Impl& impl) {
      if (!rows) return impl.fatal(rows.error());
      impl.apply(impl.core->rows_loaded(token, *rows, impl.loop.now()));
    });
  };
  handlers.failed = [this](Error error) {
    post([error = std::move(error)](Impl& impl) { impl.fatal(error); });
  };
  return handlers;
}

Result<void> Server::Impl::start(std::unique_ptr<Store> opened) {
  auto state = opened->load();
  if (!state) return fail(state.error());
  const bool first_start = state->user_keys.empty();
  std::size_t submissions = state->submissions.size();
  wire::ListenerOptions listen;
  listen.address = options.listen;
  listen.keys = options.keys;
  wire::ListenerHandlers handlers;
  handlers.on_hello = [this](PeerId peer, const std::string& key, const wire::Message& hello) {
    apply(core->hello(peer, key, hello, loop.now()));
  };
  handlers.on_message = [this](PeerId peer, const wire::Message& message) {
    if (message.type == wire::MessageType::kBlobChunk) return take_chunk(peer, message);
    apply(core->message(peer, message, loop.now()));
  };
  handlers.on_gone = [this](PeerId peer) {
    gone(peer);
    apply(core->gone(peer, loop.now()));
  };
  auto made = wire::Listener::open(loop, std::move(listen), std::move(handlers));
  if (!made) return fail(made.error());
  listener = std::move(*made);
  options.core.address =
      options.public_address.empty() ? listener->address() : options.public_address;
  options.core.server_key = options.keys.public_key;
  options.core.make_token = [] { return random_token(24); };
  core = std::make_unique<Core>(options.core, std::move(*state), read_clock());
  auto blobs = blobs::Depot::open({options.blobs, 0},
                                  [this](std::function<void()> action) { loop.post(action); });
  if (!blobs) return fail(blobs.error());
  depot = std::move(*blobs);
  store = std::make_unique<StoreThread>(std::move(opened), store_handlers());
  for (const auto& kept : depot->all())
    apply(core->blob_found(kept.scope, kept.blob, read_clock()));
  log_info("listening on {}, {} submissions in the store", listener->address(), submissions);
  if (first_start && !options.owner_key.empty()) {
    log_info("first start: {} owns this relay", options.owner_user);
    apply(core->enrol_owner(options.owner_key, options.owner_user, read_clock()));
  } else {
    apply(core->tick(read_clock()));
  }
  return {};
}

// Sending may find peers gone, which are events of their own.
void Server::Impl::apply(Effects effects) {
  carry_out(std::move(effects));
  while (!lost.empty()) {
    const PeerId peer = lost.back();
    lost.pop_back();
    gone(peer);
    carry_out(core->gone(peer, loop.now()));
  }
}

void Server::Impl::pull(const PullBlob& what) {
  if (pulled_from.insert(what.peer).second)
    depot->connect(what.peer, what.scope, [this, peer = what.peer](const wire::Message& message) {
      listener->send(peer, message);
    });
  depot->fetch(what.peer, what.blob, [this, what](const Result<void>& outcome) {
    apply(core->blob_pulled(what, outcome, loop.now()));
  });
}

void Server::Impl::carry_out(Effects effects) {
  if (!effects.writes.empty()) store->commit(effects.ticket, std::move(effects.writes));
  for (auto& message : effects.messages) {
    if (auto* out = std::get_if<Send>(&message)) {
      if (!listener->send(out->peer, out->message)) lost.push_back(out->peer);
    } else if (auto* no = std::get_if<Refuse>(&message)) {
      listener->refuse(no->peer, no->error);
    }
  }
  for (auto& load : effects.loads)
    std::visit([this](auto& what) { store->load(std::move(what)); }, load);
  for (auto& blob : effects.blobs) {
    if (auto* what = std::get_if<PullBlob>(&blob))
      pull(*what);
    else if (auto* ask = std::get_if<ServeBlob>(&blob))
      depot->serve(ask->scope, ask->get, [this, peer = ask->peer](const wire::Message& message) {
        listener->send(peer, message);
      });
    else if (auto* drop = std::get_if<DropBlob>(&blob))
      depot->drop(drop->scope, drop->hash);
  }
  if (effects.wake_at) {
    loop.cancel_timer(timer);
    timer = loop.at(*effects.wake_at, [this] { apply(core->tick(loop.now())); });
  }
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;
const std::string& Server::address() const { return impl_->listener->address(); }

Result<std::unique_ptr<Server>> Server::start(wire::Loop& loop, std::unique_ptr<Store> store,
                                              ServerOptions options,
                                              std::function<void(const Error&)> on_failure) {
  auto impl = std::make_unique<Impl>(loop, std::move(options), std::move(on_failure));
  if (auto started = impl->start(std::move(store)); !started) return fail(started.error());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

}  // namespace farcall::relay
