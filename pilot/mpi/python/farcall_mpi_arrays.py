"""An array of which each rank has a part, written by all of them into one HDF5 file of the endpoint:
parallel HDF5 through h5py (https://docs.h5py.org/en/stable/mpi.html). Nobody has the whole in memory."""

import importlib
import socket
import sys

from farcall_payloads import EnvironmentFailure, ResultNotStored, array_place, begin_stored_array, seal_stored_array, stored_array
from farcall_values import array_head

_PIECE_BYTES = 64 * 1024 * 1024  # written by a rank at a time
_KINDS = "biufc"


def whole_of(comm, part, name):
    """dtype and shape of the array that the parts make, one after the other along the first axis, and
    the row at which ours begins. Collective; raises ValueError on all ranks."""
    numpy = sys.modules.get("numpy")
    is_array = numpy is not None and isinstance(part, numpy.ndarray) and part.ndim > 0 and part.dtype.kind in _KINDS
    found = comm.allgather((part.dtype.str, part.shape) if is_array else "%s" % type(part).__name__)
    for rank, what in enumerate(found):
        if isinstance(what, str):
            raise ValueError(
                "rank %d of %s returned %s, and with result='array' each rank returns its part: a numpy array of numbers with at least one axis" % (rank, name, what)
            )
        if what[0] != found[0][0] or what[1][1:] != found[0][1][1:]:
            raise ValueError(
                "rank %d of %s returned an array of %s with shape %s, and rank 0 one of %s with shape %s: parts may differ in their first axis only"
                % (rank, name, what[0], what[1], found[0][0], found[0][1])
            )
    rows = [shape[0] for _dtype, shape in found]
    return found[0][0], (sum(rows), *found[0][1][1:]), sum(rows[: comm.Get_rank()])


def store(comm, part, name):
    """Has the parts of all ranks written. Collective. The first rank gets the places that a result
    with a file has, others None. Raises ValueError, EnvironmentFailure."""
    dtype, shape, first_row = whole_of(comm, part, name)
    h5py = _parallel_hdf5()
    head, size = array_head(dtype, shape)
    file, problem = None, None
    if comm.Get_rank() == 0:
        try:
            file = begin_stored_array(head, size, name)
        except ResultNotStored as error:
            problem = error
    file, problem = comm.bcast((file, problem), root=0)
    if problem is not None:
        raise problem
    try:
        _write(h5py, comm, file, part, first_row)
    except OSError as error:
        raise ResultNotStored("the part of rank %d of the result of %s cannot be written to %s: %s" % (comm.Get_rank(), name, file, error)) from None
    comm.Barrier()
    if comm.Get_rank() != 0:
        return None
    return stored_array(seal_stored_array(file, size, name), size, array_place(dtype, shape, len(head)))


def _parallel_hdf5():
    try:
        h5py = importlib.import_module("h5py")
        if h5py.get_config().mpi:
            return h5py
        what = "the h5py of"
    except ImportError:
        what = "no h5py in"
    raise EnvironmentFailure(
        "%s %s on %s can write from several ranks, which result='array' needs: install h5py built with parallel HDF5 (Debian: python3-h5py-mpi)"
        % (what, sys.executable, socket.gethostname())
    )


def _write(h5py, comm, file, part, first_row):
    numpy = sys.modules["numpy"]
    row_bytes = max(1, part[:1].nbytes)
    rows = max(1, _PIECE_BYTES // row_bytes)
    # All take part in each round, those without rows as well.
    rounds = max(comm.allgather(-(-len(part) // rows)))
    collective = h5py.h5p.create(h5py.h5p.DATASET_XFER)
    collective.set_dxpl_mpio(h5py.h5fd.MPIO_COLLECTIVE)
    with h5py.File(file, "r+", driver="mpio", comm=comm, libver=("v110", "latest")) as opened:
        dataset = next(iter(opened.values()))["value"].id
        for turn in range(rounds):
            piece = numpy.ascontiguousarray(part[turn * rows : (turn + 1) * rows])
            target, source = dataset.get_space(), h5py.h5s.create_simple(piece.shape if piece.size else (1,) * piece.ndim)
            if piece.size:
                target.select_hyperslab((first_row + turn * rows, *[0] * (piece.ndim - 1)), piece.shape)
            else:
                target.select_none()
                source.select_none()
            dataset.write(source, target, piece if piece.size else numpy.empty((1,) * piece.ndim, part.dtype), dxpl=collective)
