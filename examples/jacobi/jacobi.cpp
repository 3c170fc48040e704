// jacobi [CELLS [SWEEPS]]: the solver of solver.h as an MPI program. Rank 0 prints one JSON object.
#include <cstdio>
#include <cstdlib>

#include "solver.h"

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  const int cells = argc > 1 ? std::atoi(argv[1]) : 64;
  const int sweeps = argc > 2 ? std::atoi(argv[2]) : 500;
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (cells < 2 || sweeps < 1) {
    if (rank == 0) std::fprintf(stderr, "usage: jacobi [CELLS from 2 [SWEEPS from 1]]\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  const jacobi::Answer answer = jacobi::solve(MPI_COMM_WORLD, cells, sweeps);
  if (rank == 0)
    std::printf("{\"centre\": %.17g, \"sum\": %.17g, \"difference\": %.17g, \"ranks\": %d}\n",
                answer.centre, answer.sum, answer.difference, answer.ranks);
  MPI_Finalize();
  return 0;
}
