"""MPI functions of C++: shared objects whose functions were declared with FARCALL_MPI_FUNCTION of
<farcall/mpi_function.h>, called through its C interface."""

import ctypes
import json
import os

from farcall_payloads import EnvironmentFailure, LoadFailure

_ABI = 1
_PREFIX = "farcall_mpi_function_"
_VALUE, _EXCEPTION = 0, 1

_Answer = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_Progress = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_double, ctypes.c_double, ctypes.c_void_p, ctypes.c_size_t)


class _Host(ctypes.Structure):
    _fields_ = [("abi", ctypes.c_uint), ("size", ctypes.c_uint), ("context", ctypes.c_void_p), ("answer", _Answer), ("progress", _Progress)]


_Call = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Host), ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)


class _Declared(ctypes.Structure):
    _fields_ = [
        ("abi", ctypes.c_uint),
        ("size", ctypes.c_uint),
        ("name", ctypes.c_char_p),
        ("built_with", ctypes.c_char_p),
        ("call", _Call),
    ]


# Of the ranks of a task none speaks for all.
_no_progress = _Progress(lambda _context, _done, _total, _note, _size: None)


class NativeFunction:
    """One function of a shared object; loaded when it is called first."""

    def __init__(self, header, body):
        self.name = header["name"]
        self._file = header["meta"].get("file") or "the shared object of function %s" % self.name
        self._body = bytes(body)
        self._declared = None

    def call(self, comm, arguments, files):
        """The data of its result. Raises EnvironmentFailure, or an exception of the name and with the
        text of the one that it threw. ``files``: of blobs, by hash."""
        if bytes(arguments[:1]) == b"B":  # all of them are one
            with open(files[bytes(arguments[8:72]).decode("ascii")], "rb") as file:
                arguments = file.read()
        if self._declared is None:
            self._declared = self._load()
        answers = []
        take = _Answer(lambda _context, kind, data, size: answers.append((kind, ctypes.string_at(data, size))))
        host = _Host(_ABI, ctypes.sizeof(_Host), None, take, _no_progress)
        self._declared.call(ctypes.byref(host), comm.py2f(), bytes(arguments), len(arguments))
        if not answers:
            raise LoadFailure("function %s gave no answer" % self.name)
        kind, data = answers[0]
        if kind == _VALUE:
            return data
        error = json.loads(data)
        raise type(error["type"], (Exception,), {"__module__": "c++" if kind == _EXCEPTION else "farcall"})(error["message"])

    def _load(self):
        fd = os.memfd_create(self.name)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(self._body)
            library = ctypes.CDLL("/proc/self/fd/%d" % fd)
        except OSError as error:
            raise EnvironmentFailure(
                "%s cannot be loaded: %s; the libraries that it needs must be on the nodes (worker_init can set LD_LIBRARY_PATH)" % (self._file, error)
            ) from None
        finally:
            os.close(fd)
        try:
            declared = _Declared.in_dll(library, _PREFIX + self.name)
        except ValueError as error:
            raise LoadFailure("%s has no MPI function %s (%s): it is declared with FARCALL_MPI_FUNCTION" % (self._file, self.name, error)) from None
        if declared.abi != _ABI:
            raise LoadFailure(
                "function %s of %s was built with version %d of <farcall/function.h>, this worker has version %d: build it again with the header "
                "that belongs to the endpoint" % (self.name, self._file, declared.abi, _ABI)
            )
        self._body = None
        return declared
