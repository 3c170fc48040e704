// farcall-mpi rank PROGRAM ARGUMENTS…: stands between mpirun and a rank, gives it files of its own
// for its output where they are wanted (FARCALL_RANK_STDOUT, FARCALL_RANK_STDERR) and becomes
// PROGRAM.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

namespace {

constexpr const char* kHelp =
    "farcall-mpi rank PROGRAM [ARGUMENT…]     one rank of an MPI task; put there by the launcher\n";

int complain(const std::string& text) {
  std::cerr << "farcall-mpi: " << text << "\n";
  return 1;
}

// %t is the number of the rank.
bool redirect(int fd, const char* variable, const std::string& rank) {
  const char* wanted = std::getenv(variable);
  if (wanted == nullptr) return true;
  std::string path = wanted;
  for (auto at = path.find("%t"); at != std::string::npos; at = path.find("%t"))
    path.replace(at, 2, rank);
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0 || dup2(file, fd) < 0) {
    complain("cannot write " + path + ": " + std::strerror(errno));
    return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || std::string(argv[1]) != "rank") {
    std::cout << kHelp;
    return argc > 1 && std::string(argv[1]) == "--help" ? 0 : 2;
  }
  const char* number = std::getenv("OMPI_COMM_WORLD_RANK");
  const std::string rank = number == nullptr ? "0" : number;
  if (!redirect(STDOUT_FILENO, "FARCALL_RANK_STDOUT", rank) ||
      !redirect(STDERR_FILENO, "FARCALL_RANK_STDERR", rank))
    return 1;
  execvp(argv[2], argv + 2);
  const int error = errno;
  complain("cannot start " + std::string(argv[2]) + ": " + std::strerror(error));
  return error == ENOENT ? 127 : 126;
}
