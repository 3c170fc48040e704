// MPI functions that tests call through farcall.
#include <farcall/mpi_function.h>

#include <csignal>
#include <stdexcept>
#include <vector>

namespace {

struct Unstable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

int rank_in(MPI_Comm comm) {
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  return rank;
}

double total(MPI_Comm comm, double x) {
  const double mine = x + rank_in(comm);
  double all = 0;
  MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_SUM, comm);
  return all;
}

}  // namespace

FARCALL_MPI_FUNCTION(total, total)
FARCALL_MPI_FUNCTION(throws, [](MPI_Comm comm, const std::string& what) -> int {
  farcall::progress(1, 2);
  if (rank_in(comm) == 1) throw Unstable(what);
  return 0;
})
FARCALL_MPI_FUNCTION(twice, [](MPI_Comm, std::vector<double> x) {
  for (double& one : x) one *= 2;
  return x;
})
FARCALL_MPI_FUNCTION(crash, [](MPI_Comm comm) {
  if (rank_in(comm) == 1) std::raise(SIGSEGV);
  MPI_Barrier(comm);
})
FARCALL_FUNCTION(plain, [](int x) { return x + 1; })
