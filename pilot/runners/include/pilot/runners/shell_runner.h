// Shell functions: one process group per attempt, output to files, the last lines of it come back.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "pilot/runners/poller.h"
#include "pilot/runners/runner.h"

namespace farcall::pilot {

struct ShellFile;

class ShellRunner : public Runner {
 public:
  ShellRunner(Poller& poller, RunnerSettings settings, RunnerEvents events);
  ~ShellRunner() override;  // kills what runs

  void start(const Start& start) override;
  void kill(const wire::AttemptRef& ref) override;
  void end(const wire::AttemptRef& ref, const FailureText& why) override;
  std::vector<pid_t> processes_of(const wire::AttemptRef& ref) const override;
  // When the oldest command that runs was started (start_of_process()); UINT64_MAX: none runs.
  std::uint64_t oldest_start() const;
  // For tests; 0: not running.
  pid_t process_of(const wire::AttemptRef& ref) const;
  bool runs(const std::string& task) const;

 private:
  struct Running;
  struct Plan;

  static Result<Plan> plan(const Assignment& work, const std::string& results);
  Result<void> hand_over_files(const Assignment& work, const std::string& sandbox,
                               const std::string& stem, Plan& plan) const;
  Result<nlohmann::json> take_report(const Plan& plan, FailureClass& failure) const;
  static std::string program_without_shell(Plan& plan,
                                           std::map<std::string, std::string>& environment,
                                           const std::string& search);
  void launch(const Assignment& work, Plan plan);
  bool open_streams(const Assignment& work, const std::string& stem, Plan& plan, ShellFile& in);
  void follow(const Assignment& work, Plan plan, pid_t pid, std::unique_ptr<Running> running);
  void tend();
  void tell(const wire::AttemptRef& ref, Running& running);
  std::vector<pid_t> roots_of(const Running& running) const;
  void kill_all_of(const Running& running);
  void on_exit(const wire::AttemptRef& ref, int status);
  void finish(const wire::AttemptRef& ref, const Plan& plan, int returncode, int status,
              std::string extra_error);
  void refuse(const Assignment& work, FailureClass failure, const std::string& type,
              const std::string& text);

  Poller& poller_;
  RunnerSettings settings_;
  RunnerEvents events_;
  const std::map<std::string, std::string> environment_;  // the pilot's
  std::map<wire::AttemptRef, std::unique_ptr<Running>> running_;
  Poller::TimerId tend_timer_ = 0;  // runs while a command does
};

}  // namespace farcall::pilot
