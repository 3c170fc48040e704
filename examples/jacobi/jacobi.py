"""The solver of solver.h as an MPI function of Python: solve(comm, cells, sweeps) with mpi4py and numpy.

    farcall call -e EP --ranks 4 jacobi.py:solve 128 1000
"""


def solve(comm, cells, sweeps):
    """Rows are shared out among the ranks of `comm`; the answer is that of rank 0."""
    import numpy
    from mpi4py import MPI

    rank, ranks = comm.Get_rank(), comm.Get_size()
    inner = cells - 1
    firsts = [1 + inner * each // ranks for each in range(ranks + 1)]
    first, rows = firsts[rank], firsts[rank + 1] - firsts[rank]
    # Rows 0 and rows + 1 are the neighbours', or an edge.
    old = numpy.zeros((rows + 2, cells + 1))
    old[:, 0] = numpy.sin(numpy.pi * numpy.arange(first - 1, first + rows + 1) / cells)
    new = old.copy()
    up = rank - 1 if rank > 0 else MPI.PROC_NULL
    down = rank + 1 if rank + 1 < ranks else MPI.PROC_NULL
    largest = 0.0
    for _ in range(sweeps):
        comm.Sendrecv(old[1], up, recvbuf=old[rows + 1], source=down)
        comm.Sendrecv(old[rows], down, recvbuf=old[0], source=up)
        new[1:-1, 1:-1] = 0.25 * (old[:-2, 1:-1] + old[2:, 1:-1] + old[1:-1, :-2] + old[1:-1, 2:])
        largest = float(numpy.abs(new - old)[1:-1, 1:-1].max(initial=0.0))
        old, new = new, old
    difference = comm.reduce(largest, op=MPI.MAX)
    parts = comm.gather(old[1:-1, 1:-1])
    if rank != 0:
        return None
    field = numpy.vstack(parts)
    return {"centre": float(field[cells // 2 - 1, cells // 2 - 1]), "sum": float(field.sum()), "difference": difference, "ranks": ranks}
