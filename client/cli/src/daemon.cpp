#include "daemon.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/files.h"

namespace farcall::cli {

namespace fs = std::filesystem;

namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(20);

bool is_program(pid_t pid, const std::string& program) {
  std::ifstream file(fmt::format("/proc/{}/cmdline", pid), std::ios::binary);
  std::string command;
  if (!std::getline(file, command, '\0')) return false;
  return fs::path(command).filename() == program;
}

std::string program_path(const std::string& name) { return (program_directory() / name).string(); }

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

// In the child, after fork: only async-signal-safe calls.
[[noreturn]] void run_child(char* const* argv, int output, int ready) {
  ::setsid();
  const int null = ::open("/dev/null", O_RDONLY);
  ::dup2(null, 0);
  ::dup2(output, 1);
  ::dup2(output, 2);
  const int flags = ::fcntl(ready, F_GETFD);
  ::fcntl(ready, F_SETFD, flags & ~FD_CLOEXEC);
  ::execv(argv[0], argv);
  const char text[] = "cannot be executed\n";
  (void)!::write(2, text, sizeof text - 1);
  ::_exit(127);
}

// The first line from `fd`; empty when the writer closed it or time is up.
std::string read_line(int fd, Duration limit, bool& timed_out) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  std::string line;
  while (line.find('\n') == std::string::npos) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd waiting{fd, POLLIN, 0};
    timed_out = left.count() <= 0;
    if (timed_out) return "";
    if (::poll(&waiting, 1, static_cast<int>(left.count()) + 1) <= 0) continue;
    char buffer[256];
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return "";
    line.append(buffer, static_cast<std::size_t>(got));
  }
  return line.substr(0, line.find('\n'));
}

std::string text_since(const fs::path& file, std::uintmax_t offset) {
  std::ifstream in(file, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(offset));
  std::ostringstream text;
  text << in.rdbuf();
  std::string result = text.str();
  result.erase(result.find_last_not_of(" \n") + 1);
  return result;
}

Error how_it_ended(const std::string& program, pid_t pid, const std::string& said) {
  int status = 0;
  ::waitpid(pid, &status, 0);
  ErrorCode code = ErrorCode::kIo;
  std::string how = fmt::format("ended with exit code {}", WEXITSTATUS(status));
  if (WIFSIGNALED(status)) how = fmt::format("was killed by signal {}", WTERMSIG(status));
#define FARCALL_X(enumerator, number, name, exit_code, meaning) \
  if (WIFEXITED(status) && WEXITSTATUS(status) == (exit_code)) code = ErrorCode::enumerator;
  FARCALL_ERROR_TABLE(FARCALL_X)
#undef FARCALL_X
  return {code, fmt::format("{} {} before it was ready{}{}", program, how,
                            said.empty() ? "" : ":\n", said)};
}

}  // namespace

std::optional<Daemon> find_daemon(const fs::path& pid_file, const std::string& program) {
  auto text = read_file(pid_file);
  if (!text) return std::nullopt;
  std::istringstream words(*text);
  std::vector<std::string> parts;
  for (std::string word; words >> word;) parts.push_back(word);
  if (parts.empty()) return std::nullopt;
  Daemon daemon;
  daemon.pid = static_cast<pid_t>(std::strtol(parts.back().c_str(), nullptr, 10));
  if (daemon.pid <= 0) return std::nullopt;
  if (parts.size() > 1 && parts.front() != host_name()) {
    daemon.host = parts.front();
    return daemon;
  }
  if (!is_program(daemon.pid, program)) return std::nullopt;
  return daemon;
}

Result<std::string> start_daemon(const DaemonStart& start) {
  const std::string program = start.argv.front();
  std::vector<std::string> argv = start.argv;
  argv[0] = program_path(program);
  if (::access(argv[0].c_str(), X_OK) != 0)
    return fail(ErrorCode::kNotFound, "the program {} is missing: it belongs beside `farcall`",
                argv[0]);
  const int output = ::open(start.output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (output < 0)
    return fail(ErrorCode::kIo, "{} cannot be written: {}", start.output.string(),
                std::strerror(errno));
  const auto before = static_cast<std::uintmax_t>(::lseek(output, 0, SEEK_END));
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0)
    return fail(ErrorCode::kIo, "no pipe: {}", std::strerror(errno));
  argv.insert(argv.end(), {"--ready-fd", std::to_string(ready[1])});
  const std::vector<char*> raw = pointers(argv);
  const pid_t pid = ::fork();
  if (pid == 0) run_child(raw.data(), output, ready[1]);
  const int fork_error = errno;
  ::close(ready[1]);
  ::close(output);
  if (pid < 0) {
    ::close(ready[0]);
    return fail(ErrorCode::kIo, "{} cannot be started: {}", program, std::strerror(fork_error));
  }
  bool timed_out = false;
  const std::string line = read_line(ready[0], start.time_limit, timed_out);
  ::close(ready[0]);
  if (!line.empty()) return line;
  const std::string said = text_since(start.output, before);
  if (!timed_out) return fail(how_it_ended(program, pid, said));
  return fail(ErrorCode::kTimeout, "{} (pid {}) runs, but is not ready after {:.0f} s{}{}", program,
              pid, std::chrono::duration<double>(start.time_limit).count(),
              said.empty() ? "" : ":\n", said);
}

Error become_daemon(const std::vector<std::string>& argv) {
  std::vector<std::string> words = argv;
  words[0] = program_path(argv[0]);
  ::execv(words[0].c_str(), pointers(words).data());
  return {ErrorCode::kNotFound,
          fmt::format("{} cannot be executed: {}", words[0], std::strerror(errno))};
}

Result<void> stop_daemon(pid_t pid, Duration time_limit) {
  if (::kill(pid, SIGTERM) != 0 && errno != ESRCH)
    return fail(ErrorCode::kDenied, "process {} cannot be stopped: {}", pid, std::strerror(errno));
  const auto deadline = std::chrono::steady_clock::now() + time_limit;
  while (::kill(pid, 0) == 0) {
    // Our own child, in tests, stays as a zombie until it is waited for.
    ::waitpid(pid, nullptr, WNOHANG);
    std::ifstream stat(fmt::format("/proc/{}/stat", pid));
    std::string line;
    std::getline(stat, line);
    const std::size_t name_end = line.rfind(')');
    if (name_end != std::string::npos && line.size() > name_end + 2 && line[name_end + 2] == 'Z')
      return {};
    if (std::chrono::steady_clock::now() > deadline)
      return fail(ErrorCode::kTimeout, "process {} is still there {:.0f} s after SIGTERM", pid,
                  std::chrono::duration<double>(time_limit).count());
    std::this_thread::sleep_for(kPollInterval);
  }
  return {};
}

}  // namespace farcall::cli
