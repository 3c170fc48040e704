// farcall-local-keeper: stands in for a batch scheduler's node daemon for one job of the local
// provider. Uses nothing but the C library: there is one of it per block, and it must not fail.
//
//   farcall-local-keeper FOLDER JOB_NAME NODES WALLTIME_S KILL_WAIT_S DIRECTORY SCRIPT
//
// It goes into the background and exits with 0 as soon as FOLDER/keeper is written. In the end it
// writes FOLDER/ended: "completed|failed|cancelled|walltime EXIT_CODE SIGNAL". SIGTERM cancels.
#include <dirent.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <string>
#include <vector>

namespace {

struct Job {
  std::string folder, name, directory, script;
  int nodes = 1;
  double walltime_s = 0, kill_wait_s = 0;
  std::string start_mark;  // FARCALL_JOB_START
};

double boot_time_s() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

std::string read_small(const std::string& path) {
  char buffer[4096];
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  const ssize_t got = read(fd, buffer, sizeof buffer);
  close(fd);
  return std::string(buffer, got > 0 ? static_cast<std::size_t>(got) : 0);
}

// Whole or not at all, also after a power failure.
bool write_whole(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".new";
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  bool ok = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ok = fsync(fd) == 0 && ok;
  ok = close(fd) == 0 && ok;
  return ok && rename(temporary.c_str(), path.c_str()) == 0;
}

// Fields of /proc/PID/stat after the name, which may hold blanks: [0] state, [1] parent, [19]
// start.
std::vector<std::string> stat_fields(const std::string& pid) {
  const std::string stat = read_small("/proc/" + pid + "/stat");
  std::vector<std::string> fields;
  const auto name_end = stat.rfind(')');
  if (name_end == std::string::npos) return fields;
  for (std::size_t at = name_end + 2; at < stat.size();) {
    const auto end = std::min(stat.find(' ', at), stat.size());
    fields.push_back(stat.substr(at, end - at));
    at = end + 1;
  }
  return fields;
}

// Everything below us. Being a subreaper we are the parent of whoever lost theirs, so nothing of
// the job escapes, whatever groups and sessions it makes.
std::vector<pid_t> descendants() {
  std::multimap<pid_t, pid_t> children;
  DIR* proc = opendir("/proc");
  if (proc == nullptr) return {};
  while (const dirent* entry = readdir(proc)) {
    const pid_t pid = std::atoi(entry->d_name);
    if (pid <= 1) continue;
    const auto fields = stat_fields(entry->d_name);
    if (fields.size() > 1) children.emplace(std::atoi(fields[1].c_str()), pid);
  }
  closedir(proc);
  std::vector<pid_t> found;
  std::vector<pid_t> open_ends = {getpid()};
  while (!open_ends.empty()) {
    const auto [first, last] = children.equal_range(open_ends.back());
    open_ends.pop_back();
    for (auto child = first; child != last; ++child) {
      found.push_back(child->second);
      open_ends.push_back(child->second);
    }
  }
  return found;
}

void signal_all(int signal) {
  for (const pid_t pid : descendants()) kill(pid, signal);
}

[[noreturn]] void run_node(const Job& job, int rank, pid_t keeper) {
  setsid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != keeper) _exit(127);
  std::signal(SIGHUP, SIG_DFL);
  std::signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const auto put = [](const char* name, const std::string& value) {
    setenv(name, value.c_str(), 1);
  };
  put("FARCALL_LOCAL_JOB", job.folder);
  put("FARCALL_JOB_ID", job.name);
  put("FARCALL_JOB_NAME", job.name);
  put("FARCALL_JOB_START", job.start_mark);
  put("FARCALL_JOB_ENDS_AT", std::to_string(static_cast<long long>(time(nullptr)) +
                                            static_cast<long long>(job.walltime_s)));
  put("FARCALL_NODE_RANK", std::to_string(rank));
  const std::string output = job.directory + "/job.out";
  const int fd = open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 || chdir(job.directory.c_str()) != 0) _exit(126);
  if (fd > 2) close(fd);
  execl("/bin/bash", "bash", job.script.c_str(), static_cast<char*>(nullptr));
  _exit(127);
}

class Keeper {
 public:
  explicit Keeper(Job job) : job_(std::move(job)) {
    sigemptyset(&awaited_);
    for (const int signal : {SIGCHLD, SIGTERM, SIGINT}) sigaddset(&awaited_, signal);
    sigprocmask(SIG_BLOCK, &awaited_, nullptr);
  }

  bool record_self() {
    const auto fields = stat_fields("self");
    if (fields.size() < 20) return false;
    std::string boot_id = read_small("/proc/sys/kernel/random/boot_id");
    while (!boot_id.empty() && boot_id.back() == '\n') boot_id.pop_back();
    if (boot_id.empty()) boot_id = "-";
    started_s_ = boot_time_s();
    job_.start_mark = boot_id + "-" + std::to_string(getpid()) + "-" + fields[19];
    char line[256];
    std::snprintf(line, sizeof line, "%d %s %s %.3f %.3f\n", getpid(), fields[19].c_str(),
                  boot_id.c_str(), started_s_, job_.walltime_s);
    return write_whole(job_.folder + "/keeper", line);
  }

  void run() {
    const pid_t self = getpid();
    for (int rank = 0; rank < job_.nodes; ++rank) {
      const pid_t pid = fork();
      if (pid == 0) run_node(job_, rank, self);
      if (pid < 0) {
        exit_code_ = 126;
        begin_end("failed");
        break;
      }
      nodes_.push_back(pid);
    }
    while (!reap()) {
      const double now = boot_time_s();
      if (ending_.empty() && nodes_.empty()) begin_end("over");
      if (ending_.empty() && now >= started_s_ + job_.walltime_s) begin_end("walltime");
      if (!ending_.empty() && now >= kill_at_s_) {
        signal_all(SIGKILL);
        kill_at_s_ = now + 0.1;  // for what was forked in between
      }
      await((ending_.empty() ? started_s_ + job_.walltime_s : kill_at_s_) - now);
    }
    finish();
  }

 private:
  void begin_end(const char* why) {
    ending_ = why;
    write_whole(job_.folder + "/ending", ending_ + "\n");
    kill_at_s_ = boot_time_s() + job_.kill_wait_s;
    signal_all(SIGTERM);
    signal_all(SIGCONT);
  }

  // True when nothing of the job is left.
  bool reap() {
    for (;;) {
      int status = 0;
      const pid_t pid = waitpid(-1, &status, WNOHANG);
      if (pid < 0 && errno == EINTR) continue;
      if (pid < 0) return true;
      if (pid == 0) return false;
      const auto node = std::find(nodes_.begin(), nodes_.end(), pid);
      if (node == nodes_.end()) continue;
      nodes_.erase(node);
      if (exit_code_ != 0 || signal_ != 0) continue;  // the first failure tells
      if (WIFEXITED(status)) exit_code_ = WEXITSTATUS(status);
      if (WIFSIGNALED(status)) signal_ = WTERMSIG(status);
    }
  }

  void await(double seconds) {
    seconds = std::clamp(seconds, 0.0, 60.0);  // the walltime goes on while the host sleeps
    timespec limit{};
    limit.tv_sec = static_cast<time_t>(seconds);
    limit.tv_nsec = static_cast<long>((seconds - static_cast<double>(limit.tv_sec)) * 1e9);
    const int signal = sigtimedwait(&awaited_, nullptr, &limit);
    if ((signal == SIGTERM || signal == SIGINT) && ending_.empty()) begin_end("cancelled");
  }

  void finish() {
    std::string how = ending_;
    if (how != "cancelled" && how != "walltime") {
      how = exit_code_ == 0 && signal_ == 0 ? "completed" : "failed";
    }
    write_whole(job_.folder + "/ended",
                how + " " + std::to_string(exit_code_) + " " + std::to_string(signal_) + "\n");
  }

  Job job_;
  sigset_t awaited_{};
  double started_s_ = 0;
  std::vector<pid_t> nodes_;  // leaders that still run
  std::string ending_;        // why, "" while it runs
  double kill_at_s_ = 0;
  int exit_code_ = 0;
  int signal_ = 0;
};

void leave_terminal(const std::string& folder) {
  const int null = open("/dev/null", O_RDWR);
  const int log = open((folder + "/keeper.log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  dup2(null, 0);
  dup2(null, 1);
  dup2(log < 0 ? null : log, 2);
  for (int fd = 3; fd < 1024; ++fd) close(fd);
  std::signal(SIGHUP, SIG_IGN);
}

[[noreturn]] void keep(const Job& job, int ready_fd) {
  setsid();
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  std::signal(SIGPIPE, SIG_IGN);
  Keeper keeper(job);
  const bool recorded = keeper.record_self();
  if (!recorded || write(ready_fd, "1", 1) != 1) {
    if (recorded) _exit(0);  // the starter is gone: nobody was told of this job
    _exit(1);
  }
  leave_terminal(job.folder);
  keeper.run();
  _exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 8) {
    std::fprintf(stderr, "farcall-local-keeper: started by farcall only\n");
    return 2;
  }
  Job job;
  job.folder = argv[1];
  job.name = argv[2];
  job.nodes = std::atoi(argv[3]);
  job.walltime_s = std::atof(argv[4]);
  job.kill_wait_s = std::atof(argv[5]);
  job.directory = argv[6];
  job.script = argv[7];
  int ready[2];
  if (pipe2(ready, O_CLOEXEC) != 0) {
    std::perror("farcall-local-keeper: pipe");
    return 1;
  }
  const pid_t pid = fork();
  if (pid < 0) {
    std::perror("farcall-local-keeper: fork");
    return 1;
  }
  if (pid == 0) {
    close(ready[0]);
    keep(job, ready[1]);
  }
  close(ready[1]);
  char byte = 0;
  if (read(ready[0], &byte, 1) == 1) return 0;
  std::fprintf(stderr, "farcall-local-keeper: cannot write %s/keeper: %s\n", argv[1],
               std::strerror(errno));
  return 1;
}
