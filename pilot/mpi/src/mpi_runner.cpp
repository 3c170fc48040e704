#include "pilot/mpi/mpi_runner.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/log.h"
#include "base/subprocess.h"
#include "pilot/core/failure.h"
#include "pilot/mpi/far_files.h"
#include "pilot/mpi/launch.h"
#include "pilot/runners/process.h"
#include "wire/blob_payload.h"
#include "wire/blobs.h"
#include "wire/codec.h"
#include "wire/shell_result.h"

namespace farcall::pilot {

using nlohmann::json;
using wire::AttemptRef;

namespace {

constexpr std::size_t kRequestBytesMax = 1 << 20;
constexpr std::size_t kStartsAtOnce = 128;  // what mpirun has without being told

std::string tail_of(int fd) {
  struct stat info {};
  if (fd < 0 || fstat(fd, &info) != 0) return "";
  const auto size = static_cast<std::size_t>(info.st_size);
  std::string text(std::min(size, kSaidBytesMax), '\0');
  const ssize_t got = pread(fd, text.data(), text.size(), static_cast<off_t>(size - text.size()));
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::string short_name(const std::string& host) { return host.substr(0, host.find('.')); }

// What the submission itself sets stays.
Assignment with_environment(const Assignment& work,
                            const std::map<std::string, std::string>& environment) {
  Assignment out = work;
  auto header = std::make_shared<SubmissionHeader>(*work.header);
  header->environment.insert(environment.begin(), environment.end());
  out.header = std::move(header);
  return out;
}

// "out.%t": a file for each rank, which the ranks open themselves.
void per_rank_output(json& from, const char* key, const char* variable,
                     std::map<std::string, std::string>& environment) {
  const auto found = from.find(key);
  if (found == from.end() || !found->is_string()) return;
  const std::string path = found->get<std::string>();
  if (path.find("%t") == std::string::npos) return;
  environment[variable] = path;
  from.erase(found);
}

// An argument set, and the files that came around it.
struct Arguments {
  std::vector<wire::BlobRef> blobs;
  std::string places;  // empty: there are none
  json values;
};

// nullopt: none of ours, which the shell runner says better.
std::optional<Arguments> read_arguments(std::string_view bytes) {
  Arguments read;
  if (bytes.starts_with('B')) {
    auto refs = wire::blob_refs(bytes);
    if (!refs) return std::nullopt;
    const auto places = wire::blob_places(bytes);
    if (!places) return std::nullopt;
    read.blobs = std::move(*refs);
    read.places = places->places;
    bytes = places->rest;
  }
  if (!bytes.starts_with('J')) return std::nullopt;
  read.values = json::parse(bytes.substr(1), nullptr, false);
  if (!read.values.is_object()) return std::nullopt;
  return read;
}

Bytes write_arguments(const Arguments& arguments) {
  const std::string rest = "J" + arguments.values.dump();
  if (arguments.places.empty()) return Bytes(rest);
  return Bytes(wire::pack_blob_payload(arguments.blobs, arguments.places, rest));
}

// That of a command, with the files that it has left around it or without.
Result<wire::ShellResult> shell_result_of(const Bytes& data) {
  std::string_view bytes = data.view();
  if (bytes.starts_with('B')) {
    auto places = wire::blob_places(bytes);
    if (!places) return fail(places.error());
    bytes = places->rest;
  }
  return wire::decode<wire::ShellResult>(
      Bytes::copy_of(bytes.substr(std::min<std::size_t>(1, bytes.size()))));
}

}  // namespace

Result<UnixListener> listen_unix(const std::filesystem::path& path, std::int64_t incarnation) {
  UnixListener made{-1, path.string()};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (made.path.size() >= sizeof address.sun_path)
    made.path =
        fmt::format("/tmp/farcall-{}-{}-{}", path.filename().string(), getpid(), incarnation);
  std::memcpy(address.sun_path, made.path.c_str(), made.path.size() + 1);
  made.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made.fd >= 0 && bind(made.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      chmod(made.path.c_str(), 0600) == 0 && ::listen(made.fd, 128) == 0)
    return made;
  const int error = errno;
  if (made.fd >= 0) close(made.fd);
  return fail(ErrorCode::kIo, "cannot listen at {}: {}", made.path, std::strerror(error));
}

struct MpiRunner::Asker {
  std::string text;
  AttemptRef attempt;
  std::uint64_t request = 0;  // 0: has not said what it wants
};

MpiRunner::MpiRunner(Poller& poller, RunnerSettings settings, std::filesystem::path tool,
                     RunnerEvents events, MpiEvents mpi)
    : poller_(poller),
      settings_(std::move(settings)),
      tool_(std::move(tool)),
      events_(std::move(events)),
      mpi_(std::move(mpi)) {
  RunnerEvents inner = events_;
  inner.finished = [this](Finished finished) { on_finished(std::move(finished)); };
  inner.killed = [this](const AttemptRef& ref) {
    over(ref);
    events_.killed(ref);
  };
  inner.returned = [this](const AttemptRef& ref) {
    over(ref);
    events_.returned(ref);
  };
  shell_ = std::make_unique<ShellRunner>(poller, settings_, std::move(inner));
  auto made = listen_unix(settings_.scratch / "mpi", settings_.incarnation);
  if (!made) {
    log_error("no MPI tasks over several nodes can be led from here: {}", made.error().message);
    return;
  }
  socket_ = made->fd;
  socket_path_ = made->path;
  poller_.add(socket_, [this](bool, bool) { on_connection(); });
}

MpiRunner::~MpiRunner() {
  shell_.reset();
  for (auto& [pid, guest] : guests_) {
    kill_tree(pid);
    poller_.on_exit(pid, [](int) {});
    if (guest.err >= 0) close(guest.err);
    std::error_code ignored;
    if (!guest.pool_directory.empty()) std::filesystem::remove_all(guest.pool_directory, ignored);
  }
  for (const auto& [ref, led] : std::map(led_)) over(ref);
  for (auto& [fd, asker] : askers_) {
    poller_.remove(fd);
    close(fd);
  }
  if (socket_ < 0) return;
  poller_.remove(socket_);
  close(socket_);
  unlink(socket_path_.c_str());
}

std::filesystem::path MpiRunner::directory_of(const AttemptRef& ref) {
  std::error_code error;
  const char* root = std::filesystem::is_directory("/dev/shm", error) ? "/dev/shm" : "/tmp";
  // Sockets lie below it, and their paths are short by law: of the id what is random.
  const std::string id = ref.submission.string();
  return fmt::format("{}/farcall-{}{}-{}-{}", root, id.substr(14, 9), id.substr(24, 4), ref.index,
                     ref.attempt);
}

Assignment MpiRunner::with_place(const Assignment& work) {
  return with_environment(work, place_environment(*work.place, *work.header));
}

std::map<std::string, std::string> MpiRunner::lead_pool(const Assignment& founder,
                                                        const std::string& directory) {
  Led led{founder.place, launch_environment(*founder.place, *founder.header,
                                            {tool_.string(), socket_path_, directory})};
  // Of single tasks: each brings its own.
  for (const char* name :
       {"FARCALL_MPI_NODES", "FARCALL_CORES", "FARCALL_MPI_PREFIX", "PARSL_MPI_PREFIX",
        "FARCALL_NUM_RANKS", "PARSL_NUM_RANKS", "FARCALL_NUM_NODES", "PARSL_NUM_NODES",
        "FARCALL_RANKS_PER_NODE", "PARSL_RANKS_PER_NODE"})
    led.environment.erase(name);
  led.environment["FARCALL_MPI_POOL"] = "1";
  // Daemons that stay the children of whoever starts them, which tells him when they end: a pool
  // outlives the attempt by which those of single tasks are found.
  led.environment["OMPI_MCA_orte_leave_session_attached"] = "1";
  led.environment["OMPI_MCA_plm_rsh_num_concurrent"] =
      std::to_string(std::max<std::size_t>(kStartsAtOnce, founder.place->shares.size()));
  led.environment["FARCALL_MPI_TASK"] = founder.task().string();
  led.environment["FARCALL_MPI_ATTEMPT"] = std::to_string(founder.ref.attempt);
  pools_[founder.ref] = led;
  return led.environment;
}

void MpiRunner::end_pool(const AttemptRef& founder) {
  dismiss_askers(founder);
  pools_.erase(founder);
}

// --- leading -------------------------------------------------------------------------------------

void MpiRunner::start(const Start& start) {
  Assignment work = with_environment(
      start.work,
      launch_environment(*start.work.place, *start.work.header,
                         {tool_.string(), socket_path_, directory_of(start.work.ref).string()}));
  const auto refuse = [&](FailureClass failure, const char* type, const std::string& text) {
    Finished finished;
    finished.ref = work.ref;
    finished.outcome.state = TaskState::kFailed;
    finished.outcome.failure = failure;
    finished.data = failure_data({type, text, failure, settings_.node, 0, "", work.ref.attempt});
    events_.finished(std::move(finished));
  };
  work.arguments = copying_what_is_only_here(work, settings_.scratch);
  put_launcher_before(work);
  std::string sandbox;
  if (work.header->sandbox) {
    auto path = sandbox_of(settings_, work);
    if (!path) return refuse(FailureClass::kEnvironment, "NoSandbox", path.error().message);
    sandbox = *path;
  }
  if (auto made = make_directory(directory_of(work.ref), 0700); !made)
    return refuse(FailureClass::kEnvironment, "OSError", made.error().message);
  led_[work.ref] = {work.place, task_environment(work, sandbox), work};
  shell_->start({work, start.line_up});
}

void MpiRunner::put_launcher_before(Assignment& work) const {
  auto header = std::make_shared<SubmissionHeader>(*work.header);
  json body = json::parse(work.function->body.view(), nullptr, false);
  std::optional<Arguments> arguments = read_arguments(work.arguments.view());
  for (json* each : {&body, arguments ? &arguments->values : nullptr}) {
    if (each == nullptr || !each->is_object()) continue;
    per_rank_output(*each, "stdout", "FARCALL_RANK_STDOUT", header->environment);
    per_rank_output(*each, "stderr", "FARCALL_RANK_STDERR", header->environment);
  }
  const bool program = work.function->record.kind == FunctionKind::kMpiProgram;
  if (program && arguments && arguments->values.contains("argv")) {
    json& argv = arguments->values["argv"];
    json words = launch_words(*work.place, *header, tool_.string());
    for (const json& word : argv) words.push_back(word);
    if (argv.is_array()) argv = std::move(words);
  } else if (program && body.is_object() && body.contains("cmd") && body["cmd"].is_string()) {
    body["cmd"] = "$FARCALL_MPI_PREFIX " + body["cmd"].get<std::string>();
  }
  if (body.is_object())
    work.function = std::make_shared<Function>(Function{work.function->record, Bytes(body.dump())});
  if (arguments) work.arguments = write_arguments(*arguments);
  work.header = std::move(header);
}

void MpiRunner::kill(const AttemptRef& ref) { shell_->kill(ref); }

void MpiRunner::end(const AttemptRef& ref, const FailureText& why) { shell_->end(ref, why); }

std::vector<pid_t> MpiRunner::processes_of(const AttemptRef& ref) const {
  return shell_->processes_of(ref);
}

void MpiRunner::dismiss_askers(const AttemptRef& ref) {
  std::erase_if(askers_, [&](const auto& item) {
    if (!(item.second->attempt == ref) || item.second->request == 0) return false;
    poller_.remove(item.first);
    close(item.first);
    return true;
  });
}

void MpiRunner::over(const AttemptRef& ref) {
  dismiss_askers(ref);
  if (const auto led = led_.find(ref); led != led_.end() && led->second.work)
    remove_shared_sandbox(settings_, *led->second.work);
  led_.erase(ref);
  std::error_code ignored;
  std::filesystem::remove_all(directory_of(ref), ignored);
}

void MpiRunner::on_finished(Finished finished) {
  over(finished.ref);
  if (finished.outcome.state == TaskState::kSucceeded && finished.outcome.exit_code != 0) {
    const auto result = shell_result_of(finished.data);
    const LauncherVerdict verdict =
        result ? read_launcher(result->err, finished.outcome.exit_code) : LauncherVerdict{};
    if (verdict.not_shared) {
      finished.outcome.state = TaskState::kFailed;
      finished.outcome.failure = FailureClass::kEnvironment;
      finished.data = failure_data(
          {"FilesNotStaged",
           "the nodes of the task do not share its directory. The launcher said:\n" + result->err,
           FailureClass::kEnvironment, settings_.node, 0, "", finished.ref.attempt});
    } else if (verdict.node_lost) {
      finished.outcome.state = TaskState::kFailed;
      finished.outcome.failure = FailureClass::kLost;
      finished.data =
          failure_data({"TaskLost",
                        "the launcher lost a node of the task, or could not start "
                        "there. It said:\n" +
                            result->err,
                        FailureClass::kLost, settings_.node, 0, "", finished.ref.attempt});
    } else if (finished.outcome.signal == 0) {
      finished.outcome.signal = verdict.signal;
    }
  }
  events_.finished(std::move(finished));
}

// --- what mpirun wants on other nodes ------------------------------------------------------------

void MpiRunner::on_connection() {
  const int fd = accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  askers_[fd] = std::make_unique<Asker>();
  poller_.add(fd, [this, fd](bool, bool) { on_asker(fd); });
}

void MpiRunner::on_asker(int fd) {
  Asker& asker = *askers_.at(fd);
  char buffer[4096];
  const ssize_t got = read(fd, buffer, sizeof buffer);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0 || asker.text.size() > kRequestBytesMax) {
    poller_.remove(fd);
    close(fd);
    askers_.erase(fd);
    return;
  }
  asker.text.append(buffer, static_cast<std::size_t>(got));
  const auto end = asker.text.find('\n');
  if (end != std::string::npos && asker.request == 0) ask(asker, asker.text.substr(0, end));
}

void MpiRunner::ask(Asker& asker, const std::string& text) {
  asker.request = ++last_request_;
  json request = json::parse(text, nullptr, false);
  if (!request.is_object()) request = json::object();
  wire::Spawn spawn;
  spawn.request = asker.request;
  const auto task = TaskId::parse(request.value("task", ""));
  if (task) {
    spawn.attempt = {task->submission, task->index,
                     static_cast<std::uint16_t>(request.value("attempt", 0))};
    asker.attempt = spawn.attempt;
  }
  auto& from = request.value("pool", false) ? pools_ : led_;
  const auto led = from.find(spawn.attempt);
  if (led == from.end())
    return on_guest_ended({spawn.attempt, spawn.request, 255, "this task does not run here"});
  const std::string host = request.value("host", "");
  const wire::NodeShare* found = nullptr;
  for (const wire::NodeShare& share : led->second.place->shares)
    if (found == nullptr && short_name(share.node) == short_name(host)) found = &share;
  if (found == nullptr)
    return on_guest_ended(
        {spawn.attempt, spawn.request, 255, "the task was not given node " + host});
  spawn.node_rank = found->node_rank;
  spawn.command = request.value("command", "");
  spawn.directory = request.value("directory", "");
  spawn.environment = led->second.environment;
  mpi_.spawn(std::move(spawn));
}

void MpiRunner::on_guest_ended(const wire::Spawned& spawned) {
  for (const auto& [fd, asker] : askers_)
    if (asker->request == spawned.request && asker->attempt == spawned.attempt)
      return answer(fd, spawned.code, spawned.text);
}

void MpiRunner::answer(int fd, int code, const std::string& text) {
  const std::string line =
      json{{"code", code}, {"text", text}}.dump(-1, ' ', false, json::error_handler_t::replace);
  if (send(fd, line.data(), line.size(), MSG_NOSIGNAL) < 0)
    log_warn("a launcher did not wait for its answer: {}", std::strerror(errno));
  poller_.remove(fd);
  close(fd);
  askers_.erase(fd);
}

// --- for tasks led elsewhere ---------------------------------------------------------------------

void MpiRunner::start_guest(const wire::Spawn& spawn) {
  const auto refuse = [&](const std::string& why) {
    mpi_.ended({spawn.attempt, spawn.request, 255, why});
  };
  // Made by its own leader's name for it, so that nobody can have another one removed.
  std::string directory = directory_of(spawn.attempt).string();
  const auto named = spawn.environment.find("OMPI_MCA_orte_tmpdir_base");
  const bool pool = named != spawn.environment.end() &&
                    named->second.starts_with(directory + "-pool-") &&
                    named->second.find('/', directory.size()) == std::string::npos;
  if (pool) directory = named->second;
  std::error_code error;
  const auto sandbox = spawn.environment.find("FARCALL_SANDBOX");
  if (sandbox != spawn.environment.end() && !std::filesystem::is_directory(sandbox->second, error))
    return refuse(
        fmt::format("{} sees no directory {}, which the first node of the task has made; {}",
                    settings_.node, sandbox->second, kNotShared));
  if (auto made = make_directory(directory, 0700); !made) return refuse(made.error().message);
  Spawn what;
  what.argv = {"/bin/sh", "-c", spawn.command};
  what.environment = process_environment();
  for (const auto& [name, value] : spawn.environment) what.environment[name] = value;
  if (std::filesystem::is_directory(spawn.directory, error)) what.directory = spawn.directory;
  const int err = open(settings_.scratch.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  what.err = err;
  auto pid = pilot::spawn(what);
  if (!pid) {
    if (err >= 0) close(err);
    return refuse(pid.error().message);
  }
  guests_[*pid] = {spawn, err, pool ? directory : ""};
  poller_.on_exit(*pid, [this, child = *pid](int status) { on_guest_exit(child, status); });
}

void MpiRunner::on_guest_exit(pid_t pid, int status) {
  const GuestProcess guest = guests_.at(pid);
  guests_.erase(pid);
  const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  const std::string said = tail_of(guest.err);
  if (guest.err >= 0) close(guest.err);
  std::error_code ignored;
  if (!guest.pool_directory.empty()) std::filesystem::remove_all(guest.pool_directory, ignored);
  mpi_.ended({guest.spawn.attempt, guest.spawn.request, code, code == 0 ? "" : said});
}

void MpiRunner::end_guest(const AttemptRef& ref) {
  for (const auto& [pid, guest] : guests_)
    if (guest.spawn.attempt == ref && guest.pool_directory.empty()) kill_tree(pid);
  // mpirun's daemons have left their parents and are ours now.
  const std::string task = TaskId{ref.submission, ref.index}.string();
  kill_left_behind([this](pid_t pid) { return poller_.is_ours(pid); },
                   [&](const std::string& other) { return other == task; });
  std::error_code ignored;
  std::filesystem::remove_all(directory_of(ref), ignored);
}

}  // namespace farcall::pilot
