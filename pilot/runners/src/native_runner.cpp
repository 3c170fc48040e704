#include "pilot/runners/native_runner.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/elf.h"
#include "base/files.h"
#include "base/keys.h"
#include "base/log.h"
#include "pilot/runners/frame.h"
#include "pilot/runners/output_log.h"
#include "pilot/runners/process.h"
#include "wire/blobs.h"

namespace farcall::pilot {

using wire::AttemptRef;

namespace {
constexpr std::string_view kPrefix = "farcall_function_";
}  // namespace

struct NativeRunner::Worker {
  std::uint64_t id = 0;
  pid_t pid = 0;
  int fd = -1;
  std::string library;  // its hash
  std::optional<Assignment> work;
  std::unique_ptr<OutputLog> log;
  std::uint32_t tasks = 0;
  std::uint64_t last_used = 0;  // counts tasks of the whole runner
  bool retired = false;         // gets nothing more
  bool killing = false;
  std::optional<FailureText> verdict;
  std::string out;
  std::size_t written = 0;
  bool wants_write = false;
  FrameReader reader;
  std::shared_ptr<const Processors> own;  // nullptr: as the pilot is
};

NativeRunner::NativeRunner(Poller& poller, RunnerSettings settings, RunnerEvents events)
    : poller_(poller), settings_(std::move(settings)), events_(std::move(events)) {}

NativeRunner::~NativeRunner() {
  for (auto& [id, worker] : workers_) {
    kill_tree(worker->pid);
    poller_.on_exit(worker->pid, [](int) {});
    if (worker->fd >= 0) {
      poller_.remove(worker->fd);
      close(worker->fd);
    }
  }
}

// --- shared objects ------------------------------------------------------------------------------

const NativeRunner::Library& NativeRunner::library_of(const Function& function) {
  auto [place, added] = libraries_.try_emplace(function.record.id);
  if (added) examine(function, place->second);
  return place->second;
}

void NativeRunner::examine(const Function& function, Library& library) {
  const auto meta = nlohmann::json::parse(function.record.meta, nullptr, false);
  if (meta.is_object()) library.name = meta.value("file", "");
  if (library.name.empty()) library.name = "the shared object of function " + function.record.name;
  const auto bad = [&](FailureClass failure, const std::string& type, std::string text) {
    library.bad = FailureText{type, std::move(text), failure, settings_.node};
  };
  const auto object = read_shared_object(function.body.view());
  if (!object)
    return bad(FailureClass::kUserError, "NotASharedObject",
               fmt::format("{} is {}", library.name, object.error().message));
  if (object->machine != this_machine())
    return bad(FailureClass::kEnvironment, "WrongMachine",
               fmt::format("{} is built for {}, but {} is {}: build it on a machine like that one",
                           library.name, object->machine, settings_.node, this_machine()));
  std::vector<std::string> names;
  for (const std::string& symbol : object->symbols)
    if (symbol.starts_with(kPrefix)) names.push_back(symbol.substr(kPrefix.size()));
  if (std::find(names.begin(), names.end(), function.record.name) == names.end())
    return bad(FailureClass::kUserError, "FunctionNotFound",
               fmt::format("{} has no function {}; it has: {} (each is declared with "
                           "FARCALL_FUNCTION)",
                           library.name, function.record.name,
                           names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
  library.hash = content_hash(function.body.view());
  const auto directory = settings_.scratch / "native";
  library.path = directory / (library.hash + ".so");
  std::error_code ignored;
  if (std::filesystem::exists(library.path, ignored)) return;
  auto made = make_directory(directory, 0700);
  if (made) made = write_file(library.path, function.body.view(), 0500);
  if (!made)
    bad(FailureClass::kEnvironment, "OSError",
        fmt::format("{} cannot be laid down on {}: {}", library.name, settings_.node,
                    made.error().message));
}

// --- processes -----------------------------------------------------------------------------------

NativeRunner::Worker* NativeRunner::worker_for(const Library& library, std::string* error) {
  Worker* longest_idle = nullptr;
  for (auto& [id, worker] : workers_) {
    if (worker->work || worker->retired) continue;
    if (worker->library == library.hash) return worker.get();
    if (longest_idle == nullptr || worker->last_used < longest_idle->last_used)
      longest_idle = worker.get();
  }
  // One that waits for another shared object makes room.
  if (workers_.size() >= settings_.slots && longest_idle != nullptr) stop(*longest_idle);
  return spawn_worker(library, error);
}

NativeRunner::Worker* NativeRunner::spawn_worker(const Library& library, std::string* error) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    *error =
        fmt::format("no socket for a native runner on {}: {}", settings_.node, strerror(errno));
    return nullptr;
  }
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  auto worker = std::make_unique<Worker>();
  worker->id = ++last_worker_;
  worker->fd = ends[0];
  worker->library = library.hash;
  const auto log = settings_.scratch / fmt::format("native.{}.log", worker->id);
  worker->log = std::make_unique<OutputLog>(poller_, log);
  Spawn what;
  what.argv = {(settings_.runner_directory / "farcall-native-runner").string(),
               std::to_string(ends[1]), library.path.string(), library.name};
  what.environment = process_environment();
  what.out = what.err = worker->log->writer();
  what.inherited = ends[1];
  auto pid = spawn(what);
  close(ends[1]);
  worker->log->close_writer();
  if (!pid) {
    close(ends[0]);
    *error = pid.error().message + " on " + settings_.node;
    return nullptr;
  }
  worker->pid = *pid;
  const std::uint64_t id = worker->id;
  poller_.on_exit(*pid, [this, id](int status) { on_exit(id, status); });
  poller_.add(ends[0], [this, id](bool readable, bool writable) {
    if (readable) on_readable(id);
    if (auto found = workers_.find(id); writable && found != workers_.end()) write(*found->second);
  });
  log_debug("native: process {} for {}", *pid, library.name);
  return workers_.emplace(id, std::move(worker)).first->second.get();
}

// No further task; it ends when it reads the end of its socket.
void NativeRunner::stop(Worker& worker) {
  worker.retired = true;
  shutdown(worker.fd, SHUT_WR);
}

namespace {
// Where they lie if they are a blob; empty: they have come with the task.
std::string file_of_arguments(const Assignment& work) {
  const auto refs = wire::blob_refs(work.arguments.view());
  if (!refs || refs->size() != 1) return "";
  const auto file = work.blobs.find(refs->front().hash);
  return file == work.blobs.end() ? "" : file->second;
}
}  // namespace

void NativeRunner::start(const Start& start) {
  const Assignment& work = start.work;
  const Library& library = library_of(*work.function);
  if (library.bad) return events_.finished(failed_attempt(work.ref, *library.bad));
  if (work.header->environment.contains("FARCALL_TASK_OUTPUTS"))
    return events_.finished(failed_attempt(
        work.ref,
        {"OutputsNotKept",
         fmt::format("{} is a C++ function, of which no files are kept: let it return what it has "
                     "to say, or run a program that writes them (farcall run --output)",
                     work.function->record.name),
         FailureClass::kUserError, settings_.node}));
  std::string sandbox, error;
  if (work.header->sandbox) {
    auto made = make_sandbox(settings_, work);
    if (!made)
      return events_.finished(failed_attempt(
          work.ref,
          {"NoSandbox", made.error().message, FailureClass::kEnvironment, settings_.node}));
    sandbox = *made;
  }
  Worker* worker = worker_for(library, &error);
  if (worker == nullptr)
    return events_.finished(failed_attempt(
        work.ref, {"WorkerCannotStart", error, FailureClass::kEnvironment, settings_.node}));
  worker->work = work;
  worker->last_used = ++last_worker_;
  worker->log->forget();
  where_[work.ref] = worker->id;
  nlohmann::json run = {{"op", "run"},
                        {"function", work.function->record.name},
                        {"cwd", directory_of(work, sandbox)},
                        {"env", task_environment(work, sandbox)}};
  if (settings_.affinity != nullptr) {
    if (worker->own == nullptr) worker->own = settings_.affinity->take();
    run["processors"] = *settings_.affinity->of(work, worker->own);
  }
  if (!settings_.results.empty()) {
    run["results"] = settings_.results;
    run["results_gzip"] = settings_.results_gzip;
  }
  if (const std::string file = file_of_arguments(work); !file.empty()) {
    run["arguments"] = file;
    append_frame(worker->out, run);
  } else {
    append_frame(worker->out, run, work.arguments.view());
  }
  events_.began(work.ref);
  write(*worker);
}

void NativeRunner::write(Worker& worker) {
  send_what_fits(worker.fd, worker.out, worker.written);
  const bool wants_write = !worker.out.empty();
  if (wants_write != worker.wants_write) poller_.want_write(worker.fd, wants_write);
  worker.wants_write = wants_write;
}

void NativeRunner::on_readable(std::uint64_t id) {
  char buffer[65536];
  for (;;) {
    auto found = workers_.find(id);
    if (found == workers_.end() || found->second->fd < 0) return;
    Worker& worker = *found->second;
    const ssize_t got = recv(worker.fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    bool ended = got <= 0;
    if (!ended) worker.reader.append(buffer, static_cast<std::size_t>(got));
    while (!ended) {
      auto frame = worker.reader.next();
      if (frame && !*frame) break;
      if (frame)
        on_frame(worker, (*frame)->header, std::move((*frame)->body));
      else
        ended = true;
    }
    if (!ended) continue;
    // Its exit status says the rest; one that only closes its socket is of no more use.
    worker.retired = true;
    poller_.remove(worker.fd);
    close(std::exchange(worker.fd, -1));
    if (worker.work && !worker.killing) kill_tree(worker.pid);
  }
}

void NativeRunner::on_frame(Worker& worker, const nlohmann::json& header, Bytes data) {
  if (!worker.work) return;
  const AttemptRef ref = worker.work->ref;
  if (header.value("op", "") == "note") {
    if (events_.note) events_.note(ref, note_of(header, data));
    return;
  }
  Finished finished{ref, {}, std::move(data)};
  finished.outcome.started_ms = header.value("started_ms", std::int64_t{0});
  finished.outcome.ended_ms = header.value("ended_ms", std::int64_t{0});
  const std::string type = header.value("type", "");
  if (!type.empty()) {
    const auto failure =
        header.value("environment", false) ? FailureClass::kEnvironment : FailureClass::kUserError;
    const auto failed = failed_attempt(ref, {.type = type,
                                             .message = header.value("message", ""),
                                             .failure = failure,
                                             .host = settings_.node,
                                             .module = header.value("module", "farcall")});
    finished.outcome.state = failed.outcome.state;
    finished.outcome.failure = failure;
    finished.data = failed.data;
  }
  where_.erase(ref);
  worker.work.reset();
  ++worker.tasks;
  if (settings_.recycle_after > 0 && worker.tasks >= settings_.recycle_after) stop(worker);
  events_.finished(std::move(finished));
}

void NativeRunner::on_exit(std::uint64_t id, int status) {
  on_readable(id);  // what it wrote before
  std::unique_ptr<Worker> worker = std::move(workers_.at(id));
  workers_.erase(id);
  ::kill(-worker->pid, SIGKILL);
  if (worker->fd >= 0) {
    poller_.remove(worker->fd);
    close(worker->fd);
  }
  const auto log = settings_.scratch / fmt::format("native.{}.log", id);
  const std::string said = worker->log->tail();
  std::error_code ignored;
  std::filesystem::remove(log, ignored);
  if (!worker->work) return;
  const AttemptRef ref = worker->work->ref;
  where_.erase(ref);
  if (worker->verdict) return events_.finished(failed_attempt(ref, *worker->verdict, status));
  if (worker->killing) return events_.killed(ref);
  std::string text =
      fmt::format("the process of native function {} on {} {}", worker->work->function->record.name,
                  settings_.node, status_text(status));
  if (!said.empty()) text += "; the last line of its output: " + said.substr(said.rfind('\n') + 1);
  events_.finished(
      failed_attempt(ref, {"WorkerCrashed", text, FailureClass::kCrash, settings_.node}, status));
}

void NativeRunner::kill(const AttemptRef& ref) {
  auto where = where_.find(ref);
  if (where == where_.end()) return;
  Worker& worker = *workers_.at(where->second);
  worker.killing = true;
  kill_tree(worker.pid);
}

void NativeRunner::end(const AttemptRef& ref, const FailureText& why) {
  auto where = where_.find(ref);
  if (where == where_.end() || workers_.at(where->second)->killing) return;
  workers_.at(where->second)->verdict = why;
  kill(ref);
}

std::vector<pid_t> NativeRunner::processes_of(const AttemptRef& ref) const {
  auto where = where_.find(ref);
  if (where == where_.end()) return {};
  return {workers_.at(where->second)->pid};
}

}  // namespace farcall::pilot
