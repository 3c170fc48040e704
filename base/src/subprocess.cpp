#include "base/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/descriptors.h"

namespace farcall {

namespace {

struct Pipe {
  int read_end = -1;
  int write_end = -1;
  Pipe() = default;
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() { close_read(), close_write(); }
  bool open() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return false;
    read_end = ends[0], write_end = ends[1];
    return true;
  }
  void close_read() { close_end(read_end); }
  void close_write() { close_end(write_end); }

 private:
  static void close_end(int& fd) {
    if (fd >= 0) ::close(std::exchange(fd, -1));
  }
};

bool is_program(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
         ::access(path.c_str(), X_OK) == 0;
}

Result<std::string> find_program(const Command& command) {
  const std::string& name = command.argv.front();
  if (name.find('/') != std::string::npos) {
    const std::string seen_from_there = name.front() == '/' || command.working_directory.empty()
                                            ? name
                                            : command.working_directory + "/" + name;
    if (is_program(seen_from_there)) return name;
    return fail(ErrorCode::kNotFound, "command '{}' not found: no such program file",
                seen_from_there);
  }
  auto given = command.extra_environment.find("PATH");
  const char* ours = std::getenv("PATH");
  const std::string path = given != command.extra_environment.end() ? given->second
                           : ours                                   ? ours
                                  : "/usr/local/bin:/usr/bin:/bin";
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find(':', begin), path.size());
    const std::string folder = path.substr(begin, end - begin);
    const std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
    if (is_program(candidate)) return candidate;
    begin = end + 1;
  }
  return fail(ErrorCode::kNotFound, "command '{}' not found on PATH ({})", name, path);
}

// Everything the child needs, made before the fork: between fork and exec a process with threads
// may not allocate.
struct Prepared {
  std::string program;
  std::vector<std::string> environment;
  std::vector<char*> argv, envp;
  int input = -1;
  Pipe out, err, failure;
  ~Prepared() {
    if (input >= 0) ::close(input);
  }
};

// Input comes from memory, so that a child that does not read it can neither block us nor send us
// SIGPIPE.
int open_input(const std::string& text) {
  if (text.empty()) return ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int fd = ::memfd_create("stdin", MFD_CLOEXEC);
  for (std::size_t done = 0; fd >= 0 && done < text.size();) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno != EINTR) return ::close(fd), -1;
    if (n > 0) done += static_cast<std::size_t>(n);
  }
  if (fd >= 0) ::lseek(fd, 0, SEEK_SET);
  return fd;
}

void prepare_strings(const Command& command, Prepared& prepared) {
  for (const std::string& word : command.argv)
    prepared.argv.push_back(const_cast<char*>(word.c_str()));
  prepared.argv.push_back(nullptr);
  for (char** entry = environ; *entry; ++entry) {
    const std::string_view text = *entry;
    if (!command.extra_environment.count(std::string(text.substr(0, text.find('=')))))
      prepared.environment.emplace_back(text);
  }
  for (const auto& [name, value] : command.extra_environment)
    prepared.environment.push_back(name + "=" + value);
  for (std::string& entry : prepared.environment) prepared.envp.push_back(entry.data());
  prepared.envp.push_back(nullptr);
}

[[noreturn]] void run_child(const Command& command, Prepared& prepared, pid_t parent) {
  auto give_up = [&] {
    const int error = errno;
    [[maybe_unused]] ssize_t ignored = ::write(prepared.failure.write_end, &error, sizeof error);
    ::_exit(127);
  };
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // it died before the line above
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  restore_descriptor_limit();
  if (::dup2(prepared.input, 0) < 0 || ::dup2(prepared.out.write_end, 1) < 0 ||
      ::dup2(prepared.err.write_end, 2) < 0)
    give_up();
  if (!command.working_directory.empty() && ::chdir(command.working_directory.c_str()) != 0)
    give_up();
#ifdef SYS_close_range
  // Descriptors that somebody opened without O_CLOEXEC are not the child's business.
  ::syscall(SYS_close_range, 3U, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */);
#endif
  ::execve(prepared.program.c_str(), prepared.argv.data(), prepared.envp.data());
  give_up();
  ::_exit(127);
}

// Reads what is there without blocking; false at the end of the stream.
bool drain(int fd, std::string& text, std::size_t limit) {
  char buffer[65536];
  for (;;) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n == 0) return false;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN;
    const std::size_t room = limit - std::min(limit, text.size());
    text.append(buffer, std::min(room, static_cast<std::size_t>(n)));
  }
}

int exit_code_of(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

// The end is the child's exit, not the end of its output: a daemon that it left behind may hold
// the pipes open for ever.
void follow(const Command& command, pid_t child, Prepared& prepared, MonoTime deadline,
            CommandOutput& output) {
  ::fcntl(prepared.out.read_end, F_SETFL, O_NONBLOCK);
  ::fcntl(prepared.err.read_end, F_SETFL, O_NONBLOCK);
  const int pid_fd = static_cast<int>(::syscall(SYS_pidfd_open, child, 0));
  const int no_pidfd_tick_ms = 20;
  int status = 0;
  for (bool ended = false;;) {
    struct pollfd fds[3] = {{prepared.out.read_end, POLLIN, 0},
                            {prepared.err.read_end, POLLIN, 0},
                            {pid_fd, POLLIN, 0}};
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - read_clock().mono).count();
    int wait_ms = static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000));
    if (pid_fd < 0) wait_ms = std::min(wait_ms, no_pidfd_tick_ms);
    if (output.timed_out) wait_ms = no_pidfd_tick_ms;
    ::poll(fds, 3, wait_ms);
    ended = ::waitpid(child, &status, WNOHANG) == child;
    if (prepared.out.read_end >= 0 &&
        !drain(prepared.out.read_end, output.out, command.output_limit))
      prepared.out.close_read();
    if (prepared.err.read_end >= 0 &&
        !drain(prepared.err.read_end, output.err, command.output_limit))
      prepared.err.close_read();
    if (ended) break;
    if (!output.timed_out && read_clock().mono >= deadline) {
      output.timed_out = true;
      ::kill(-child, SIGKILL);
    }
  }
  if (output.timed_out) ::kill(-child, SIGKILL);  // children that it started in the meantime
  if (pid_fd >= 0) ::close(pid_fd);
  output.exit_code = exit_code_of(status);
}

}  // namespace

Result<CommandOutput> run_command(const Command& command) {
  FARCALL_CHECK(!command.argv.empty(), "a command has at least its program");
  const MonoTime started = read_clock().mono;
  const MonoTime deadline = command.time_limit > MonoTime::max() - started
                                ? MonoTime::max()
                                : started + command.time_limit;
  auto program = find_program(command);
  if (!program) return fail(program.error());
  auto cannot = [&](int error) {
    return fail(ErrorCode::kIo, "cannot start '{}'{}: {}", shell_join(command.argv),
                command.working_directory.empty() ? "" : " in " + command.working_directory,
                std::strerror(error));
  };
  Prepared prepared;
  prepared.program = *program;
  prepare_strings(command, prepared);
  prepared.input = open_input(command.standard_input);
  if (prepared.input < 0 || !prepared.out.open() || !prepared.err.open() ||
      !prepared.failure.open())
    return cannot(errno);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return cannot(errno);
  if (child == 0) run_child(command, prepared, parent);
  ::setpgid(child, child);  // both sides do: whichever comes first
  prepared.out.close_write();
  prepared.err.close_write();
  prepared.failure.close_write();

  int error = 0;
  ssize_t n;
  do n = ::read(prepared.failure.read_end, &error, sizeof error);
  while (n < 0 && errno == EINTR);
  if (n == sizeof error) {
    ::waitpid(child, nullptr, 0);
    return cannot(error);
  }
  CommandOutput output;
  follow(command, child, prepared, deadline, output);
  output.took = read_clock().mono - started;
  return output;
}

std::string shell_quote(std::string_view word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./,:=@%+";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string_view::npos)
    return std::string(word);
  std::string quoted = "'";
  for (char c : word) {
    if (c == '\'')
      quoted += "'\\''";
    else
      quoted += c;
  }
  return quoted + "'";
}

std::string shell_join(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : " ") + shell_quote(word);
  return line;
}

}  // namespace farcall
