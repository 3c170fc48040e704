#include "pilot/runners/process.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

extern char** environ;

namespace farcall::pilot {

namespace fs = std::filesystem;

std::map<std::string, std::string> process_environment() {
  std::map<std::string, std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const auto equals = text.find('=');
    if (equals != std::string_view::npos)
      out.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return out;
}

namespace {

// Everything the child needs, made before: between vfork and exec only system calls are allowed.
struct Prepared {
  const char* program;
  std::vector<char*> argv, envp;
  const char* directory = nullptr;
  const std::vector<int>* ignored = nullptr;  // signals: handlers go with exec, this does not
  int in, out, err, inherited;
  cpu_set_t* processors = nullptr;
  std::size_t processors_size = 0;
  pid_t parent;
};

[[noreturn]] void run_child(const Prepared& p, volatile int& error) {
  const auto give_up = [&]() {
    error = errno;
    _exit(127);
  };
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != p.parent) _exit(127);
  for (int number : *p.ignored) signal(number, SIG_DFL);
  // A batch system's warning goes to every process of a job; it is meant for the pilot.
  signal(SIGUSR1, SIG_IGN);
  // Where that fails it runs unbound: a processor may have gone since.
  if (p.processors != nullptr) sched_setaffinity(0, p.processors_size, p.processors);
  // Duplicated upwards first: a source may be one of the targets of another.
  const int in = fcntl(p.in, F_DUPFD_CLOEXEC, 10), out = fcntl(p.out, F_DUPFD_CLOEXEC, 10),
            err = fcntl(p.err, F_DUPFD_CLOEXEC, 10);
  if (in < 0 || out < 0 || err < 0) give_up();
  if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) give_up();
  if (p.inherited >= 0) fcntl(p.inherited, F_SETFD, 0);
  if (p.directory != nullptr && chdir(p.directory) != 0) give_up();
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execve(p.program, p.argv.data(), p.envp.data());
  give_up();
  _exit(127);
}

std::vector<int> ignored_signals() {
  std::vector<int> ignored;
  for (int number = 1; number < 32; ++number) {
    struct sigaction action {};
    if (sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN)
      ignored.push_back(number);
  }
  return ignored;
}

}  // namespace

Result<pid_t> spawn(const Spawn& what, int* errno_out) {
  std::vector<std::string> entries;
  for (const auto& [name, value] : what.environment) entries.push_back(name + "=" + value);
  Prepared p{};
  for (const auto& word : what.argv) p.argv.push_back(const_cast<char*>(word.c_str()));
  for (const auto& entry : entries) p.envp.push_back(const_cast<char*>(entry.c_str()));
  p.argv.push_back(nullptr);
  const std::string& program = what.program.empty() ? what.argv[0] : what.program;
  p.program = program.c_str();
  p.envp.push_back(nullptr);
  static const std::vector<int> ignored = ignored_signals();  // inherited from who started us
  p.ignored = &ignored;
  if (!what.directory.empty()) p.directory = what.directory.c_str();
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  p.in = what.in >= 0 ? what.in : null;
  p.out = what.out >= 0 ? what.out : null;
  p.err = what.err >= 0 ? what.err : null;
  p.inherited = what.inherited;
  p.parent = getpid();
  if (!what.processors.empty()) {
    const int count =
        static_cast<int>(1 + *std::max_element(what.processors.begin(), what.processors.end()));
    p.processors = CPU_ALLOC(count);
    p.processors_size = CPU_ALLOC_SIZE(count);
    CPU_ZERO_S(p.processors_size, p.processors);
    for (const std::uint32_t one : what.processors) CPU_SET_S(one, p.processors_size, p.processors);
  }

  // No handler of ours may run in the child while it shares our memory.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  volatile int error = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  const pid_t pid = vfork();
#pragma GCC diagnostic pop
  if (pid == 0) run_child(p, error);
  if (pid < 0) error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (null >= 0) close(null);
  if (p.processors != nullptr) CPU_FREE(p.processors);
  if (errno_out != nullptr) *errno_out = error;
  if (error == 0) return pid;
  if (pid > 0) waitpid(pid, nullptr, 0);
  return fail(ErrorCode::kIo, "cannot start {}{}: {}", program,
              what.directory.empty() ? "" : " in " + what.directory,
              std::strerror(static_cast<int>(error)));
}

std::string find_program(const std::string& program, const std::string& path,
                         const std::string& directory) {
  const auto usable = [](const fs::path& file) {
    struct stat info {};
    return stat(file.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
           access(file.c_str(), X_OK) == 0;
  };
  if (program.empty()) return "";
  if (program.find('/') != std::string::npos) {
    const fs::path file = fs::path(directory) / program;
    return usable(file) ? file.string() : "";
  }
  std::stringstream parts(path);
  for (std::string part; std::getline(parts, part, ':');) {
    const fs::path file = fs::path(directory) / (part.empty() ? "." : part) / program;
    if (usable(file)) return file.string();
  }
  return "";
}

void become_subreaper() { prctl(PR_SET_CHILD_SUBREAPER, 1); }

namespace {

// For kernels without /proc/…/children.
std::vector<pid_t> children_by_scan(pid_t parent) {
  std::vector<pid_t> out;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    if (name.empty() || !std::isdigit(static_cast<unsigned char>(name[0]))) continue;
    std::ifstream file(entry.path() / "stat");
    std::string text;
    std::getline(file, text);
    const auto end = text.rfind(')');  // the name may hold anything
    if (end == std::string::npos) continue;
    std::istringstream rest(text.substr(end + 1));
    char state = 0;
    pid_t of = 0;
    if (rest >> state >> of && of == parent) out.push_back(std::stoi(name));
  }
  return out;
}

bool is_zombie(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(file, text);
  const auto end = text.rfind(')');
  return end == std::string::npos || text.compare(end + 1, 2, " Z") == 0;
}

}  // namespace

std::vector<pid_t> children_of(pid_t pid) {
  std::vector<pid_t> out;
  std::error_code error;
  bool readable = false;
  for (const auto& thread :
       fs::directory_iterator("/proc/" + std::to_string(pid) + "/task", error)) {
    std::ifstream file(thread.path() / "children");
    if (!file) continue;
    readable = true;
    for (pid_t child; file >> child;) out.push_back(child);
  }
  if (!readable && !error) return children_by_scan(pid);
  return out;
}

std::vector<pid_t> descendants_of(pid_t pid) {
  std::vector<pid_t> out;
  std::set<pid_t> seen{pid};
  std::vector<pid_t> open{pid};
  while (!open.empty()) {
    const pid_t parent = open.back();
    open.pop_back();
    for (pid_t child : children_of(parent)) {
      if (!seen.insert(child).second) continue;
      out.push_back(child);
      open.push_back(child);
    }
  }
  return out;
}

void kill_trees(const std::function<std::vector<pid_t>()>& roots) {
  constexpr int kRounds = 500;
  const pid_t own_group = getpgrp();
  std::set<pid_t> stopped, groups;
  const auto stop = [&](pid_t pid) {
    if (!stopped.insert(pid).second) return false;
    // A signal to a group misses nobody, fork(2) sees to that; where each process starts two more
    // and ends, walking from parent to child alone never comes to an end.
    const pid_t group = getpgid(pid);
    if (group > 0 && group != own_group && groups.insert(group).second) kill(-group, SIGSTOP);
    kill(pid, SIGSTOP);
    return true;
  };
  for (int round = 0; round < kRounds; ++round) {
    bool found = false;
    for (pid_t root : roots()) {
      found = stop(root) || found;
      for (pid_t child : descendants_of(root)) found = stop(child) || found;
    }
    if (!found) break;
  }
  for (pid_t group : groups) kill(-group, SIGKILL);
  for (pid_t pid : stopped) kill(pid, SIGKILL);
}

void kill_tree(pid_t pid) {
  kill_trees([pid] { return std::vector<pid_t>{pid}; });
  kill(-pid, SIGKILL);
}

namespace {

std::uint64_t resident_bytes(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/statm");
  std::uint64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

std::uint64_t proportional_bytes(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  for (std::string word; file >> word;)
    if (word == "Pss:") {
      std::uint64_t kib = 0;
      file >> kib;
      return kib << 10;
    }
  return resident_bytes(pid);  // an old kernel, or not ours to look into
}

}  // namespace

TreeUse use_of(const std::vector<pid_t>& roots, bool exact) {
  TreeUse use;
  const auto add = [&](pid_t pid) {
    ++use.processes;
    use.memory_bytes += exact ? proportional_bytes(pid) : resident_bytes(pid);
  };
  for (pid_t root : roots) {
    add(root);
    for (pid_t child : descendants_of(root)) add(child);
  }
  return use;
}

namespace {

// FARCALL_TASK_ID in the environment with which it was started; empty when there is none.
std::string task_of_process(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/environ", std::ios::binary);
  static constexpr std::string_view kName = "FARCALL_TASK_ID=";
  for (std::string entry; std::getline(file, entry, '\0');)
    if (entry.starts_with(kName)) return entry.substr(kName.size());
  return "";
}

// In the middle of an execve(2) the kernel shows neither arguments nor an environment.
bool is_in_exec(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline", std::ios::binary);
  return file && file.get() == std::ifstream::traits_type::eof() && !is_zombie(pid);
}

// The task that each belongs to. Those that begin a program are waited for, all together, 20 ms at
// most. By asking again: the kernel tells nobody when an execve(2) is over, and to wait for a stop
// instead could block the pilot for as long as a file system hangs.
std::vector<std::string> tasks_of(const std::vector<pid_t>& pids) {
  constexpr int kTries = 20;
  std::vector<std::string> tasks(pids.size());
  for (int tries = 0; tries < kTries; ++tries) {
    bool again = false;
    for (std::size_t i = 0; i < pids.size(); ++i) {
      if (!tasks[i].empty()) continue;
      tasks[i] = task_of_process(pids[i]);
      again = again || (tasks[i].empty() && is_in_exec(pids[i]));
    }
    if (!again) break;
    usleep(1000);
  }
  return tasks;
}

}  // namespace

std::vector<pid_t> adopted_of(const std::string& task, const std::function<bool(pid_t)>& ours) {
  std::vector<pid_t> children = children_of(getpid());
  std::erase_if(children, ours);
  const auto tasks = tasks_of(children);
  std::vector<pid_t> out;
  for (std::size_t i = 0; i < children.size(); ++i)
    if (tasks[i] == task) out.push_back(children[i]);
  return out;
}

std::uint64_t threads_of_node() {
  std::ifstream file("/proc/loadavg");
  std::string skip;
  std::uint64_t running = 0, all = 0;
  char slash = 0;
  file >> skip >> skip >> skip >> running >> slash >> all;
  return all;
}

std::uint64_t start_of_process(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(file, text);
  const auto end = text.rfind(')');
  if (end == std::string::npos) return 0;
  std::istringstream rest(text.substr(end + 1));
  std::string skip;
  for (int field = 3; field < 22; ++field) rest >> skip;
  std::uint64_t start = 0;
  rest >> start;
  return start;
}

namespace {
// Those that this thread started, and those that the process adopted: the kernel files these under
// the first thread. Cheaper than asking for every thread.
std::vector<pid_t> own_children() {
  const std::string self = std::to_string(getpid());
  if (gettid() != getpid()) return children_of(getpid());
  std::ifstream file("/proc/self/task/" + self + "/children");
  if (!file) return children_of(getpid());
  std::vector<pid_t> out;
  for (pid_t child; file >> child;) out.push_back(child);
  return out;
}
}  // namespace

int kill_left_behind(const std::function<bool(pid_t)>& ours,
                     const std::function<bool(const std::string& task)>& is_over,
                     std::uint64_t oldest_start) {
  std::set<pid_t> killed;
  // Killing a parent gives us its children: until no new one shows up.
  for (int round = 0; round < 10; ++round) {
    bool found = false;
    std::vector<pid_t> children = own_children();
    std::erase_if(children, [&](pid_t child) {
      return ours(child) || killed.contains(child) || is_zombie(child);
    });
    const auto tasks = tasks_of(children);
    for (std::size_t i = 0; i < children.size(); ++i) {
      const pid_t child = children[i];
      const std::string& task = tasks[i];
      if (task.empty() ? start_of_process(child) >= oldest_start : !is_over(task)) continue;
      kill_tree(child);
      killed.insert(child);
      found = true;
    }
    if (!found) break;
  }
  return static_cast<int>(killed.size());
}

void kill_all_descendants() {
  for (int round = 0; round < 200; ++round) {
    const auto all = descendants_of(getpid());
    bool living = false;
    for (pid_t pid : all) {
      if (is_zombie(pid)) continue;
      living = true;
      kill(pid, SIGKILL);
    }
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    if (!living) return;
    usleep(5000);
  }
}

}  // namespace farcall::pilot
