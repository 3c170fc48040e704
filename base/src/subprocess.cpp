#include "base/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

extern char** environ;

namespace farcall {

namespace {

struct Pipe {
  int read_end = -1, write_end = -1;
  bool open() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return false;
    read_end = ends[0];
    write_end = ends[1];
    return true;
  }
  static void close(int& fd) {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
  ~Pipe() {
    close(read_end);
    close(write_end);
  }
};

// Found before the fork, because nothing may be allocated after it in a process with threads.
std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return ::access(name.c_str(), X_OK) == 0 ? name : "";
  const char* path = std::getenv("PATH");
  std::string_view rest = path != nullptr ? path : "/usr/bin:/bin";
  while (!rest.empty()) {
    const std::size_t colon = rest.find(':');
    std::string candidate(rest.substr(0, colon));
    candidate = (candidate.empty() ? "." : candidate) + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    if (colon == std::string_view::npos) break;
    rest.remove_prefix(colon + 1);
  }
  return "";
}

std::vector<std::string> environment_with(const std::map<std::string, std::string>& extra) {
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (extra.count(std::string(text.substr(0, text.find('=')))) == 0) entries.emplace_back(text);
  }
  for (const auto& [name, value] : extra) entries.push_back(name + "=" + value);
  return entries;
}

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> result;
  for (const std::string& word : words) result.push_back(const_cast<char*>(word.c_str()));
  result.push_back(nullptr);
  return result;
}

struct Streams {
  Pipe in, out, err, failure;
};

[[noreturn]] void become(const char* program, char* const* argv, char* const* env,
                         const char* directory, const Streams& streams, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  int error = 0;
  if (::getppid() != parent) ::_exit(127);  // it died before prctl
  if (*directory != '\0' && ::chdir(directory) != 0) {
    error = errno;
  } else {
    ::dup2(streams.in.read_end, 0);
    ::dup2(streams.out.write_end, 1);
    ::dup2(streams.err.write_end, 2);
    ::execve(program, argv, env);
    error = errno;
  }
  (void)!::write(streams.failure.write_end, &error, sizeof error);
  ::_exit(127);
}

// Reads what is there; false at the end of the stream.
bool read_some(int fd, std::string& text, std::size_t limit) {
  char buffer[65536];
  const ssize_t n = ::read(fd, buffer, sizeof buffer);
  if (n < 0) return errno == EINTR || errno == EAGAIN;
  if (n == 0) return false;
  if (text.size() < limit)
    text.append(buffer, std::min(static_cast<std::size_t>(n), limit - text.size()));
  return true;
}

bool write_some(int fd, std::string_view& rest) {
  const ssize_t n = ::write(fd, rest.data(), rest.size());
  if (n < 0) return errno == EINTR || errno == EAGAIN;
  rest.remove_prefix(static_cast<std::size_t>(n));
  return !rest.empty();
}

int milliseconds_left(std::chrono::steady_clock::time_point deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 1 << 30));
}

// Until both streams end or the deadline. False: the deadline came first.
bool pump(Streams& s, const Command& command, CommandOutput& output,
          std::chrono::steady_clock::time_point deadline) {
  std::string_view rest = command.standard_input;
  if (rest.empty()) Pipe::close(s.in.write_end);
  while (s.out.read_end >= 0 || s.err.read_end >= 0) {
    pollfd fds[3] = {
        {s.out.read_end, POLLIN, 0}, {s.err.read_end, POLLIN, 0}, {s.in.write_end, POLLOUT, 0}};
    const int ready = ::poll(fds, 3, milliseconds_left(deadline));
    if (ready == 0) return false;
    if (ready < 0) continue;
    if (fds[0].revents != 0 && !read_some(s.out.read_end, output.out, command.output_limit))
      Pipe::close(s.out.read_end);
    if (fds[1].revents != 0 && !read_some(s.err.read_end, output.err, command.output_limit))
      Pipe::close(s.err.read_end);
    if (fds[2].revents != 0 && !write_some(s.in.write_end, rest)) Pipe::close(s.in.write_end);
  }
  return true;
}

// Waits for the child until the deadline; then kills its group. Its output may end long before it.
int reap(pid_t child, bool kill_now, std::chrono::steady_clock::time_point deadline,
         CommandOutput& output) {
  int status = 0;
  siginfo_t info{};
  while (!kill_now) {
    if (::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT | WNOHANG) == 0 &&
        info.si_pid == child)
      break;
    if (milliseconds_left(deadline) == 0) kill_now = true;
    ::poll(nullptr, 0, 1);
  }
  if (kill_now) {
    output.timed_out = true;
    ::kill(-child, SIGKILL);
  }
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace

Result<CommandOutput> run_command(const Command& command) {
  FARCALL_CHECK(!command.argv.empty(), "run_command needs an argv");
  const std::string program = find_program(command.argv[0]);
  if (program.empty())
    return fail(ErrorCode::kNotFound, "command '{}' not found on PATH ({})", command.argv[0],
                std::getenv("PATH") != nullptr ? std::getenv("PATH") : "unset");
  Streams streams;
  if (!streams.in.open() || !streams.out.open() || !streams.err.open() || !streams.failure.open())
    return fail(ErrorCode::kIo, "cannot make a pipe for '{}': {}", program, std::strerror(errno));
  const std::vector<std::string> environment = environment_with(command.extra_environment);
  const std::vector<char*> argv = pointers(command.argv), env = pointers(environment);
  const auto start = std::chrono::steady_clock::now();
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0)
    return fail(ErrorCode::kIo, "cannot start '{}': {}", program, std::strerror(errno));
  if (child == 0)
    become(program.c_str(), argv.data(), env.data(), command.working_directory.c_str(), streams,
           parent);
  ::setpgid(child, child);
  Pipe::close(streams.in.read_end);
  Pipe::close(streams.out.write_end);
  Pipe::close(streams.err.write_end);
  Pipe::close(streams.failure.write_end);
  int error = 0;
  if (::read(streams.failure.read_end, &error, sizeof error) == sizeof error) {
    ::waitpid(child, nullptr, 0);
    return fail(ErrorCode::kIo, "cannot start '{}'{}: {}", program,
                command.working_directory.empty() ? "" : " in " + command.working_directory,
                std::strerror(error));
  }
  ::fcntl(streams.in.write_end, F_SETFL, O_NONBLOCK);
  CommandOutput output;
  const auto deadline = command.time_limit == Duration::max()
                            ? std::chrono::steady_clock::time_point::max()
                            : start + command.time_limit;
  const bool ended = pump(streams, command, output, deadline);
  const int status = reap(child, !ended, deadline, output);
  output.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  output.took = std::chrono::steady_clock::now() - start;
  return output;
}

std::string shell_quote(std::string_view word) {
  static constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string_view::npos)
    return std::string(word);
  std::string quoted = "'";
  for (char c : word) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

std::string shell_join(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : " ") + shell_quote(word);
  return line;
}

}  // namespace farcall
