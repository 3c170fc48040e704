"""Results that stay at their endpoint: read in slices, used there, fetched when all of it is wanted."""

import json
import math
import mmap
import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .errors import InvalidRequest
from .serialization import deserialize_result
from .stored import unpack

_PIECES_MAX = 8 * 1024 * 1024  # bytes in one answer of the relay

Dim = Tuple[int, int]  # count, stride in bytes


class RemoteResult:
    """The result of a task, wherever it is. Of a large one (above 1 MiB) the bytes are at its
    endpoint, until ``delete()`` or ``client.release()``, or until its time is over.

    ``task_id``; ``nbytes``: of the whole; ``shape`` and ``dtype``: None unless it is one numpy array.
    ``ref[2:5, ::4]`` moves the bytes of that part alone. Given as an argument to a task on the same
    endpoint it is opened there, and nothing travels. What it raises: NotFound when it was released,
    ResultLost when it is gone for another reason or damaged, Unreachable while its endpoint is not connected.
    """

    def __init__(self, native: Any, task_id: str, data: bytes):
        self._native = native
        self._blob: Optional[Tuple[str, int]] = None  # None: it came with its task
        self._data = data
        self._offset = 0
        self.task_id = task_id
        self.nbytes = len(data)
        self.shape: Optional[Tuple[int, ...]] = None
        self.dtype: Any = None
        if bytes(data[:1]) == b"B":
            blobs, places, rest = unpack(data)
            self._data = bytes(rest)
            for number, place, *array in places:
                if place is None:
                    self._blob, self.nbytes = blobs[number], blobs[number][1]
                    if array:
                        self._describe(array[0])
        if self._blob is None:
            value = self.fetch()
            if hasattr(value, "dtype") and hasattr(value, "shape"):
                self.shape, self.dtype, self.nbytes = value.shape, value.dtype, value.nbytes

    def _describe(self, array: Dict[str, Any]) -> None:
        import numpy

        self.dtype = numpy.dtype(array["dtype"])
        self.shape = tuple(array["shape"])
        self.nbytes = self.dtype.itemsize * math.prod(self.shape)
        self._offset = array["offset"]

    def __repr__(self) -> str:
        what = "%d bytes" % self.nbytes if self.shape is None else "%s array of shape %s" % (self.dtype, self.shape)
        return "<RemoteResult of task %s: %s>" % (self.task_id, what)

    def fetch(self) -> Any:
        """All of it, as a future would give it."""
        if self._blob is None:
            return deserialize_result(self._data, self.task_id)
        path = self._native.fetch_blob(self.task_id, *self._blob)
        return deserialize_result(mapped(path, self._blob[1]), self.task_id)

    def save(self, path: Any) -> None:
        """Writes it to a file: ``.npy`` for an array, ``.h5`` for arrays and dicts of them (with h5py).
        Raises InvalidRequest."""
        name = os.fspath(path)
        value = self.fetch()
        if name.endswith(".npy"):
            import numpy

            numpy.save(name, value, allow_pickle=False)
        elif name.endswith((".h5", ".hdf5")):
            import h5py

            with h5py.File(name, "w") as file:
                _write(file, "value", value)
        else:
            raise InvalidRequest("%s: a result can be saved as .npy or .h5" % name)

    def delete(self) -> None:
        """Removes it at its endpoint, for everybody."""
        if self._blob is not None:
            self._native.call("task.drop", json.dumps(self._name()))

    def _farcall_result(self) -> Optional[List[Any]]:
        """What names it to a worker of its endpoint; None: it is here."""
        return None if self._blob is None else [*self._blob, self.task_id]

    def _name(self) -> Dict[str, Any]:
        assert self._blob is not None
        return {"task": self.task_id, "hash": self._blob[0], "size": self._blob[1]}

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("the result of task %s has no length here: fetch() it" % self.task_id)
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """The part that numpy's basic indexing (numbers, slices, ``...``) means, as an array of its
        own. Raises IndexError, TypeError."""
        if self.shape is None:
            raise TypeError("the result of task %s is no array that can be read in parts: fetch() it" % self.task_id)
        if self._blob is None:
            return self.fetch()[key]
        import numpy

        starts, counts, steps, dropped, reversed_dims = _selection(key, self.shape)
        strides = [self.dtype.itemsize * math.prod(self.shape[i + 1 :]) for i in range(len(self.shape))]
        offset = self._offset + sum(start * stride for start, stride in zip(starts, strides))
        dims = [(count, step * stride) for count, step, stride in zip(counts, steps, strides)]
        out = bytearray()
        if math.prod(counts):
            self._read(offset, dims, self.dtype.itemsize, out)
        array = (numpy.frombuffer(out, self.dtype) if out else numpy.empty(0, self.dtype)).reshape(counts)
        array = array[tuple(slice(None, None, -1) if i in reversed_dims else slice(None) for i in range(len(counts)))]
        array = array.reshape([count for i, count in enumerate(array.shape) if i not in dropped])
        return array[()] if not array.shape else array

    def _read(self, offset: int, dims: List[Dim], run: int, out: bytearray) -> None:
        """Appends what it reads; ``dims`` from the slowest to the fastest."""
        dims = [dim for dim in dims if dim[0] != 1]
        while dims and dims[-1][1] == run:
            run *= dims.pop()[0]
        whole = run * math.prod(count for count, _stride in dims)
        if whole <= _PIECES_MAX:
            counts, strides = [count for count, _ in dims], [stride for _, stride in dims]
            wanted = dict(self._name(), offset=offset, counts=counts, strides=strides, run=run)
            out += self._native.call("task.read", json.dumps(wanted))[1][0]
            return
        if not dims:
            for start in range(0, run, _PIECES_MAX):
                self._read(offset + start, [], min(_PIECES_MAX, run - start), out)
            return
        count, stride = dims[0]
        at_once = max(1, _PIECES_MAX // (whole // count))
        for start in range(0, count, at_once):
            self._read(offset + start * stride, [(min(at_once, count - start), stride)] + dims[1:], run, out)


def _selection(key: Any, shape: Sequence[int]) -> Tuple[List[int], List[int], List[int], set, set]:
    """For each dimension first index, count and (positive) step; those that numbers drop; those
    whose order is reversed."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if sum(one is Ellipsis for one in keys) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(shape) - len(keys) + 1)
    if len(keys) > len(shape):
        raise IndexError("too many indices: the array has %d dimensions, %d were indexed" % (len(shape), len(keys)))
    keys += [slice(None)] * (len(shape) - len(keys))
    starts, counts, steps, dropped, reversed_dims = [], [], [], set(), set()
    for i, (one, size) in enumerate(zip(keys, shape)):
        if isinstance(one, slice):
            chosen = range(*one.indices(size))
            if chosen.step < 0:
                chosen = chosen[::-1]
                reversed_dims.add(i)
            starts.append(chosen.start if len(chosen) else 0)
            counts.append(len(chosen))
            steps.append(chosen.step)
            continue
        if isinstance(one, bool) or not hasattr(one, "__index__"):
            raise TypeError("a remote array is indexed with numbers and slices, got %r: fetch() it for anything else" % (one,))
        number = one.__index__()
        if not -size <= number < size:
            raise IndexError("index %d is out of bounds for axis %d with size %d" % (number, i, size))
        starts.append(number % size)
        counts.append(1)
        steps.append(1)
        dropped.add(i)
    return starts, counts, steps, dropped, reversed_dims


def mapped(path: str, size: int) -> Any:
    """The content of a file: pages are read when they are touched, and can be changed."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_COPY)) if size else memoryview(b"")
    finally:
        os.close(fd)


def _write(group: Any, name: str, value: Any) -> None:
    if isinstance(value, dict):
        folder = group.create_group(name)
        for key, item in value.items():
            _write(folder, str(key).replace("/", "%2F"), item)
        return
    try:
        chunked = {"fletcher32": True} if getattr(value, "size", 0) > 1 else {}
        group.create_dataset(name, data=value, **chunked)
    except TypeError as error:
        raise InvalidRequest("%s is a %s, which does not fit into HDF5: %s" % (name, type(value).__name__, error)) from None
