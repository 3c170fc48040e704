// Jacobi's method for the steady heat of a square plate whose left edge is warm: u = sin(πy) there,
// 0 at the other edges. Rows are shared out among the ranks of a communicator; each point is
// computed by the same operations whoever does it, so that the field does not depend on how many
// ranks there are.
#pragma once

#include <mpi.h>

#include <cmath>
#include <utility>
#include <vector>

namespace jacobi {

struct Answer {
  double centre = 0;      // u in the middle
  double sum = 0;         // of all inner points, added up in their order
  double difference = 0;  // largest change in the last sweep
  int ranks = 0;
};

// `cells` per side, `sweeps` of Jacobi. Collective; the answer is that of rank 0.
inline Answer solve(MPI_Comm world, int cells, int sweeps) {
  int rank = 0, ranks = 1;
  MPI_Comm_rank(world, &rank);
  MPI_Comm_size(world, &ranks);
  const int width = cells + 1, inner = cells - 1;
  const auto first_of = [&](int r) { return 1 + static_cast<int>(1LL * inner * r / ranks); };
  const int first = first_of(rank), rows = first_of(rank + 1) - first;
  const auto at = [&](int row, int column) {
    return static_cast<std::size_t>(row) * static_cast<std::size_t>(width) +
           static_cast<std::size_t>(column);
  };
  // Rows 0 and rows + 1 are the neighbours', or an edge.
  std::vector<double> old(at(rows + 2, 0), 0.0);
  for (int i = 0; i < rows + 2; ++i)
    old[at(i, 0)] = std::sin(std::acos(-1.0) * (first - 1 + i) / cells);
  std::vector<double> now = old;
  const int up = rank > 0 ? rank - 1 : MPI_PROC_NULL;
  const int down = rank + 1 < ranks ? rank + 1 : MPI_PROC_NULL;
  double largest = 0;
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    MPI_Sendrecv(&old[at(1, 0)], width, MPI_DOUBLE, up, 0, &old[at(rows + 1, 0)], width, MPI_DOUBLE,
                 down, 0, world, MPI_STATUS_IGNORE);
    MPI_Sendrecv(&old[at(rows, 0)], width, MPI_DOUBLE, down, 1, &old[at(0, 0)], width, MPI_DOUBLE,
                 up, 1, world, MPI_STATUS_IGNORE);
    largest = 0;
    for (int i = 1; i <= rows; ++i)
      for (int j = 1; j < cells; ++j) {
        now[at(i, j)] =
            0.25 * (old[at(i - 1, j)] + old[at(i + 1, j)] + old[at(i, j - 1)] + old[at(i, j + 1)]);
        largest = std::fmax(largest, std::fabs(now[at(i, j)] - old[at(i, j)]));
      }
    std::swap(old, now);
  }
  Answer answer;
  answer.ranks = ranks;
  MPI_Reduce(&largest, &answer.difference, 1, MPI_DOUBLE, MPI_MAX, 0, world);
  std::vector<int> counts, offsets;
  for (int r = 0; r < ranks; ++r) {
    counts.push_back((first_of(r + 1) - first_of(r)) * width);
    offsets.push_back((first_of(r) - 1) * width);
  }
  std::vector<double> field(rank == 0 ? at(inner, 0) : 0);
  MPI_Gatherv(&old[at(1, 0)], rows * width, MPI_DOUBLE, field.data(), counts.data(), offsets.data(),
              MPI_DOUBLE, 0, world);
  if (rank != 0) return answer;
  for (int i = 0; i < inner; ++i)
    for (int j = 1; j < cells; ++j) answer.sum += field[at(i, j)];
  answer.centre = field[at(cells / 2 - 1, cells / 2)];
  return answer;
}

}  // namespace jacobi
