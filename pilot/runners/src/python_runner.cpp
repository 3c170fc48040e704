#include "pilot/runners/python_runner.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "pilot/core/failure.h"
#include "pilot/runners/frame.h"
#include "pilot/runners/process.h"

namespace farcall::pilot {

using wire::AttemptRef;

struct PythonRunner::Reader : FrameReader {};

struct PythonRunner::Worker {
  std::uint64_t id = 0;
  int fd = -1;
  pid_t pid = 0;  // 0: the fork is not reported yet
  std::deque<Queued> queue;
  std::map<FunctionId, std::uint32_t> functions;  // sent to it, with their numbers there
  std::map<std::map<std::string, std::string>, std::uint32_t> environments;  // likewise
  std::uint64_t last_sequence = 0;
  std::string out;  // not written yet
  std::size_t written = 0;
  bool wants_write = false;
  bool closed = false;  // nothing more comes from it
  bool killing = false;
  bool retired = false;                // gets nothing more: it has run as many tasks as it may
  std::uint32_t tasks = 0;             // that it has run
  std::optional<FailureText> verdict;  // of the head, for which it is being killed
  bool died_with_template = false;     // before it had begun anything
  std::optional<AttemptRef> target;    // for whom it is being killed
  std::shared_ptr<const Processors> own, bound;  // nullptr: as the pilot is
  FrameReader reader;
};

namespace {

constexpr std::size_t kEnvironmentsMax = 256;  // that a worker remembers

}  // namespace

PythonRunner::PythonRunner(Poller& poller, RunnerSettings settings, RunnerEvents events)
    : poller_(poller), settings_(std::move(settings)), events_(std::move(events)) {}

PythonRunner::~PythonRunner() {
  if (backoff_ != 0) poller_.cancel(backoff_);
  for (auto& [id, worker] : workers_) {
    if (worker->pid > 0) kill_tree(worker->pid);
    poller_.remove(worker->fd);
    close(worker->fd);
  }
  if (template_pid_ > 0) {
    kill_tree(template_pid_);
    poller_.on_exit(template_pid_, [](int) {});
  }
  close_template();
}

// --- the template process ------------------------------------------------------------------------

void PythonRunner::start_template() {
  const auto environment = process_environment();
  const auto path = environment.find("PATH");
  const std::string program =
      find_program(settings_.python, path == environment.end() ? "" : path->second);
  if (program.empty())
    return template_failed(fmt::format(
        "the Python interpreter '{}' was not found on {}: set `python:` of the endpoint, or make "
        "it "
        "available in `worker_init`; looked on PATH={}",
        settings_.python, settings_.node, path == environment.end() ? "" : path->second));

  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return template_failed(fmt::format("no socket for the Python workers: {}", strerror(errno)));
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  log_ = std::make_unique<OutputLog>(poller_, settings_.scratch / "python.log");

  Spawn what;
  what.argv = {program, "-u", (settings_.runner_directory / "python_runner.py").string(),
               "--socket-fd", std::to_string(ends[1])};
  if (!settings_.preload.empty()) {
    what.argv.push_back("--preload");
    what.argv.push_back(fmt::format("{}", fmt::join(settings_.preload, ",")));
  }
  if (!settings_.results.empty())
    what.argv.insert(what.argv.end(), {"--results", settings_.results, "--results-gzip",
                                       std::to_string(settings_.results_gzip)});
  what.environment = environment;
  what.out = what.err = log_->writer();
  what.inherited = ends[1];
  auto pid = spawn(what);
  close(ends[1]);
  log_->close_writer();
  if (!pid) {
    close(ends[0]);
    return template_failed(pid.error().message);
  }
  log_info("python: started {} as process {}", program, *pid);
  template_pid_ = *pid;
  template_fd_ = ends[0];
  template_ready_ = false;
  template_reader_ = std::make_unique<Reader>();
  poller_.on_exit(*pid, [this](int status) { on_template_exit(status); });
  poller_.add(template_fd_, [this](bool readable, bool) { on_template_ready(readable); });
}

void PythonRunner::close_template() {
  if (template_fd_ < 0) return;
  poller_.remove(template_fd_);
  close(template_fd_);
  template_fd_ = -1;
}

std::string PythonRunner::template_said() { return log_ == nullptr ? "" : log_->tail(); }

void PythonRunner::on_template_ready(bool readable) {
  // Its end is told by its exit status.
  if (readable && !read_template()) {
    const pid_t pid = template_pid_;
    close_template();
    if (pid > 0) ::kill(pid, SIGKILL);
  }
}

// False: the socket has ended or speaks nonsense.
bool PythonRunner::read_template() {
  char buffer[16384];
  while (template_fd_ >= 0) {
    const ssize_t got = recv(template_fd_, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
    if (got <= 0) return false;
    template_reader_->append(buffer, static_cast<std::size_t>(got));
    for (;;) {
      auto frame = template_reader_->next();
      if (!frame) {
        log_error("python: the template process sent {}", frame.error().message);
        return false;
      }
      if (!*frame) break;
      const auto& header = (*frame)->header;
      const std::string op = header.value("op", "");
      const std::uint64_t id = header.value("worker", std::uint64_t{0});
      auto worker = workers_.find(id);
      if (op == "hello") {
        template_ready_ = true;
        log_info("python: version {} is ready", header.value("python_version", "unknown"));
      } else if (worker == workers_.end()) {
        continue;  // of a worker that was given up
      } else if (op == "forked") {
        worker->second->pid = header.value("pid", 0);
        begin_head(*worker->second);
      } else if (op == "exited") {
        on_worker_exit(id, header.value("status", 0));
      } else if (op == "fork_failed") {
        end_worker(id, FailureClass::kEnvironment,
                   fmt::format("no Python worker could be started on {}: {}", settings_.node,
                               header.value("error", "")),
                   0);
      }
    }
  }
  return true;
}

void PythonRunner::on_template_exit(int status) {
  const bool was_ready = template_ready_;
  if (template_fd_ >= 0) read_template();
  close_template();
  template_pid_ = 0;
  template_ready_ = false;
  const std::string said = template_said();
  if (!was_ready)
    return template_failed(fmt::format("the Python interpreter {} cannot run on {}: it {}{}{}",
                                       settings_.python, settings_.node, status_text(status),
                                       said.empty() ? "" : " and said: ", said));
  log_warn("python: the template process {}; its {} workers end", status_text(status),
           workers_.size());
  begin_backoff();
  while (!workers_.empty()) {
    Worker& worker = *workers_.begin()->second;
    if (worker.pid > 0) kill_tree(worker.pid);
    read_worker(worker);
    worker.died_with_template = worker.pid == 0;
    end_worker(worker.id, FailureClass::kCrash,
               fmt::format("the template process of the Python workers {} on {} under the task",
                           status_text(status), settings_.node),
               status);
  }
}

void PythonRunner::template_failed(const std::string& why) {
  log_warn("python: {}", why);
  // Everything that waits for it learns why; what comes later waits a while for another attempt, so
  // that a broken node does not eat a queue in a second.
  last_failure_ = why;
  begin_backoff();
  std::vector<Assignment> failed;
  for (auto& [id, worker] : workers_) {
    for (Queued& queued : worker->queue) failed.push_back(queued.work);
    poller_.remove(worker->fd);
    close(worker->fd);
  }
  workers_.clear();
  dirty_.clear();
  for (const Assignment& work : failed) {
    where_.erase(work.ref);
    fail(work, FailureClass::kEnvironment, "WorkerCannotStart", why, 0);
  }
}

// --- workers -------------------------------------------------------------------------------------

PythonRunner::Worker* PythonRunner::new_worker() {
  if (template_pid_ == 0) start_template();
  if (template_fd_ < 0) return nullptr;
  auto worker = std::make_unique<Worker>();
  worker->id = ++last_worker_;
  int ends[2] = {-1, -1};
  FARCALL_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0,
                std::string("no socket for a Python worker: ") + strerror(errno));
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  worker->fd = ends[0];
  Worker& made = *worker;
  const std::uint64_t id = made.id;
  workers_.emplace(id, std::move(worker));
  poller_.add(made.fd, [this, id](bool readable, bool writable) {
    on_worker_ready(id, readable, writable);
  });
  if (!request_fork(made, ends[1])) ::kill(template_pid_, SIGKILL);
  close(ends[1]);
  return &made;
}

bool PythonRunner::request_fork(Worker& worker, int worker_end) {
  std::string text;
  append_frame(text, {{"op", "fork"}, {"worker", worker.id}});
  iovec data{text.data(), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* item = CMSG_FIRSTHDR(&message);
  item->cmsg_level = SOL_SOCKET;
  item->cmsg_type = SCM_RIGHTS;
  item->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(item), &worker_end, sizeof(int));
  // A request is some bytes and a stream socket takes hundreds of them; a template that does not
  // read for this long is dead.
  for (int i = 0; i < 10; ++i) {
    const ssize_t sent = sendmsg(template_fd_, &message, MSG_NOSIGNAL);
    if (sent == static_cast<ssize_t>(text.size())) return true;
    if (sent >= 0 || (errno != EAGAIN && errno != EINTR)) return false;
    pollfd wait{template_fd_, POLLOUT, 0};
    poll(&wait, 1, 1000);
  }
  return false;
}

// An idle worker that knows the function, an idle one, a new one; what may line up: the one with
// the least to do once every slot has its worker. nullptr: none can be started, last_failure_ says
// why.
PythonRunner::Worker* PythonRunner::choose(const Start& start) {
  Worker* idle = nullptr;
  Worker* least = nullptr;
  for (auto& [id, worker] : workers_) {
    if (worker->killing || worker->closed || worker->retired) continue;
    if (worker->queue.empty()) {
      if (worker->functions.contains(start.work.function->record.id)) return worker.get();
      idle = worker.get();
    }
    if (least == nullptr || worker->queue.size() < least->queue.size()) least = worker.get();
  }
  if (idle != nullptr) return idle;
  if (start.line_up && least != nullptr && workers_.size() >= settings_.slots) return least;
  return new_worker();
}

void PythonRunner::start(const Start& start) {
  if (backoff_ != 0) {
    waiting_.push_back(start);
    return;
  }
  if (Worker* worker = choose(start)) return assign(*worker, start.work);
  fail(start.work, FailureClass::kEnvironment, "WorkerCannotStart", last_failure_, 0);
}

void PythonRunner::begin_backoff() {
  const auto delay = std::chrono::seconds(1) * (1 << std::min(failures_in_a_row_++, 5));
  backoff_ = poller_.after(delay, [this] {
    backoff_ = 0;
    for (Start& start : std::exchange(waiting_, {})) {
      Worker* worker = backoff_ == 0 ? choose(start) : nullptr;
      if (worker != nullptr)
        assign(*worker, start.work);
      else
        fail(start.work, FailureClass::kEnvironment, "WorkerCannotStart", last_failure_, 0);
    }
    flush();
  });
}

void PythonRunner::assign(Worker& worker, const Assignment& work) {
  Queued queued{work, false, "", ++worker.last_sequence};
  if (work.header->sandbox) {
    auto sandbox = make_sandbox(settings_, work);
    if (!sandbox)
      return fail(work, FailureClass::kEnvironment, "NoSandbox", sandbox.error().message, 0);
    queued.sandbox = *sandbox;
  }
  if (settings_.affinity != nullptr) bind(worker, work);
  send_function(worker, work);
  const std::uint32_t number = worker.functions.at(work.function->record.id);
  const std::string task = work.task().string();
  const auto& variables = work.header->environment;
  const bool known = variables.empty() || worker.environments.size() < kEnvironmentsMax ||
                     worker.environments.contains(variables);
  const std::string directory = directory_of(work, queued.sandbox);
  const bool streams = wishes_of(*work.header).stream_output;
  if (directory.empty() && known && !streams && work.blobs.empty()) {
    const std::uint32_t environment = send_environment(worker, variables);
    append_run(worker.out, {queued.sequence, number, environment, work.ref.attempt, task},
               work.arguments.view());
  } else {
    nlohmann::json run = {{"op", "run"},
                          {"sequence", queued.sequence},
                          {"task", task},
                          {"attempt", work.ref.attempt},
                          {"function", number}};
    if (!directory.empty()) run["cwd"] = directory;
    if (streams) run["stream"] = true;
    if (!work.blobs.empty()) run["blobs"] = work.blobs;
    // What names the task is set by the worker itself.
    run["env"] = variables;
    if (!queued.sandbox.empty())
      run["env"]["FARCALL_SANDBOX"] = run["env"]["GC_TASK_SANDBOX_DIR"] = queued.sandbox;
    append_frame(worker.out, run, work.arguments.view());
  }
  where_[work.ref] = worker.id;
  worker.queue.push_back(std::move(queued));
  dirty_.insert(worker.id);
  if (worker.queue.size() == 1 && worker.pid > 0) begin_head(worker);
}

// In the order of its tasks.
void PythonRunner::bind(Worker& worker, const Assignment& work) {
  if (worker.own == nullptr) worker.own = settings_.affinity->take();
  auto wanted = settings_.affinity->of(work, worker.own);
  if (wanted == worker.bound) return;
  append_frame(worker.out, {{"op", "bind"}, {"processors", *wanted}});
  worker.bound = std::move(wanted);
}

void PythonRunner::send_function(Worker& worker, const Assignment& work) {
  const Function& function = *work.function;
  const auto& record = function.record;
  const auto number = static_cast<std::uint32_t>(worker.functions.size() + 1);
  if (!worker.functions.emplace(record.id, number).second) return;
  auto meta = nlohmann::json::parse(record.meta, nullptr, false);
  append_frame(worker.out,
               {{"op", "function"},
                {"number", number},
                {"id", record.id.string()},
                {"kind", name_of(record.kind)},
                {"name", record.name},
                {"blobs", work.blobs},
                {"meta", meta.is_object() ? meta : nlohmann::json::object()}},
               function.body.view());
}

// Its number there; sent with the first task that has it.
std::uint32_t PythonRunner::send_environment(
    Worker& worker, const std::map<std::string, std::string>& environment) {
  if (environment.empty()) return 0;
  const auto number = static_cast<std::uint32_t>(worker.environments.size() + 1);
  auto [known, is_new] = worker.environments.emplace(environment, number);
  if (is_new)
    append_frame(worker.out, {{"op", "environment"}, {"number", number}, {"env", environment}});
  return known->second;
}

void PythonRunner::begin_head(Worker& worker) {
  if (worker.queue.empty() || worker.killing) return;
  Queued& head = worker.queue.front();
  if (head.kill_wanted) {
    worker.target = head.work.ref;
    return kill_worker(worker);
  }
  events_.began(head.work.ref);
}

void PythonRunner::flush() {
  for (std::uint64_t id : std::exchange(dirty_, {}))
    if (auto worker = workers_.find(id); worker != workers_.end()) write(*worker->second);
}

void PythonRunner::write(Worker& worker) {
  send_what_fits(worker.fd, worker.out, worker.written);
  const bool wants_write = !worker.out.empty() && !worker.closed;
  if (wants_write != worker.wants_write) poller_.want_write(worker.fd, wants_write);
  worker.wants_write = wants_write;
}

void PythonRunner::on_worker_ready(std::uint64_t id, bool readable, bool writable) {
  auto found = workers_.find(id);
  if (found == workers_.end()) return;
  if (readable) read_worker(*found->second);
  if (writable && workers_.contains(id) && !found->second->closed) write(*found->second);
}

void PythonRunner::read_worker(Worker& worker) {
  char buffer[65536];
  while (!worker.closed) {
    const ssize_t got = recv(worker.fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    bool ended = got <= 0;
    if (!ended) worker.reader.append(buffer, static_cast<std::size_t>(got));
    while (!ended) {
      auto frame = worker.reader.next();
      if (frame && !*frame) break;
      if (frame && !(*frame)->packed.empty()) {
        on_done(worker, (*frame)->packed, std::move((*frame)->body));
      } else if (frame) {
        on_note(worker, (*frame)->header, (*frame)->body);
      } else {
        log_warn("python: worker {} sent {}", worker.pid, frame.error().message);
        ended = true;
      }
    }
    if (!ended) continue;
    // Whoever closes its socket is of no more use; its exit status comes from the template.
    worker.closed = true;
    poller_.remove(worker.fd);
    if (!worker.killing && worker.pid > 0) kill_worker(worker);
  }
}

void PythonRunner::on_note(Worker& worker, const nlohmann::json& header, const Bytes& data) {
  if (!worker.queue.empty() && events_.note && header.value("op", "") == "note")
    events_.note(worker.queue.front().work.ref, note_of(header, data));
}

void PythonRunner::on_done(Worker& worker, const std::string& header, Bytes data) {
  const auto done = read_done(header);
  if (!done || worker.queue.empty() || done->sequence != worker.queue.front().sequence ||
      done->failure >= kFailureClassCount) {
    log_warn("python: worker {} answered what it was not asked: {} bytes", worker.pid,
             header.size());
    return;
  }
  Finished finished{worker.queue.front().work.ref, {}, std::move(data)};
  finished.outcome.failure = static_cast<FailureClass>(done->failure);
  finished.outcome.state =
      finished.outcome.failure == FailureClass::kNone ? TaskState::kSucceeded : TaskState::kFailed;
  finished.outcome.started_ms = done->started_ms;
  finished.outcome.ended_ms = done->ended_ms;
  failures_in_a_row_ = 0;
  where_.erase(finished.ref);
  worker.queue.pop_front();
  ++worker.tasks;
  events_.finished(std::move(finished));
  if (settings_.recycle_after > 0 && worker.tasks >= settings_.recycle_after) worker.retired = true;
  // What is lined up there is still run; then it reads the end of its socket and goes.
  if (worker.retired && worker.queue.empty()) shutdown(worker.fd, SHUT_WR);
  begin_head(worker);
}

void PythonRunner::on_worker_exit(std::uint64_t id, int status) {
  Worker& worker = *workers_.at(id);
  read_worker(worker);           // what it wrote before
  ::kill(-worker.pid, SIGKILL);  // what it left in its group
  std::string text = fmt::format("the Python worker {} on {} while it ran the task",
                                 status_text(status), settings_.node);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
    text += "; if nobody did that by hand, the node ran out of memory";
  if (!worker.queue.empty()) {
    const std::string said = template_said();
    const auto line = said.rfind('\n');
    if (!worker.killing && WIFSIGNALED(status) && !said.empty())
      text += "; the last line of its output: " +
              (line == std::string::npos ? said : said.substr(line + 1));
  }
  end_worker(id, FailureClass::kCrash, text, status);
}

void PythonRunner::end_worker(std::uint64_t id, FailureClass head_failure, const std::string& text,
                              int status) {
  std::unique_ptr<Worker> worker = std::move(workers_.at(id));
  workers_.erase(id);
  dirty_.erase(id);
  poller_.remove(worker->fd);
  close(worker->fd);
  bool is_head = true;
  for (Queued& queued : worker->queue) {
    const AttemptRef ref = queued.work.ref;
    where_.erase(ref);
    if (is_head && worker->verdict && worker->target == ref)
      events_.finished(failed_attempt(ref, *worker->verdict, status));
    else if (is_head && worker->target == ref)
      events_.killed(ref);
    else if (is_head && !worker->target && !worker->died_with_template)
      fail(queued.work, head_failure,
           head_failure == FailureClass::kCrash ? "WorkerCrashed" : "WorkerCannotStart", text,
           status);
    else
      events_.returned(ref);
    is_head = false;
  }
}

void PythonRunner::kill_worker(Worker& worker) {
  worker.killing = true;
  if (worker.pid > 0) kill_tree(worker.pid);
}

void PythonRunner::kill(const AttemptRef& ref) {
  for (auto start = waiting_.begin(); start != waiting_.end(); ++start) {
    if (!(start->work.ref == ref)) continue;
    waiting_.erase(start);
    return events_.killed(ref);
  }
  auto where = where_.find(ref);
  if (where == where_.end()) return;
  Worker& worker = *workers_.at(where->second);
  for (Queued& queued : worker.queue)
    if (queued.work.ref == ref) queued.kill_wanted = true;
  if (worker.pid > 0 && worker.queue.front().kill_wanted) begin_head(worker);
}

void PythonRunner::end(const AttemptRef& ref, const FailureText& why) {
  auto where = where_.find(ref);
  if (where == where_.end()) return;
  Worker& worker = *workers_.at(where->second);
  // Only what runs can have used too much.
  if (worker.killing || worker.pid == 0 || !(worker.queue.front().work.ref == ref)) return;
  worker.target = ref;
  worker.verdict = why;
  kill_worker(worker);
}

std::vector<pid_t> PythonRunner::processes_of(const AttemptRef& ref) const {
  const pid_t pid = worker_of(ref);
  return pid == 0 ? std::vector<pid_t>{} : std::vector<pid_t>{pid};
}

void PythonRunner::fail(const Assignment& work, FailureClass failure, const std::string& type,
                        const std::string& text, int status) {
  events_.finished(failed_attempt(work.ref, {type, text, failure, settings_.node}, status));
}

pid_t PythonRunner::worker_of(const AttemptRef& ref) const {
  auto where = where_.find(ref);
  if (where == where_.end()) return 0;
  const Worker& worker = *workers_.at(where->second);
  return worker.queue.front().work.ref == ref ? worker.pid : 0;
}

}  // namespace farcall::pilot
