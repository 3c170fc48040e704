#include "pilot/agent/guard.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "pilot/runners/process.h"

namespace farcall::pilot {
namespace {

// True when it was `pid` that ended.
bool reap(pid_t pid, int& status) {
  bool ended = false;
  int other = 0;
  // Others are what a pilot that is gone has left behind.
  for (pid_t each; (each = waitpid(-1, &other, WNOHANG)) > 0;)
    if (each == pid) {
      ended = true;
      status = other;
    }
  return ended;
}

}  // namespace

std::optional<int> fork_guarded() {
  sigset_t watched, before;
  sigemptyset(&watched);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD}) sigaddset(&watched, signal);
  FARCALL_CHECK(sigprocmask(SIG_BLOCK, &watched, &before) == 0, "sigprocmask");
  become_subreaper();
  const pid_t guard = getpid(), pid = fork();
  if (pid <= 0) {  // without a guard rather than not at all
    if (pid == 0) prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    if (pid == 0 && getppid() != guard) raise(SIGTERM);
    return std::nullopt;
  }
  int status = 0;
  for (;;) {
    const int signal = sigwaitinfo(&watched, nullptr);
    if (signal == SIGCHLD && reap(pid, status)) break;
    if (signal > 0 && signal != SIGCHLD) kill(pid, signal);
  }
  kill_all_descendants();
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace farcall::pilot
