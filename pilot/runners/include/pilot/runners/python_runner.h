// Python functions: a template process of the user's interpreter forks workers, each of which has a
// socket of its own to here. Started with the first Python task; begun anew when it dies.
#pragma once

#include <deque>
#include <list>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <set>

#include "pilot/runners/output_log.h"
#include "pilot/runners/poller.h"
#include "pilot/runners/runner.h"

namespace farcall::pilot {

class PythonRunner : public Runner {
 public:
  PythonRunner(Poller& poller, RunnerSettings settings, RunnerEvents events);
  ~PythonRunner() override;  // kills template and workers

  void start(const Start& start) override;
  void kill(const wire::AttemptRef& ref) override;
  void end(const wire::AttemptRef& ref, const FailureText& why) override;
  std::vector<pid_t> processes_of(const wire::AttemptRef& ref) const override;
  void flush() override;

  // Process id of the worker that has begun this attempt; 0: none. For tests.
  pid_t worker_of(const wire::AttemptRef& ref) const;
  pid_t template_pid() const { return template_pid_; }
  std::size_t worker_count() const { return workers_.size(); }

 private:
  struct Worker;
  struct Queued {
    Assignment work;
    bool kill_wanted = false;
    std::string sandbox;
    std::uint64_t sequence = 0;  // at its worker
  };

  void start_template();
  void template_failed(const std::string& why);
  void on_template_ready(bool readable);
  bool read_template();
  void on_template_exit(int status);
  void close_template();
  std::string template_said();

  void begin_backoff();
  Worker* new_worker();
  bool request_fork(Worker& worker, int worker_end);
  Worker* choose(const Start& start);
  void assign(Worker& worker, const Assignment& work);
  void begin_head(Worker& worker);
  void write(Worker& worker);
  void on_worker_ready(std::uint64_t id, bool readable, bool writable);
  void read_worker(Worker& worker);
  void on_note(Worker& worker, const nlohmann::json& header, const Bytes& data);
  void on_done(Worker& worker, const std::string& header, Bytes data);
  void bind(Worker& worker, const Assignment& work);
  void send_function(Worker& worker, const Assignment& work);
  std::uint32_t send_environment(Worker& worker,
                                 const std::map<std::string, std::string>& environment);
  void on_worker_exit(std::uint64_t id, int status);
  void kill_worker(Worker& worker);
  // Takes it out of service; what was queued on it ends as said.
  void end_worker(std::uint64_t id, FailureClass head_failure, const std::string& text, int status);
  void fail(const Assignment& work, FailureClass failure, const std::string& type,
            const std::string& text, int status);

  Poller& poller_;
  RunnerSettings settings_;
  RunnerEvents events_;

  pid_t template_pid_ = 0;
  int template_fd_ = -1;
  bool template_ready_ = false;     // has said hello
  int failures_in_a_row_ = 0;       // without a task done between them
  Poller::TimerId backoff_ = 0;     // no template is started before it fires
  std::unique_ptr<OutputLog> log_;  // what template and workers print
  struct Reader;
  std::unique_ptr<Reader> template_reader_;

  std::map<std::uint64_t, std::unique_ptr<Worker>> workers_;
  std::uint64_t last_worker_ = 0;
  std::map<wire::AttemptRef, std::uint64_t> where_;
  std::deque<Start> waiting_;  // for the end of the backoff
  std::string last_failure_;
  std::set<std::uint64_t> dirty_;
};

}  // namespace farcall::pilot
