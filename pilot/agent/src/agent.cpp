#include "pilot/agent/agent.h"

#include <unistd.h>

#include <algorithm>

#include "base/files.h"
#include "base/log.h"
#include "blob_shelf.h"
#include "pilot/agent/node.h"
#include "pilot/core/core.h"
#include "pilot/core/failure.h"
#include "pilot/mpi/mpi_runner.h"
#include "pilot/mpi/pool_runner.h"
#include "pilot/runners/limits.h"
#include "pilot/runners/native_runner.h"
#include "pilot/runners/poller.h"
#include "pilot/runners/process.h"
#include "pilot/runners/python_runner.h"
#include "pilot/runners/shell_runner.h"
#include "wire/codec.h"
#include "wire/results_file.h"
#include "wire/zmq/dialer.h"

namespace farcall::pilot {

namespace {
constexpr Duration kRedialAfter = std::chrono::seconds(2);
constexpr Duration kSweepEvery = std::chrono::seconds(1);
// While nobody answers, the interchange's address is read anew; not by all pilots at once.
constexpr std::uint64_t kReadAgainMin_ms = 5000, kReadAgainSpread_ms = 20'000;
// While workers have so much to do, each, what they answer is collected for a while: one wake-up
// and one message for many answers.
constexpr std::size_t kBusyLine = 16;
constexpr Duration kCollect = std::chrono::milliseconds(1);
// The last message is with the socket's own thread when we decide to go.
constexpr Duration kLastWords = std::chrono::milliseconds(300);
}  // namespace

struct Agent::Impl {
  Impl(wire::Loop& l, AgentOptions o) : loop(l), options(std::move(o)) {}

  wire::Loop& loop;
  AgentOptions options;
  std::filesystem::path scratch;
  Poller poller;
  std::unique_ptr<Core> core;
  std::unique_ptr<PythonRunner> python;
  std::unique_ptr<ShellRunner> shell;
  std::unique_ptr<NativeRunner> native;
  std::unique_ptr<BlobShelf> shelf;
  std::unique_ptr<MpiRunner> mpi;
  std::unique_ptr<PoolRunner> pools;
  std::unique_ptr<Limits> limits;
  std::unique_ptr<wire::Dialer> dialer;
  std::optional<Agent::End> end;
  wire::Loop::TimerId timer = 0;
  std::optional<MonoTime> timer_at;
  std::string last_down;
  std::string saved_name;  // in front of the number, of files with saved results
  int saved_files = 0, dropped_files = 0;
  bool heard = false;  // from workers or commands, in this turn

  Rng rng = Rng::from_entropy();
  bool reads_again = false;  // a timer is set

  void start(std::int64_t incarnation);
  void dial();
  void read_address_again();
  RunnerEvents make_events();
  void settle();
  void carry_out(Effect& effect);
  void begin(const Start& start);
  Runner* runner_of(const Assignment& work);
  void sweep();
  void save(const wire::Message& results);
  void drop_saved();
  void finish(int code, std::string why, Duration after);
};

namespace {

// `hello` has its cores.
wire::Topology topology_of(const Credentials& credentials, const wire::PilotHello& hello) {
  Topology machine = topology(hello.cores);
  wire::Topology told;
  told.processors = std::move(machine.processors);
  told.domains = std::move(machine.domains);
  told.gpus = credentials.accelerators;
  if (credentials.detect_accelerators)
    told.gpus = machine.gpus.empty() ? detect_gpus() : machine.gpus;
  return told;
}

std::shared_ptr<const Affinity> affinity_of(const Credentials& credentials,
                                            const wire::PilotHello& hello,
                                            const wire::Topology& topology) {
  if (credentials.cpu_affinity == "none") return nullptr;
  auto affinity = Affinity::make(credentials.cpu_affinity, hello.cores, topology.processors);
  if (affinity) return std::make_shared<const Affinity>(std::move(*affinity));
  log_warn("tasks are not bound to processors on {}: {}", hello.node, affinity.error().message);
  return nullptr;
}

RunnerSettings runner_settings(const Credentials& credentials, const wire::PilotHello& hello,
                               const std::filesystem::path& scratch) {
  RunnerSettings runners;
  runners.node = hello.node;
  runners.python = credentials.python;
  runners.runner_directory = credentials.runner_directory.empty()
                                 ? program_directory().parent_path() / "lib/farcall/runners"
                                 : std::filesystem::path(credentials.runner_directory);
  runners.scratch = scratch;
  runners.sandbox_root = credentials.sandbox_root;
  runners.shared = credentials.directory;
  runners.results = credentials.results;
  runners.results_gzip = credentials.results_gzip;
  runners.incarnation = hello.incarnation;
  runners.slots = hello.cores;
  runners.recycle_after = credentials.recycle_after;
  runners.pool_ranks = credentials.pool_ranks;
  if (credentials.max_processes > 0) runners.max_processes = credentials.max_processes;
  runners.preload = credentials.preload;
  return runners;
}

}  // namespace

void Agent::Impl::start(std::int64_t incarnation) {
  const Credentials& credentials = options.credentials;
  const Now now = loop.now();
  Settings settings;
  wire::PilotHello& hello = settings.hello;
  hello.hello.software = options.software;
  hello.hello.host = hello.node = host_name();
  hello.hello.pid = getpid();
  hello.block = credentials.block;
  hello.pilot = make_id<PilotId>(now.wall, rng);
  hello.node_rank = options.node_rank;
  hello.job_start = options.job_start;
  hello.incarnation = incarnation;
  hello.memory_mib = memory_mib();
  hello.cores = options.cores > 0 ? options.cores : usable_cores();
  if (credentials.slots > 0) hello.cores = credentials.slots;
  saved_name = "results-" + hello.pilot.string() + "-";
  settings.topology = topology_of(credentials, hello);
  settings.heartbeat = credentials.heartbeat;
  settings.lost_timeout = credentials.lost_timeout;
  settings.orphan_timeout = credentials.orphan_timeout;
  settings.allocation_end = options.allocation_end;
  RunnerSettings runners = runner_settings(credentials, hello, scratch);
  runners.affinity = affinity_of(credentials, hello, *settings.topology);
  log_info("pilot {} of block {} on {}, rank {}: {} cores, {} MiB", hello.pilot.string(),
           hello.block.string(), hello.node, hello.node_rank, hello.cores, hello.memory_mib);

  core = std::make_unique<Core>(std::move(settings), now);
  const RunnerEvents events = make_events();
  limits = std::make_unique<Limits>(poller, runners);
  python = std::make_unique<PythonRunner>(poller, runners, events);
  shell = std::make_unique<ShellRunner>(poller, runners, events);
  native = std::make_unique<NativeRunner>(poller, runners, events);
  mpi = std::make_unique<MpiRunner>(
      poller, runners, program_directory() / "farcall-mpi", events,
      MpiEvents{[this](wire::Spawn spawn) { core->spawn(std::move(spawn)); },
                [this](wire::Spawned spawned) { core->on_guest_ended(std::move(spawned)); }});
  pools = std::make_unique<PoolRunner>(poller, runners, *mpi, events);
  loop.add_fd(poller.fd(), [this] {
    poller.dispatch();
    heard = true;
  });

  shelf = std::make_unique<BlobShelf>(
      scratch / "blobs", [this](std::function<void()> action) { loop.post(std::move(action)); },
      [this](const wire::Message& message) { dialer->send(message); },
      [this](const std::string& hash, const Result<std::string>& file) {
        core->on_blob(hash, file, loop.now());
      });
  dial();
  loop.after_each_turn([this] { settle(); });
  loop.after(kSweepEvery, [this] { sweep(); });
}

void Agent::Impl::dial() {
  wire::DialerHandlers handlers;
  handlers.make_hello = [this] { return wire::make_message(core->make_hello(loop.now())); };
  handlers.on_message = [this](const wire::Message& message) {
    last_down.clear();
    if (shelf->on_message(message)) return;
    core->on_message(message, loop.now());
    if (message.type == wire::MessageType::kPilotWelcome) shelf->up();
  };
  handlers.on_refused = [this](const Error& error) {
    finish(error_exit_code(error.code), "the interchange refused this pilot: " + error.message, {});
  };
  handlers.on_down = [this](const Error& error) {
    if (error.message != last_down) log_warn("not connected: {}", error.message);
    last_down = error.message;
    shelf->down();
    core->on_down(loop.now());
    if (options.credentials_file.empty() || std::exchange(reads_again, true)) return;
    loop.after(std::chrono::milliseconds(kReadAgainMin_ms + rng.below(kReadAgainSpread_ms)),
               [this] { read_address_again(); });
  };
  wire::DialerOptions where;
  where.addresses = options.credentials.addresses;
  where.server_key = options.credentials.server_key;
  where.keys = options.credentials.keys;
  dialer = std::make_unique<wire::Dialer>(loop, std::move(where), std::move(handlers));
}

// An interchange that was started again, perhaps on another host, has written down where it is.
void Agent::Impl::read_address_again() {
  reads_again = false;
  if (end || dialer->is_up()) return;
  const auto now = read_credentials(options.credentials_file);
  if (now && now->addresses != options.credentials.addresses) {
    log_info("the interchange is now at {}", fmt::join(now->addresses, " "));
    options.credentials.addresses = now->addresses;
    dialer.reset();
    dial();
  }
  reads_again = true;
  loop.after(std::chrono::milliseconds(kReadAgainMin_ms + rng.below(kReadAgainSpread_ms)),
             [this] { read_address_again(); });
}

RunnerEvents Agent::Impl::make_events() {
  RunnerEvents events;
  events.began = [this](const wire::AttemptRef& ref) {
    core->on_began(ref, loop.now());
    if (const Assignment* work = core->running_work(ref)) limits->began(*work, *runner_of(*work));
  };
  events.finished = [this](Finished finished) {
    limits->over(finished.ref);
    core->on_finished(std::move(finished), loop.now());
  };
  events.returned = [this](const wire::AttemptRef& ref) {
    limits->over(ref);
    core->on_returned(ref, loop.now());
  };
  events.killed = [this](const wire::AttemptRef& ref) {
    limits->over(ref);
    core->on_killed(ref, loop.now());
  };
  events.note = [this](const wire::AttemptRef& ref, Note note) {
    core->on_note(ref, std::move(note));
  };
  return events;
}

// Until nothing follows from anything any more: a command that cannot start is a result at once.
void Agent::Impl::settle() {
  if (end) return;
  for (;;) {
    core->settle(loop.now());
    auto effects = core->take_effects();
    if (effects.empty()) break;
    for (Effect& effect : effects) carry_out(effect);
    python->flush();
    if (end) return;
  }
  // Only after a look: a pause must not follow a pause.
  if (std::exchange(heard, false) && core->lined_up() >= kBusyLine * std::max(core->slots(), 1U))
    loop.pause_fd(poller.fd(), kCollect);
  const auto next = core->next_deadline();
  if (next == timer_at) return;
  if (timer != 0) loop.cancel_timer(timer);
  timer = 0;
  timer_at = next;
  if (!next) return;
  timer = loop.at(*next, [this] {
    timer = 0;
    timer_at.reset();  // settle() follows at the end of the turn
  });
}

void Agent::Impl::carry_out(Effect& effect) {
  if (auto* send = std::get_if<Send>(&effect)) {
    dialer->send(send->message);
  } else if (auto* start = std::get_if<Start>(&effect)) {
    begin(*start);
  } else if (auto* kill = std::get_if<Kill>(&effect)) {
    python->kill(kill->ref);
    shell->kill(kill->ref);
    native->kill(kill->ref);
    mpi->kill(kill->ref);
    pools->kill(kill->ref);
  } else if (auto* guest = std::get_if<StartGuest>(&effect)) {
    mpi->start_guest(guest->spawn);
  } else if (auto* over = std::get_if<EndGuest>(&effect)) {
    mpi->end_guest(over->ref);
  } else if (auto* answer = std::get_if<GuestEnded>(&effect)) {
    mpi->on_guest_ended(answer->spawned);
  } else if (auto* redial = std::get_if<Redial>(&effect)) {
    log_warn("a new session follows: {}", redial->why);
    loop.after(kRedialAfter, [this, why = redial->why] { dialer->restart(why); });
  } else if (auto* save_now = std::get_if<Save>(&effect)) {
    save(save_now->results);
  } else if (std::holds_alternative<DropSaved>(effect)) {
    drop_saved();
  } else if (auto* get = std::get_if<GetBlob>(&effect)) {
    shelf->get(get->blob);
  } else if (auto* drop = std::get_if<DropBlob>(&effect)) {
    shelf->drop(drop->hash);
  } else if (auto* exit = std::get_if<Exit>(&effect)) {
    finish(exit->code, exit->why, kLastWords);
  }
}

Runner* Agent::Impl::runner_of(const Assignment& work) {
  const bool ranks = work.place && work.header->resources.ranks > 0;
  switch (work.function->record.kind) {
    case FunctionKind::kPythonSource:
    case FunctionKind::kPythonPickle:
      return python.get();
    case FunctionKind::kShell:  // over several nodes it needs the launcher's prefix
      if (ranks || (work.place && work.place->shares.size() > 1)) return mpi.get();
      return shell.get();
    case FunctionKind::kNative:
      return native.get();
    case FunctionKind::kMpiProgram:
      return ranks ? mpi.get() : nullptr;
    case FunctionKind::kMpiFunction:
      return ranks ? pools.get() : nullptr;
    default:
      return nullptr;
  }
}

void Agent::Impl::begin(const Start& start) {
  const FunctionRecord& record = start.work.function->record;
  if (Runner* runner = runner_of(start.work)) {
    if (runner == mpi.get() || runner == pools.get() || !start.work.place)
      return runner->start(start);
    return runner->start({MpiRunner::with_place(start.work), start.line_up});
  }
  Finished finished;
  finished.ref = start.work.ref;
  finished.outcome.state = TaskState::kFailed;
  finished.outcome.failure = FailureClass::kUserError;
  const bool needs_ranks =
      record.kind == FunctionKind::kMpiFunction || record.kind == FunctionKind::kMpiProgram;
  finished.data = failure_data(
      {"NotSupported",
       needs_ranks ? fmt::format("{} is an {}: its tasks need ranks (num_ranks in their "
                                 "resource_specification, --ranks on the command line)",
                                 record.name, name_of(record.kind))
                   : fmt::format("function {} is of kind {}, which this pilot ({}) cannot run",
                                 record.name, name_of(record.kind), options.software),
       FailureClass::kUserError, host_name(), 0, "", start.work.ref.attempt});
  core->on_finished(std::move(finished), loop.now());
}

// What a task has left behind is adopted by us; once the task is over, it goes.
void Agent::Impl::sweep() {
  const int trees = kill_left_behind(
      [this](pid_t pid) { return poller.is_ours(pid); },
      [this](const std::string& task) {
        auto id = TaskId::parse(task);
        return !id || !core->holds(*id);
      },
      std::min({shell->oldest_start(), mpi->oldest_start(), pools->oldest_start()}));
  if (trees > 0) log_info("killed {} processes that tasks had left behind", trees);
  loop.after(kSweepEvery, [this] { sweep(); });
}

// One file each time, written whole: the interchange may look at any moment.
void Agent::Impl::save(const wire::Message& results) {
  const auto& directory = options.credentials.directory;
  if (directory.empty()) return;
  const auto file = directory / (saved_name + std::to_string(saved_files + 1));
  if (auto done = write_file(file, wire::pack_results_file(results), 0600); !done) {
    log_warn("results that nobody has taken cannot be saved, their tasks may run again: {}",
             done.error().message);
    return;
  }
  ++saved_files;
  log_info("saved results that nobody has taken: {}", file.string());
}

void Agent::Impl::drop_saved() {
  while (dropped_files < saved_files) {
    std::error_code error;  // the interchange may have been faster
    std::filesystem::remove(
        options.credentials.directory / (saved_name + std::to_string(++dropped_files)), error);
  }
}

void Agent::Impl::finish(int code, std::string why, Duration after) {
  if (end) return;
  log_info("ends: {}", why);
  end = Agent::End{code, std::move(why)};
  loop.after(after, [this] { loop.stop(); });
}

Agent::Agent(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Agent>> Agent::make(wire::Loop& loop, AgentOptions options) {
  become_subreaper();
  const std::int64_t incarnation = read_clock().wall.milliseconds_since_epoch();
  const auto scratch =
      options.scratch_root / fmt::format("farcall-{}-{}-{}", options.credentials.block.string(),
                                         options.node_rank, incarnation);
  auto made = make_directory(scratch, 0700);
  if (!made)
    return fail(ErrorCode::kIo, "no scratch directory on {}: {}; set TMPDIR to one that exists",
                host_name(), made.error().message);
  auto impl = std::make_unique<Impl>(loop, std::move(options));
  impl->scratch = scratch;
  impl->start(incarnation);
  return std::unique_ptr<Agent>(new Agent(std::move(impl)));
}

Agent::~Agent() {
  impl_->dialer.reset();
  impl_->loop.remove_fd(impl_->poller.fd());
  impl_->python.reset();
  impl_->shell.reset();
  impl_->native.reset();
  impl_->pools.reset();
  impl_->mpi.reset();
  impl_->limits.reset();
  kill_all_descendants();
  std::error_code error;
  std::filesystem::remove_all(impl_->scratch, error);
  if (error) log_warn("{} could not be removed: {}", impl_->scratch.string(), error.message());
}

void Agent::terminate(const std::string& reason, Duration grace) {
  impl_->core->on_terminate(reason, grace, impl_->loop.now());
}

const std::optional<Agent::End>& Agent::end() const { return impl_->end; }
const std::filesystem::path& Agent::scratch() const { return impl_->scratch; }

}  // namespace farcall::pilot
