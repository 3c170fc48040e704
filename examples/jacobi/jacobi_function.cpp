// The solver of solver.h as an MPI function of C++: solve(cells, sweeps), called with a
// communicator of the ranks that its task was given.
#include <farcall/mpi_function.h>

#include <stdexcept>

#include "solver.h"

namespace jacobi {
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Answer, centre, sum, difference, ranks)
}

FARCALL_MPI_FUNCTION(solve, [](MPI_Comm comm, int cells, int sweeps) {
  if (cells < 2 || sweeps < 1)
    throw std::invalid_argument("cells from 2 and sweeps from 1 are needed");
  return jacobi::solve(comm, cells, sweeps);
})
