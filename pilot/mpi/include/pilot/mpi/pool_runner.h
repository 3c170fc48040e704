// MPI functions on warm ranks. A pool is one job of farcall_mpi_worker.py on nodes of this block,
// led from here: started with the first task that finds no idle ranks, as wide as that task. Idle
// ranks sleep and hold no core, so that a pool costs memory only; a task binds the ranks it gets to
// the cores it was given. Whatever ends a rank ends its pool: the task of that rank is charged, its
// neighbours run again.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <set>

#include "pilot/mpi/mpi_runner.h"

namespace farcall::pilot {

class PoolRunner : public Runner {
 public:
  // `launcher` outlives this.
  PoolRunner(Poller& poller, RunnerSettings settings, MpiRunner& launcher, RunnerEvents events);
  ~PoolRunner() override;  // ends all pools

  // REQUIRES: the work has a place with ranks.
  void start(const Start& start) override;
  void kill(const wire::AttemptRef& ref) override;
  void end(const wire::AttemptRef& ref, const FailureText& why) override;
  // Of a task that has a pool of its own; what the tasks of a pool share is nobody's in particular.
  std::vector<pid_t> processes_of(const wire::AttemptRef& ref) const override;
  // As ShellRunner's; 0 while there is a pool: what its ranks have started is not looked into.
  std::uint64_t oldest_start() const { return pools_.empty() ? UINT64_MAX : 0; }

  std::size_t pool_count() const { return pools_.size(); }  // for tests

 private:
  struct Pool;
  struct Task;

  void listen();
  void on_connection();
  void on_hello(int fd);
  Pool* find_pool(const Assignment& work);
  Pool* launch(const Assignment& work);
  bool take_ranks(Pool& pool, const Assignment& work, std::vector<int>& ranks) const;
  void send_task(Pool& pool, Task& task);
  void write(Pool& pool);
  void read(std::uint64_t id);
  void on_message(Pool& pool, const nlohmann::json& header, Bytes data);
  void on_done(Pool& pool, const nlohmann::json& header, Bytes data);
  void on_gone(Pool& pool, int rank);
  void cancel_timers(Pool& pool);
  void over(const wire::AttemptRef& ref);
  void free_ranks(Pool& pool, const wire::AttemptRef& ref);
  void end_pool(Pool& pool);
  void on_pool_exit(std::uint64_t id, int status);
  void charge(const Pool& pool, const std::string& said, int status);
  void fail(const Assignment& work, FailureClass failure, const std::string& type,
            const std::string& text, int signal);

  Poller& poller_;
  RunnerSettings settings_;
  MpiRunner& launcher_;
  RunnerEvents events_;
  std::string socket_path_, token_;
  int socket_ = -1;
  std::map<int, std::string> strangers_;  // connections that have not said which pool they are
  std::map<std::uint64_t, std::unique_ptr<Pool>> pools_;
  std::map<wire::AttemptRef, std::uint64_t> where_;
  std::map<wire::AttemptRef, Assignment> sandboxed_;  // that have a directory of their own
  std::uint64_t last_pool_ = 0, last_tag_ = 0;
};

}  // namespace farcall::pilot
