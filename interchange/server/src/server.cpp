#include "interchange/server/server.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "addresses.h"
#include "base/files.h"
#include "base/log.h"
#include "blob_desk.h"
#include "block_files.h"
#include "journal_thread.h"
#include "provider_thread.h"
#include "wire/notes.h"
#include "wire/zmq/dialer.h"
#include "wire/zmq/listener.h"

namespace farcall::interchange {

namespace {

constexpr Duration kTick = std::chrono::milliseconds(100);
// An endpoint that has had nothing to do for a second costs next to nothing.
constexpr Duration kTickAtRest = std::chrono::milliseconds(500);
constexpr unsigned kCalmTicks = 10;
constexpr Duration kExpireEvery = std::chrono::hours(1);

JobReport report_of(const providers::JobStatus& status) {
  JobReport report;
  report.job_id = status.job_id;
  report.listed = status.listed;
  report.job_name = status.job_name;
  report.word = status.word;
  report.reason = status.reason;
  using State = JobReport::State;
  switch (status.state) {
    case providers::JobState::kUnknown:
      report.state = State::kUnknown;
      break;
    case providers::JobState::kQueued:
      report.state = State::kQueued;
      break;
    case providers::JobState::kRunning:
      report.state = State::kRunning;
      break;
    case providers::JobState::kEnding:
      report.state = State::kEnding;
      break;
    case providers::JobState::kEnded:
      report.state = State::kEnded;
      break;
  }
  switch (status.ended_by) {
    case providers::EndedBy::kCompleted:
      report.end = BlockEnd::kCompleted;
      break;
    case providers::EndedBy::kCancelled:
      report.end = BlockEnd::kCancelled;
      break;
    case providers::EndedBy::kWalltime:
      report.end = BlockEnd::kWalltime;
      break;
    case providers::EndedBy::kPreempted:
      report.end = BlockEnd::kPreempted;
      break;
    case providers::EndedBy::kFailed:
    case providers::EndedBy::kNodeFailure:
    case providers::EndedBy::kOutOfMemory:
      report.end = BlockEnd::kFailed;
      break;
    case providers::EndedBy::kUnknown:
      report.end = BlockEnd::kUnknown;
      break;
  }
  return report;
}

}  // namespace

Result<EndpointKey> read_endpoint_key(const std::filesystem::path& file) {
  auto text = read_secret_file(file);
  if (!text)
    return fail(text.error().code, "{}: `farcall endpoint start` makes it", text.error().message);
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  EndpointKey key;
  if (json.is_object()) {
    auto id = EndpointId::parse(json.value("endpoint_id", ""));
    if (id) key.endpoint = *id;
    key.keys = {json.value("public_key", ""), json.value("secret_key", "")};
    key.relay = json.value("relay", "");
    key.server_key = json.value("server_key", "");
  }
  if (key.endpoint.is_nil() || !is_key(key.keys.public_key) || !is_key(key.keys.secret_key) ||
      !is_key(key.server_key) || key.relay.empty())
    return fail(ErrorCode::kCorrupt,
                "{} does not hold endpoint_id, keys and relay: remove it and run `farcall "
                "endpoint start`",
                file.string());
  return key;
}

struct Server::Impl {
  wire::Loop& loop;
  ServerOptions options;
  Handlers handlers;
  Core core;
  std::unique_ptr<BlockFiles> files;
  std::unique_ptr<wire::Listener> pilots;
  std::unique_ptr<wire::Dialer> relay;
  std::unique_ptr<BlobDesk> desk;
  std::unique_ptr<JournalThread> journal;
  std::unique_ptr<ProviderThread> provider;
  MonoTime notes_window_ends;
  std::size_t notes_bytes = 0;        // passed on in this window
  std::uint64_t journal_waiting = 0;  // calls of put() that are not done
  bool ready = false;
  unsigned calm_ticks = 0;  // in a row, with nothing to do
  wire::Loop::TimerId tick_timer = 0;

  Impl(wire::Loop& l, ServerOptions o, Handlers h)
      : loop(l),
        options(std::move(o)),
        handlers(std::move(h)),
        core(options.config.settings, Rng::from_entropy()) {}

  // Effects are asked for once per turn of the loop, so that tasks are placed in batches.
  void perform();
  void carry_out(std::vector<JournalWrite>& writes, std::vector<effect::SendPilot>& after,
                 Effect& effect);
  void after_journal(const std::vector<JournalWrite>& writes,
                     const std::vector<effect::SendPilot>& sends);
  void submit(const effect::SubmitBlock& block);
  void collect_left(const BlockId& block) {
    for (auto& each : files->left(block))
      core.results_left(each.block, each.pilot, each.file, each.results, loop.now());
  }
  // Without a sync: it is worth nothing after a crash, and the loop must not wait for the disk.
  void status_file(const std::string& json) {
    const auto path = options.directory / "status.json", temporary = options.directory / ".status";
    std::ofstream file(temporary);
    file << json << "\n";
    file.close();
    std::error_code error;
    if (file) std::filesystem::rename(temporary, path, error);
    if (!file || error) log_warn("cannot write {}: {}", path.string(), error.message());
  }
  void pass_on_notes(const wire::Message& message);
  void expire() {
    desk->expire_results();
    std::vector<BlockRecord> blocks;
    for (const BlockRecord* block : core.blocks().all()) blocks.push_back(*block);
    files->expire(blocks, loop.now().wall);
    loop.after(kExpireEvery, [this] { expire(); });
  }
  Result<void> listen(const Recovered& recovered);
  void dial();
  // No task is here and no block is about to change.
  bool has_nothing_to_do() const;
  void tick() {
    core.tick(loop.now());
    calm_ticks = has_nothing_to_do() ? calm_ticks + 1 : 0;
    const bool at_rest = calm_ticks > kCalmTicks;
    tick_timer = loop.after(at_rest ? kTickAtRest : kTick, [this] { tick(); });
  }
  // Something has come: it need not wait for what is done at leisure.
  void stir() {
    if (calm_ticks <= kCalmTicks) return;
    calm_ticks = 0;
    loop.cancel_timer(tick_timer);
    tick();
  }
};

bool Server::Impl::has_nothing_to_do() const {
  if (!core.welcomed() || core.queue().pending_tasks() > 0) return false;
  for (const auto& [id, pilot] : core.pilots().all())
    if (pilot.peer == 0 || !pilot.may_work || !pilot.placements.empty()) return false;
  for (const BlockRecord* block : core.blocks().all())
    if (block->state != BlockState::kRunning && !is_final(block->state)) return false;
  return true;
}

void Server::Impl::perform() {
  if (calm_ticks > kCalmTicks && !has_nothing_to_do()) stir();
  Effects effects = core.take_effects(loop.now());
  std::vector<JournalWrite> writes;
  std::vector<effect::SendPilot> after;
  for (Effect& effect : effects) carry_out(writes, after, effect);
  if (writes.empty() && after.empty()) return;
  if (writes.empty() && journal_waiting == 0) return after_journal(writes, after);
  if (journal_waiting == 0 && journal->put_now(writes)) return after_journal(writes, after);
  ++journal_waiting;
  // The journal thread has its own copy; what is answered needs the rest.
  auto kept = std::make_shared<std::vector<JournalWrite>>(writes);
  journal->put(std::move(writes), [this, kept, after = std::move(after)] {
    --journal_waiting;
    after_journal(*kept, after);
  });
}

void Server::Impl::after_journal(const std::vector<JournalWrite>& writes,
                                 const std::vector<effect::SendPilot>& sends) {
  for (const auto& send : sends) pilots->send(send.peer, send.message);
  for (const JournalWrite& write : writes) {
    if (const auto* block = std::get_if<effect::SaveBlock>(&write))
      core.block_saved(block->block.id, block->serial, loop.now());
    else if (const auto* spool = std::get_if<effect::Spool>(&write))
      core.spooled(spool->record.batch);
    else if (const auto* drained = std::get_if<effect::SaveDrained>(&write);
             drained != nullptr && drained->answer)
      relay->send(*drained->answer);
  }
}

// What running tasks say of themselves, on its way to the relay as it is: no state depends on it,
// so it does not pass through the core. What is too much at once is dropped.
void Server::Impl::pass_on_notes(const wire::Message& message) {
  constexpr Duration kWindow = std::chrono::milliseconds(100);
  constexpr std::size_t kWindowBytesMax = 1 << 20;
  const MonoTime now = loop.now().mono;
  if (now >= notes_window_ends) {
    notes_window_ends = now + kWindow;
    notes_bytes = 0;
  }
  std::size_t bytes = message.body.size();
  for (const Bytes& payload : message.payload) bytes += payload.size();
  if (!ready || notes_bytes + bytes > kWindowBytesMax) return;
  notes_bytes += bytes;
  relay->send(message);
}

void Server::Impl::submit(const effect::SubmitBlock& block) {
  auto command = files->make(block.block);
  if (!command) {
    core.provider_submitted(block.block,
                            fail(ErrorCode::kSchedulerUnavailable, "{}", command.error().message),
                            loop.now());
    return;
  }
  providers::BlockRequest request{block.job_name,   block.nodes,
                                  *command,         files->directory(block.block).string(),
                                  block.walltime_s, block.exclude_nodes};
  provider->put([this, request, id = block.block](providers::Provider& p) -> std::function<void()> {
    auto reply = p.submit(request);
    Result<std::string> job_id =
        reply ? Result<std::string>(reply->job_id) : Result<std::string>(fail(reply.error()));
    return [this, id, job_id] { core.provider_submitted(id, job_id, loop.now()); };
  });
}

void Server::Impl::carry_out(std::vector<JournalWrite>& writes,
                             std::vector<effect::SendPilot>& after, Effect& effect) {
  auto one = [&](auto& e) {
    using E = std::decay_t<decltype(e)>;
    if constexpr (std::is_constructible_v<JournalWrite, E>) {
      writes.push_back(std::move(e));
    } else if constexpr (std::is_same_v<E, effect::SendPilot>) {
      after.push_back(std::move(e));
    } else if constexpr (std::is_same_v<E, effect::SendRelay>) {
      relay->send(e.message);
    } else if constexpr (std::is_same_v<E, effect::RedialRelay>) {
      relay->restart(e.why);
    } else if constexpr (std::is_same_v<E, effect::RefusePilot>) {
      pilots->refuse(e.peer, e.error);
    } else if constexpr (std::is_same_v<E, effect::ResetPilot>) {
      pilots->reset(e.peer, e.why);
    } else if constexpr (std::is_same_v<E, effect::SubmitBlock>) {
      submit(e);
    } else if constexpr (std::is_same_v<E, effect::QueryBlocks>) {
      provider->put([this, ids = e.job_ids](providers::Provider& p) -> std::function<void()> {
        auto status = p.status(ids);
        Result<std::vector<JobReport>> reports = std::vector<JobReport>();
        if (!status) reports = fail(status.error());
        if (status)
          for (const auto& s : *status) reports->push_back(report_of(s));
        return [this, reports] { core.provider_reported(reports, loop.now()); };
      });
    } else if constexpr (std::is_same_v<E, effect::FindBlock>) {
      provider->put(
          [this, id = e.block, name = e.job_name](providers::Provider& p) -> std::function<void()> {
            auto found = p.find_by_name(name);
            return [this, id, found] { core.provider_found(id, found, loop.now()); };
          });
    } else if constexpr (std::is_same_v<E, effect::CancelJobs>) {
      provider->put([this, ids = e.job_ids](providers::Provider& p) -> std::function<void()> {
        auto done = p.cancel(ids);
        return [this, ids, done] { core.provider_cancelled(ids, done, loop.now()); };
      });
    } else if constexpr (std::is_same_v<E, effect::CollectLeft>) {
      collect_left(e.block);
    } else if constexpr (std::is_same_v<E, effect::DropLeft>) {
      files->drop_left(e.block, e.file);
    } else if constexpr (std::is_same_v<E, effect::NeedBlobs>) {
      for (const wire::BlobRef& blob : e.needed) desk->need(blob);
      for (const wire::BlobRef& blob : e.released) desk->release(blob);
    } else if constexpr (std::is_same_v<E, effect::StatusChanged>) {
      status_file(e.json);
    } else {
      static_assert(std::is_same_v<E, effect::Exit>);
      handlers.on_exit(e.text);
    }
  };
  std::visit(one, effect);
}

// On the port of the last life if it is free: pilots that outlived it dial that one.
Result<void> Server::Impl::listen(const Recovered& recovered) {
  const auto port_file = options.directory / "port";
  wire::ListenerHandlers h;
  h.on_hello = [this](wire::PeerId peer, const std::string& key, const wire::Message& hello) {
    const BlockId block = files->block_of(key);
    if (block.is_nil()) {
      pilots->refuse(peer, {ErrorCode::kDenied,
                            fmt::format("endpoint {} has no block with this key", options.name)});
      return;
    }
    core.pilot_hello(peer, block, hello, loop.now());
  };
  h.on_message = [this](wire::PeerId peer, const wire::Message& m) {
    if (m.type == wire::kNotesType) return pass_on_notes(m);
    if (desk->from_pilot(peer, m)) return;
    core.pilot_message(peer, m, loop.now());
  };
  h.on_gone = [this](wire::PeerId peer) { core.pilot_gone(peer, loop.now()); };
  wire::ListenerOptions o{.address = "tcp://0.0.0.0:*", .keys = options.key.keys};
  o.port_first = options.config.port_first;
  o.port_last = options.config.port_last;
  Result<std::unique_ptr<wire::Listener>> opened = fail(ErrorCode::kIo, "");
  const auto last_port = read_file(port_file);
  if (last_port && o.port_first == 0) {
    auto again = o;
    again.address = "tcp://0.0.0.0:" + *last_port;
    opened = wire::Listener::open(loop, again, h);
    if (!opened)
      log_warn("{}: pilots that still dial it will not find this interchange",
               opened.error().message);
  }
  if (!opened) opened = wire::Listener::open(loop, o, h);
  if (!opened) return fail(opened.error());
  pilots = std::move(*opened);
  const std::string port = pilots->address().substr(pilots->address().rfind(':') + 1);
  if (auto done = write_file(port_file, port); !done) return done;
  auto addresses = reachable_addresses(options.config.addresses, port);
  if (!addresses) return fail(addresses.error());
  // The local provider's pilots are on this host: what they try first should be it.
  if (options.config.settings.scheduler_is_local)
    std::reverse(addresses->begin(), addresses->end());
  log_info("pilots reach this interchange at {}", fmt::join(*addresses, " "));
  files = std::make_unique<BlockFiles>(options, std::move(*addresses), recovered.blocks,
                                       loop.now().wall);
  return {};
}

void Server::Impl::dial() {
  wire::DialerHandlers h;
  h.make_hello = [this] { return core.make_hello(); };
  h.on_message = [this](const wire::Message& m) {
    if (desk->from_relay(m)) return;
    core.relay_message(m, loop.now());
    if (m.type == wire::MessageType::kCall) stir();
    if (m.type == wire::MessageType::kEndpointWelcome && core.welcomed()) desk->relay_up();
    if (!ready && core.welcomed()) {
      ready = true;
      log_info("connected to the relay {}", options.key.relay);
      handlers.on_ready();
    }
  };
  h.on_refused = [this](const Error& e) { handlers.on_refused(e); };
  h.on_down = [this, told = std::string()](const Error& e) mutable {
    if (e.message != told) log_warn("relay: {}", e.message);
    told = e.message;
    core.relay_down();
    desk->relay_down();
  };
  relay = std::make_unique<wire::Dialer>(
      loop, wire::DialerOptions{{options.key.relay}, options.key.server_key, options.key.keys},
      std::move(h));
}

Result<std::unique_ptr<Server>> Server::open(wire::Loop& loop, ServerOptions options,
                                             std::unique_ptr<Journal> journal, Recovered recovered,
                                             std::unique_ptr<providers::Provider> provider,
                                             Handlers handlers) {
  Settings& settings = options.config.settings;
  settings.endpoint = options.key.endpoint;
  settings.endpoint_name = options.name;
  settings.instance = journal->instance();
  settings.take_over = options.take_over;
  settings.software = options.software;
  settings.host = host_name();
  settings.pid = static_cast<std::int32_t>(::getpid());
  auto impl = std::make_unique<Impl>(loop, std::move(options), std::move(handlers));
  Impl* raw = impl.get();
  auto desk = BlobDesk::open(
      {raw->options.directory / "blobs", raw->options.config.settings.blob_cache_bytes},
      raw->options.config.results_directory(raw->options.directory), raw->options.config.result_ttl,
      [&loop](std::function<void()> action) { loop.post(std::move(action)); },
      [raw](const wire::Message& m) { raw->relay->send(m); },
      [raw](PeerId peer, const wire::Message& m) { raw->pilots->send(peer, m); });
  if (!desk) return fail(desk.error());
  raw->desk = std::move(*desk);
  if (auto done = raw->listen(recovered); !done) return fail(done.error());
  raw->journal = std::make_unique<JournalThread>(loop, std::move(journal));
  raw->provider = std::make_unique<ProviderThread>(loop, std::move(provider));
  raw->core.recover(recovered, read_clock());
  // Of blocks that are still there, pilots deliver themselves; if not, it is looked for then.
  for (const BlockId& block : raw->files->all()) {
    const BlockRecord* record = raw->core.blocks().find(block);
    if (record == nullptr || is_final(record->state)) raw->collect_left(block);
  }
  raw->dial();
  raw->expire();
  raw->tick();
  loop.after_each_turn([raw] { raw->perform(); });
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;
void Server::stop(const std::string& reason) {
  impl_->core.stop(reason, impl_->loop.now());
  impl_->stir();
}

}  // namespace farcall::interchange
