// farcall-mpi: stands between mpirun and the ranks of a task.
//   rank PROGRAM ARGUMENTS…   binds this rank to its share of the task's place and becomes PROGRAM
//   rsh HOST COMMAND…         mpirun's remote start: the pilot of HOST runs COMMAND
#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>

#include "pilot/mpi/launch.h"

namespace {

using farcall::Error;
using farcall::ErrorCode;
using farcall::Result;
using nlohmann::json;

constexpr const char* kHelp =
    R"(farcall-mpi rank PROGRAM [ARGUMENT…]     bind this rank to its cores and devices, become PROGRAM
farcall-mpi rsh HOST COMMAND…            start COMMAND on another node of the same task

Used by the launcher of MPI tasks, see FARCALL_MPI_PREFIX in the environment of a task.
)";

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int complain(const std::string& text) {
  std::cerr << "farcall-mpi: " << text << "\n";
  return 1;
}

long rank_from_environment() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"})
    if (const std::string value = variable(name); !value.empty()) return std::atol(value.c_str());
  return 0;
}

// stdout or stderr of this rank into a file of its own; %t is its number.
bool redirect(int fd, std::string path, long rank) {
  for (auto at = path.find("%t"); at != std::string::npos; at = path.find("%t"))
    path.replace(at, 2, std::to_string(rank));
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) {
    complain("cannot write " + path + ": " + strerror(errno));
    return false;
  }
  dup2(file, fd);
  return true;
}

int become(char** argv) {
  const long rank = rank_from_environment();
  if (const std::string nodes = variable("FARCALL_MPI_NODES"); !nodes.empty()) {
    auto share = farcall::pilot::rank_share(nodes, static_cast<std::uint32_t>(rank));
    if (!share) return complain(share.error().message);
    if (!share->processors.empty()) {
      const std::size_t count =
          1 + *std::max_element(share->processors.begin(), share->processors.end());
      cpu_set_t* set = CPU_ALLOC(count);
      CPU_ZERO_S(CPU_ALLOC_SIZE(count), set);
      for (std::uint32_t processor : share->processors)
        CPU_SET_S(processor, CPU_ALLOC_SIZE(count), set);
      if (sched_setaffinity(0, CPU_ALLOC_SIZE(count), set) != 0)
        complain("rank " + std::to_string(rank) + " is not bound to processors " +
                 farcall::pilot::ranges_text(share->processors) + ": " + strerror(errno));
      CPU_FREE(set);
    }
    setenv("FARCALL_CORES", farcall::pilot::ranges_text(share->processors).c_str(), 1);
    for (const auto& [name, value] : farcall::pilot::gpu_environment(share->gpus))
      setenv(name.c_str(), value.c_str(), 1);
  }
  const std::string out = variable("FARCALL_RANK_STDOUT"), err = variable("FARCALL_RANK_STDERR");
  if (!out.empty() && !redirect(STDOUT_FILENO, out, rank)) return 1;
  if (!err.empty() && !redirect(STDERR_FILENO, err, rank)) return 1;
  execvp(argv[0], argv);
  complain(std::string("cannot start ") + argv[0] + ": " + strerror(errno));
  return errno == ENOENT ? 127 : 126;
}

int remote(const std::string& host, char** words) {
  const std::string path = variable("FARCALL_MPI_SOCKET");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return complain("FARCALL_MPI_SOCKET is not set: this is no task of a pilot");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return complain("cannot reach the pilot at " + path + ": " + strerror(errno));
  std::string command;
  for (; *words != nullptr; ++words) command += (command.empty() ? "" : " ") + std::string(*words);
  char* directory = getcwd(nullptr, 0);
  const bool pool = !variable("FARCALL_MPI_POOL").empty();
  const std::string task = variable(pool ? "FARCALL_MPI_TASK" : "FARCALL_TASK_ID");
  const std::string attempt = variable(pool ? "FARCALL_MPI_ATTEMPT" : "FARCALL_TASK_ATTEMPT");
  const std::string request =
      json{{"task", task},       {"attempt", std::atoi(attempt.c_str())},
           {"pool", pool},       {"host", host},
           {"command", command}, {"directory", directory == nullptr ? "" : directory}}
          .dump(-1, ' ', false, json::error_handler_t::replace) +
      "\n";
  std::free(directory);
  for (std::size_t at = 0; at < request.size();) {
    const ssize_t sent = send(fd, request.data() + at, request.size() - at, MSG_NOSIGNAL);
    if (sent <= 0) return complain(std::string("the pilot is gone: ") + strerror(errno));
    at += static_cast<std::size_t>(sent);
  }
  std::string text;
  char buffer[4096];
  for (ssize_t got; (got = read(fd, buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  const json answer = json::parse(text, nullptr, false);
  if (!answer.is_object()) return complain("the pilot ended before it answered");
  if (const std::string said = answer.value("text", ""); !said.empty())
    std::cerr << host << ": " << said << "\n";
  return answer.value("code", 255);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "rank" && argc > 2) return become(argv + 2);
  if (what == "rsh" && argc > 3) return remote(argv[2], argv + 3);
  std::cout << kHelp;
  return what == "--help" || what == "-h" ? 0 : 2;
}
