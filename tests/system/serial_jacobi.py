"""The equation of examples/jacobi without MPI, without arrays: what all ranks together have to find."""

import math


def solve(cells, sweeps):
    """A plate of cells x cells: one edge is held at sin(pi i / cells), the others at zero."""
    old = [[math.sin(math.pi * row / cells) if column == 0 else 0.0 for column in range(cells + 1)] for row in range(cells + 1)]
    difference = 0.0
    for _ in range(sweeps):
        new = [line[:] for line in old]
        for row in range(1, cells):
            for column in range(1, cells):
                new[row][column] = 0.25 * (old[row - 1][column] + old[row + 1][column] + old[row][column - 1] + old[row][column + 1])
        difference = max(abs(new[row][column] - old[row][column]) for row in range(1, cells) for column in range(1, cells))
        old = new
    total = sum(old[row][column] for row in range(1, cells) for column in range(1, cells))
    return {"centre": old[cells // 2][cells // 2], "sum": total, "difference": difference}
