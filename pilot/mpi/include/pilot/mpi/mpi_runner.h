// MPI programs: run by a shell runner of its own with the launcher before them.
#pragma once

#include <memory>

#include "pilot/runners/runner.h"
#include "pilot/runners/shell_runner.h"

namespace farcall::pilot {

class MpiRunner : public Runner {
 public:
  // `tool`: path of farcall-mpi.
  MpiRunner(Poller& poller, RunnerSettings settings, std::filesystem::path tool,
            RunnerEvents events);

  void start(const Start& start) override;
  void kill(const wire::AttemptRef& ref) override;

 private:
  void on_finished(Finished finished);

  RunnerSettings settings_;
  std::filesystem::path tool_;
  RunnerEvents events_;
  std::unique_ptr<ShellRunner> shell_;
};

}  // namespace farcall::pilot
