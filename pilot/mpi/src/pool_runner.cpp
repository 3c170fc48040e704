#include "pilot/mpi/pool_runner.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/keys.h"
#include "base/log.h"
#include "pilot/core/failure.h"
#include "pilot/mpi/far_files.h"
#include "pilot/mpi/launch.h"
#include "pilot/runners/frame.h"
#include "pilot/runners/process.h"

namespace farcall::pilot {

using nlohmann::json;
using wire::AttemptRef;

namespace {

// After a rank of a task has failed, the others may still be on their way to the same end; those
// that wait for it in MPI never come.
constexpr Duration kOthersLimit = std::chrono::seconds(2);
constexpr Duration kIdleLimit = std::chrono::minutes(5);
constexpr Duration kStopLimit = std::chrono::seconds(5);

std::string tail(const std::filesystem::path& path) {
  std::string text = read_file(path).value_or("");
  if (text.size() > kSaidBytesMax) text.erase(0, text.size() - kSaidBytesMax);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

bool wants_own(const Assignment& work) {
  return work.header->environment.contains("FARCALL_OWN_POOL");
}

std::string key_of(const AttemptRef& ref) {
  return fmt::format("{}.{}", TaskId{ref.submission, ref.index}.string(), ref.attempt);
}

}  // namespace

struct PoolRunner::Task {
  Assignment work;
  std::vector<int> ranks;  // of the pool, in the order of the task's
  bool sent = false;
  bool killing = false;
  bool over = false;                   // its outcome is told, but some of its ranks may not be free
  std::optional<FailureText> verdict;  // for which it is being killed
};

struct PoolRunner::Pool {
  std::uint64_t id = 0;
  pid_t pid = 0;
  AttemptRef founder;                // under whose name it is started on other nodes
  std::vector<std::string> node_of;  // by rank; rank 0 passes messages on and runs nothing
  std::vector<bool> busy;
  bool own = false;  // of one task alone
  bool ending = false;
  int fd = -1;  // of its rank 0; -1: still starting
  FrameReader reader;
  std::string out;
  std::set<FunctionId> functions;
  std::map<AttemptRef, Task> tasks;
  int gone_rank = -1;              // the first whose connection was lost
  Poller::TimerId gone_timer = 0;  // by then its process has ended too
  std::filesystem::path log, directory;
  Poller::TimerId timer = 0;  // idle, or waiting for the ranks of a failed task

  bool stuck() const {
    return std::any_of(tasks.begin(), tasks.end(),
                       [](const auto& item) { return item.second.over; });
  }
};

PoolRunner::PoolRunner(Poller& poller, RunnerSettings settings, MpiRunner& launcher,
                       RunnerEvents events)
    : poller_(poller),
      settings_(std::move(settings)),
      launcher_(launcher),
      events_(events),
      token_(make_key_pair().secret_key) {
  events_.finished = [this, told = events.finished](Finished finished) {
    over(finished.ref);
    told(std::move(finished));
  };
  events_.returned = [this, told = events.returned](const AttemptRef& ref) {
    over(ref);
    told(ref);
  };
  events_.killed = [this, told = events.killed](const AttemptRef& ref) {
    over(ref);
    told(ref);
  };
  listen();
}

PoolRunner::~PoolRunner() {
  for (auto& [id, pool] : pools_) {
    cancel_timers(*pool);
    if (pool->fd >= 0) {
      poller_.remove(pool->fd);
      close(pool->fd);
    }
    kill_tree(pool->pid);
    poller_.on_exit(pool->pid, [](int) {});
    std::error_code ignored;
    std::filesystem::remove_all(pool->directory, ignored);
  }
  for (const auto& [fd, text] : strangers_) {
    poller_.remove(fd);
    close(fd);
  }
  for (const auto& [ref, work] : sandboxed_) remove_shared_sandbox(settings_, work);
  if (socket_ < 0) return;
  poller_.remove(socket_);
  close(socket_);
  unlink(socket_path_.c_str());
}

// --- pools come up -------------------------------------------------------------------------------

void PoolRunner::listen() {
  auto made = listen_unix(settings_.scratch / "pools", settings_.incarnation);
  if (!made) {
    log_error("no MPI functions can be run here: {}", made.error().message);
    return;
  }
  socket_ = made->fd;
  socket_path_ = made->path;
  poller_.add(socket_, [this](bool, bool) { on_connection(); });
}

void PoolRunner::on_connection() {
  const int fd = accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  strangers_[fd];
  poller_.add(fd, [this, fd](bool, bool) { on_hello(fd); });
}

void PoolRunner::on_hello(int fd) {
  char buffer[4096];
  const ssize_t got = ::read(fd, buffer, sizeof buffer);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  std::string& said = strangers_.at(fd);
  if (got > 0) said.append(buffer, static_cast<std::size_t>(got));
  FrameReader reader;
  reader.append(said.data(), said.size());
  auto frame = reader.next();
  if (got > 0 && frame && !*frame) return;
  strangers_.erase(fd);
  poller_.remove(fd);
  const auto found = frame && *frame ? pools_.find((*frame)->header.value("pool", std::uint64_t{0}))
                                     : pools_.end();
  if (found == pools_.end() || found->second->fd >= 0 ||
      (*frame)->header.value("token", "") != token_) {
    close(fd);
    return;
  }
  Pool& pool = *found->second;
  pool.fd = fd;
  poller_.add(fd, [this, id = pool.id](bool readable, bool writable) {
    if (writable && pools_.contains(id)) write(*pools_.at(id));
    if (readable && pools_.contains(id)) read(id);
  });
  log_info("MPI pool {}: {} ranks are ready", pool.id, pool.node_of.size() - 1);
  for (auto& [ref, task] : pool.tasks) send_task(pool, task);
  write(pool);
}

PoolRunner::Pool* PoolRunner::launch(const Assignment& work) {
  auto pool = std::make_unique<Pool>();
  pool->id = ++last_pool_;
  pool->founder = work.ref;
  pool->own = wants_own(work);
  pool->node_of.push_back(work.place->shares.front().node);
  wire::TaskPlace place = *work.place;
  for (wire::NodeShare& share : place.shares) {
    if (!pool->own) share.ranks = std::max(share.ranks, settings_.pool_ranks);
    pool->node_of.insert(pool->node_of.end(), share.ranks, share.node);
    share.gpus.clear();
  }
  ++place.shares.front().ranks;
  pool->busy.assign(pool->node_of.size(), false);
  pool->log = settings_.scratch / fmt::format("mpi-pool-{}.log", pool->id);
  pool->directory = fmt::format("{}-pool-{}-{}", MpiRunner::directory_of(work.ref).string(),
                                settings_.incarnation % 100000, pool->id);
  Spawn what;
  what.environment = process_environment();
  const std::string path = what.environment["PATH"];
  std::vector<std::string> words = launch_words(place, *work.header, "");
  words.resize(words.size() - 2);  // the ranks bind themselves, for each task anew
  words.push_back(find_program(settings_.python, path));
  words.push_back((settings_.runner_directory / "farcall_mpi_worker.py").string());
  if (words[words.size() - 2].empty()) words[words.size() - 2] = settings_.python;
  what.argv = words;
  what.argv[0] = find_program(words[0], path);
  auto environment = launcher_.lead_pool(work, pool->directory.string());
  environment["FARCALL_POOL"] = std::to_string(pool->id);
  environment["FARCALL_POOL_SOCKET"] = socket_path_;
  environment["FARCALL_POOL_TOKEN"] = token_;
  environment["PYTHONDONTWRITEBYTECODE"] = "1";
  for (auto& [name, value] : environment) what.environment[name] = value;
  const int log = open(pool->log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  what.out = what.err = log;
  const auto run = [&]() -> Result<pid_t> {
    if (what.argv[0].empty())
      return farcall::fail(ErrorCode::kNotFound, "mpirun was not found: looked on PATH={}", path);
    if (auto made = make_directory(pool->directory, 0700); !made)
      return farcall::fail(made.error());
    return spawn(what);
  };
  const Result<pid_t> pid = run();
  if (log >= 0) close(log);
  if (!pid) {
    fail(work, FailureClass::kEnvironment, "EnvironmentBroken",
         fmt::format("no MPI ranks can be started on {}: {}", settings_.node, pid.error().message),
         0);
    return nullptr;
  }
  pool->pid = *pid;
  poller_.on_exit(*pid, [this, id = pool->id](int status) { on_pool_exit(id, status); });
  log_info("MPI pool {}: {} ranks start on {} nodes", pool->id, pool->node_of.size() - 1,
           place.shares.size());
  return (pools_[pool->id] = std::move(pool)).get();
}

// --- tasks ---------------------------------------------------------------------------------------

bool PoolRunner::take_ranks(Pool& pool, const Assignment& work, std::vector<int>& ranks) const {
  std::vector<bool> taken = pool.busy;
  taken[0] = true;
  for (const wire::NodeShare& share : work.place->shares) {
    std::uint32_t left = share.ranks;
    for (std::size_t rank = 1; rank < taken.size() && left > 0; ++rank) {
      if (taken[rank] || pool.node_of[rank] != share.node) continue;
      taken[rank] = true;
      ranks.push_back(static_cast<int>(rank));
      --left;
    }
    if (left > 0) return false;
  }
  for (int rank : ranks) pool.busy[static_cast<std::size_t>(rank)] = true;
  return true;
}

PoolRunner::Pool* PoolRunner::find_pool(const Assignment& work) {
  if (wants_own(work)) return nullptr;
  for (auto& [id, pool] : pools_) {
    if (pool->ending || pool->own || pool->stuck() || pool->gone_rank >= 0) continue;
    std::vector<int> ranks;
    if (!take_ranks(*pool, work, ranks)) continue;
    pool->tasks[work.ref] = Task{work, std::move(ranks)};
    return pool.get();
  }
  return nullptr;
}

void PoolRunner::over(const AttemptRef& ref) {
  const auto found = sandboxed_.find(ref);
  if (found == sandboxed_.end()) return;
  remove_shared_sandbox(settings_, found->second);
  sandboxed_.erase(found);
}

void PoolRunner::start(const Start& start) {
  Assignment work = MpiRunner::with_place(start.work);
  if (work.header->sandbox) {
    if (auto made = make_sandbox(settings_, work); !made)
      return fail(work, FailureClass::kEnvironment, "NoSandbox", made.error().message, 0);
    work.arguments = copying_what_is_only_here(work, settings_.scratch);
    sandboxed_[work.ref] = work;
  }
  Pool* pool = find_pool(work);
  if (pool == nullptr) {
    pool = launch(work);
    if (pool == nullptr) return;
    std::vector<int> ranks;
    take_ranks(*pool, work, ranks);
    pool->tasks[work.ref] = Task{work, std::move(ranks)};
  }
  where_[work.ref] = pool->id;
  if (pool->timer != 0) poller_.cancel(std::exchange(pool->timer, 0));
  if (pool->fd < 0) return;
  send_task(*pool, pool->tasks.at(work.ref));
  write(*pool);
}

void PoolRunner::send_task(Pool& pool, Task& task) {
  const auto& record = task.work.function->record;
  json meta = json::parse(record.meta, nullptr, false);
  if (!meta.is_object()) meta = json::object();
  if (pool.functions.insert(record.id).second)
    append_frame(pool.out,
                 {{"op", "function"},
                  {"id", record.id.string()},
                  {"name", record.name},
                  {"meta", meta},
                  {"blobs", task.work.blobs}},
                 task.work.function->body.view());
  const std::string nodes = nodes_text(*task.work.place);
  json cores = json::array(), gpus = json::array();
  for (std::uint32_t rank = 0; rank < task.ranks.size(); ++rank) {
    const auto share = rank_share(nodes, rank);
    cores.push_back(share ? share->processors : std::vector<std::uint32_t>{});
    gpus.push_back(share ? share->gpus : std::vector<std::string>{});
  }
  const std::string sandbox =
      task.work.header->sandbox ? sandbox_of(settings_, task.work).value_or("") : "";
  append_frame(pool.out,
               {{"op", "run"},
                {"key", key_of(task.work.ref)},
                {"task", task.work.task().string()},
                {"attempt", task.work.ref.attempt},
                {"function", record.id.string()},
                {"ranks", task.ranks},
                {"cores", cores},
                {"gpus", gpus},
                {"env", task_environment(task.work, sandbox)},
                {"cwd", directory_of(task.work, sandbox)},
                {"blobs", task.work.blobs},
                {"only_here", only_here(task.work, settings_.scratch)},
                {"results", settings_.results},
                {"results_gzip", settings_.results_gzip},
                {"result", meta.value("result", "root")},
                {"tag", ++last_tag_}},
               task.work.arguments.view());
  task.sent = true;
  events_.began(task.work.ref);
}

void PoolRunner::write(Pool& pool) {
  while (pool.fd >= 0 && !pool.out.empty()) {
    const ssize_t sent = send(pool.fd, pool.out.data(), pool.out.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) break;
    pool.out.erase(0, static_cast<std::size_t>(sent));
  }
  if (pool.fd >= 0) poller_.want_write(pool.fd, !pool.out.empty());
}

void PoolRunner::read(std::uint64_t id) {
  char buffer[65536];
  while (pools_.contains(id)) {
    Pool& pool = *pools_.at(id);
    if (pool.fd < 0) return;
    const ssize_t got = recv(pool.fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (got <= 0) {  // its end follows
      poller_.remove(pool.fd);
      close(std::exchange(pool.fd, -1));
      pool.ending = true;
      return;
    }
    pool.reader.append(buffer, static_cast<std::size_t>(got));
    for (;;) {
      auto frame = pool.reader.next();
      if (!frame) {
        log_error("MPI pool {} sent {}", id, frame.error().message);
        return end_pool(pool);
      }
      if (!*frame) break;
      on_message(pool, (*frame)->header, std::move((*frame)->body));
    }
  }
}

void PoolRunner::on_message(Pool& pool, const json& header, Bytes data) {
  const std::string op = header.value("op", "");
  if (op == "gone") {
    if (!pool.ending && pool.gone_rank < 0) on_gone(pool, header.value("rank", -1));
    return;
  }
  const std::string key = header.value("key", "");
  const auto found = std::find_if(pool.tasks.begin(), pool.tasks.end(),
                                  [&](const auto& item) { return key_of(item.first) == key; });
  if (found == pool.tasks.end()) return;
  const AttemptRef ref = found->first;
  if (op == "freed") return free_ranks(pool, ref);
  if (op == "done" && !found->second.over) on_done(pool, header, std::move(data));
}

// The launcher ends the job when a process of it dies.
void PoolRunner::on_gone(Pool& pool, int rank) {
  pool.gone_rank = rank;
  pool.gone_timer = poller_.after(kStopLimit, [this, id = pool.id] {
    Pool& lame = *pools_.at(id);
    lame.gone_timer = 0;
    log_warn("MPI pool {} ends: rank {} has closed its connection", id, lame.gone_rank);
    end_pool(lame);
  });
}

void PoolRunner::cancel_timers(Pool& pool) {
  for (Poller::TimerId* timer : {&pool.timer, &pool.gone_timer})
    if (*timer != 0) poller_.cancel(std::exchange(*timer, 0));
}

void PoolRunner::on_done(Pool& pool, const json& header, Bytes data) {
  const std::string key = header.value("key", "");
  auto& [ref_in_map, task] =
      *std::find_if(pool.tasks.begin(), pool.tasks.end(),
                    [&](const auto& item) { return key_of(item.first) == key; });
  const AttemptRef ref = ref_in_map;
  Finished finished;
  finished.ref = ref;
  finished.outcome.started_ms = header.value("started_ms", std::int64_t{0});
  finished.outcome.ended_ms = header.value("ended_ms", std::int64_t{0});
  finished.data = std::move(data);
  const bool succeeded = header.value("state", "") == "succeeded";
  finished.outcome.state = succeeded ? TaskState::kSucceeded : TaskState::kFailed;
  if (!succeeded)
    finished.outcome.failure = header.value("class", "") == "environment"
                                   ? FailureClass::kEnvironment
                                   : FailureClass::kUserError;
  where_.erase(ref);
  if (succeeded) {
    free_ranks(pool, ref);
  } else {
    task.over = true;
    if (pool.timer == 0)
      pool.timer = poller_.after(kOthersLimit, [this, id = pool.id] {
        Pool& late = *pools_.at(id);
        late.timer = 0;
        log_warn("MPI pool {} ends: ranks of a failed task are stuck", id);
        end_pool(late);
      });
  }
  events_.finished(std::move(finished));
}

void PoolRunner::free_ranks(Pool& pool, const AttemptRef& ref) {
  const auto task = pool.tasks.find(ref);
  for (int rank : task->second.ranks) pool.busy[static_cast<std::size_t>(rank)] = false;
  pool.tasks.erase(task);
  if (!pool.stuck() && pool.timer != 0) poller_.cancel(std::exchange(pool.timer, 0));
  if (!pool.tasks.empty()) return;
  pool.timer = poller_.after(pool.own ? Duration{0} : kIdleLimit, [this, id = pool.id] {
    Pool& idle = *pools_.at(id);
    idle.timer = 0;
    idle.ending = true;
    if (idle.fd >= 0) {  // its ranks take that as their end
      poller_.remove(idle.fd);
      close(std::exchange(idle.fd, -1));
    }
    idle.timer = poller_.after(kStopLimit, [this, id] {
      pools_.at(id)->timer = 0;
      end_pool(*pools_.at(id));
    });
  });
}

void PoolRunner::kill(const AttemptRef& ref) {
  const auto where = where_.find(ref);
  if (where == where_.end()) return;
  Pool& pool = *pools_.at(where->second);
  pool.tasks.at(ref).killing = true;
  end_pool(pool);
}

void PoolRunner::end(const AttemptRef& ref, const FailureText& why) {
  const auto where = where_.find(ref);
  if (where == where_.end()) return;
  Pool& pool = *pools_.at(where->second);
  Task& task = pool.tasks.at(ref);
  if (task.killing || task.over) return;
  task.verdict = why;
  task.killing = true;
  end_pool(pool);
}

std::vector<pid_t> PoolRunner::processes_of(const AttemptRef& ref) const {
  const auto where = where_.find(ref);
  if (where == where_.end() || !pools_.at(where->second)->own) return {};
  return {pools_.at(where->second)->pid};
}

// --- pools end -----------------------------------------------------------------------------------

void PoolRunner::end_pool(Pool& pool) {
  pool.ending = true;
  kill_tree(pool.pid);
}

void PoolRunner::on_pool_exit(std::uint64_t id, int status) {
  if (pools_.at(id)->fd >= 0) read(id);  // its last words
  const std::unique_ptr<Pool> pool = std::move(pools_.at(id));
  pools_.erase(id);
  cancel_timers(*pool);
  if (pool->fd >= 0) {
    poller_.remove(pool->fd);
    close(pool->fd);
  }
  launcher_.end_pool(pool->founder);
  std::error_code ignored;
  std::filesystem::remove_all(pool->directory, ignored);
  const std::string said = tail(pool->log);
  std::filesystem::remove(pool->log, ignored);
  log_info("MPI pool {}: ended with status {}, {} tasks in it", id, status, pool->tasks.size());
  std::erase_if(pool->tasks, [](const auto& item) { return item.second.over; });
  for (const auto& [ref, task] : pool->tasks) where_.erase(ref);
  charge(*pool, said, status);
}

// Who is to blame pays; the others run again.
void PoolRunner::charge(const Pool& pool, const std::string& said, int status) {
  const bool killed =
      pool.ending && std::any_of(pool.tasks.begin(), pool.tasks.end(),
                                 [](const auto& item) { return item.second.killing; });
  const LauncherVerdict verdict = read_launcher(said, WIFEXITED(status) ? WEXITSTATUS(status) : 0);
  const int culprit_rank = verdict.rank >= 0 ? verdict.rank : pool.gone_rank;
  const auto has = [&](const Task& task) {
    return std::find(task.ranks.begin(), task.ranks.end(), culprit_rank) != task.ranks.end();
  };
  const bool known = std::any_of(pool.tasks.begin(), pool.tasks.end(),
                                 [&](const auto& item) { return has(item.second); });
  for (const auto& [ref, task] : pool.tasks) {
    if (task.verdict) {
      events_.finished(failed_attempt(ref, *task.verdict, status));
    } else if (task.killing) {
      events_.killed(ref);
    } else if (killed || (pool.ending && !known && WIFSIGNALED(status)) || (known && !has(task))) {
      events_.returned(ref);
    } else if (!task.sent) {
      fail(task.work, verdict.node_lost ? FailureClass::kLost : FailureClass::kEnvironment,
           verdict.node_lost ? "TaskLost" : "EnvironmentBroken",
           fmt::format("the MPI ranks for the task could not be started from {}. The launcher "
                       "said:\n{}",
                       settings_.node, said),
           0);
    } else if (known || (!verdict.node_lost && pool.tasks.size() == 1)) {
      const auto at = std::find(task.ranks.begin(), task.ranks.end(), culprit_rank);
      fail(task.work, FailureClass::kCrash, "WorkerCrashed",
           fmt::format("{} of the task died{}. The launcher said:\n{}",
                       at == task.ranks.end()
                           ? "a rank"
                           : fmt::format("rank {}", std::distance(task.ranks.begin(), at)),
                       verdict.signal == 0 ? "" : " by " + signal_text(verdict.signal), said),
           verdict.signal);
    } else {
      fail(task.work, FailureClass::kLost, "TaskLost",
           fmt::format("the MPI ranks of the task were lost. The launcher said:\n{}", said), 0);
    }
  }
}

void PoolRunner::fail(const Assignment& work, FailureClass failure, const std::string& type,
                      const std::string& text, int signal) {
  Finished finished;
  finished.ref = work.ref;
  finished.outcome.state = TaskState::kFailed;
  finished.outcome.failure = failure;
  finished.outcome.signal = signal;
  finished.data = failure_data({type, text, failure, settings_.node, signal, "", work.ref.attempt});
  events_.finished(std::move(finished));
}

}  // namespace farcall::pilot
