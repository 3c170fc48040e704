// Functions in shared objects (<farcall/function.h>): a runner process per shared object and slot,
// that stays for the next task. A crash costs one task and that process.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "pilot/runners/poller.h"
#include "pilot/runners/runner.h"

namespace farcall::pilot {

class NativeRunner : public Runner {
 public:
  NativeRunner(Poller& poller, RunnerSettings settings, RunnerEvents events);
  ~NativeRunner() override;  // kills the processes

  void start(const Start& start) override;
  void kill(const wire::AttemptRef& ref) override;
  void end(const wire::AttemptRef& ref, const FailureText& why) override;
  std::vector<pid_t> processes_of(const wire::AttemptRef& ref) const override;

  // Runner processes that live, idle ones included. For tests.
  std::size_t process_count() const { return workers_.size(); }

 private:
  struct Worker;
  struct Library {
    std::string hash;                // of its bytes
    std::filesystem::path path;      // where it lies on this node
    std::string name;                // as the user calls the file
    std::optional<FailureText> bad;  // why none of its functions can be called
  };

  const Library& library_of(const Function& function);
  void examine(const Function& function, Library& library);
  Worker* worker_for(const Library& library, std::string* error);
  Worker* spawn_worker(const Library& library, std::string* error);
  void on_readable(std::uint64_t id);
  void on_frame(Worker& worker, const nlohmann::json& header, Bytes data);
  void on_exit(std::uint64_t id, int status);
  void write(Worker& worker);
  void stop(Worker& worker);

  Poller& poller_;
  RunnerSettings settings_;
  RunnerEvents events_;
  std::map<FunctionId, Library> libraries_;  // by function: hashing a large file takes time
  std::map<std::uint64_t, std::unique_ptr<Worker>> workers_;
  std::map<wire::AttemptRef, std::uint64_t> where_;
  std::uint64_t last_worker_ = 0;
};

}  // namespace farcall::pilot
