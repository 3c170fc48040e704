// MPI programs, and shell commands that were given certain cores: run by a shell runner of its own
// with the launcher before them; and the far ends of tasks that other pilots lead. The launcher
// starts nothing by itself on other nodes: it asks here (farcall-mpi rsh), and the pilots there do
// it, so that they can end it whatever becomes of the launcher.
#pragma once

#include <map>
#include <memory>
#include <optional>

#include "pilot/runners/runner.h"
#include "pilot/runners/shell_runner.h"

namespace farcall::pilot {

struct MpiEvents {
  std::function<void(wire::Spawn)> spawn;    // Core::spawn
  std::function<void(wire::Spawned)> ended;  // Core::on_guest_ended
};

// A listening, non-blocking socket at `path`, or in /tmp when that is too long for one.
struct UnixListener {
  int fd = -1;
  std::string path;
};
Result<UnixListener> listen_unix(const std::filesystem::path& path, std::int64_t incarnation);

class MpiRunner : public Runner {
 public:
  // `tool`: path of farcall-mpi.
  MpiRunner(Poller& poller, RunnerSettings settings, std::filesystem::path tool,
            RunnerEvents events, MpiEvents mpi);
  ~MpiRunner() override;  // kills what runs, guests included

  // REQUIRES: the work has a place.
  void start(const Start& start) override;
  void kill(const wire::AttemptRef& ref) override;
  void end(const wire::AttemptRef& ref, const FailureText& why) override;
  std::vector<pid_t> processes_of(const wire::AttemptRef& ref) const override;
  // As ShellRunner's.
  std::uint64_t oldest_start() const { return shell_->oldest_start(); }

  void start_guest(const wire::Spawn& spawn);
  // The attempt is over. A pool that was started in its name ends with its launcher.
  void end_guest(const wire::AttemptRef& ref);
  void on_guest_ended(const wire::Spawned& spawned);

  // For jobs that outlive the attempt in whose name they start on other nodes: their environment,
  // until end_pool().
  std::map<std::string, std::string> lead_pool(const Assignment& founder,
                                               const std::string& directory);
  void end_pool(const wire::AttemptRef& founder);

  // With what the place gives added to the environment of its header; for tasks of any kind.
  static Assignment with_place(const Assignment& work);
  // Shared memory and sockets of an attempt, the same on every node; gone with it.
  static std::filesystem::path directory_of(const wire::AttemptRef& ref);

 private:
  struct Asker;  // a farcall-mpi rsh that waits for its answer
  struct GuestProcess {
    wire::Spawn spawn;
    int err = -1;
    std::string pool_directory;  // of a pool, which outlives the attempt
  };
  // An attempt, or a pool in the name of one, that may start something on other nodes.
  struct Led {
    std::shared_ptr<const wire::TaskPlace> place;
    std::map<std::string, std::string> environment;
    std::optional<Assignment> work = std::nullopt;  // of an attempt
  };
  void put_launcher_before(Assignment& work) const;
  void on_connection();
  void on_asker(int fd);
  void ask(Asker& asker, const std::string& request);
  void answer(int fd, int code, const std::string& text);
  void dismiss_askers(const wire::AttemptRef& ref);
  void on_guest_exit(pid_t pid, int status);
  void on_finished(Finished finished);
  void over(const wire::AttemptRef& ref);

  Poller& poller_;
  RunnerSettings settings_;
  std::filesystem::path tool_;
  RunnerEvents events_;
  MpiEvents mpi_;
  std::unique_ptr<ShellRunner> shell_;
  std::map<wire::AttemptRef, Led> led_, pools_;
  std::string socket_path_;
  int socket_ = -1;
  std::map<int, std::unique_ptr<Asker>> askers_;
  std::uint64_t last_request_ = 0;
  std::map<pid_t, GuestProcess> guests_;
};

}  // namespace farcall::pilot
