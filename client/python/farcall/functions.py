"""Things to run that are no Python functions: shell commands and MPI programs."""

import json
import os
import re
from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional, Union


class Raw(str):
    """Text that goes into a shell command as it is: ``submit(ShellFunction("ls {files}"), files=Raw("*.dat"))``.
    The shell interprets it, so never make one from what somebody else typed."""


@dataclass
class ShellResult:
    """What a command left behind. ``returncode`` is what Python's subprocess would say: negative
    for a signal, 124 when the walltime of the ShellFunction was over. ``stdout`` and ``stderr``:
    the last ``snippet_lines`` lines. ``exception_name``: None, or
    ``subprocess.CalledProcessError`` / ``subprocess.TimeoutExpired``."""

    cmd: str
    stdout: str
    stderr: str
    returncode: int
    exception_name: Optional[str] = None
    truncated: bool = False

    def __str__(self) -> str:
        shown = "returned %d" % self.returncode
        if self.exception_name:
            shown += " (%s)" % self.exception_name
        return "%s\n%s\n%s%s" % (self.cmd, shown, self.stdout, self.stderr)

    @classmethod
    def from_bytes(cls, data: bytes, return_dict: bool = False) -> Union["ShellResult", Dict[str, Any]]:
        """From an 'S' value of docs/payloads.md; bytes that are no UTF-8 become U+FFFD."""
        from ._farcall import decode_shell_result

        found = decode_shell_result(data)
        result = cls(
            cmd=found["cmd"],
            stdout=found["stdout"].decode("utf-8", "replace"),
            stderr=found["stderr"].decode("utf-8", "replace"),
            returncode=found["returncode"],
            exception_name=found["exception_name"] or None,
            truncated=found["truncated"],
        )
        return asdict(result) if return_dict else result


class ShellFunction:
    """A shell command with places to fill in.

    ``cmd``: for ``bash -c``; each ``{name}`` is replaced by the keyword argument of that name,
    quoted for the shell unless it is a ``Raw``. Other braces stand for themselves (``awk '{print $1}'`` works).
    ``stdout``, ``stderr``: files on the worker for the whole output. ``walltime``: seconds until the
    command and all that it started is killed. ``snippet_lines``: how many last lines of either
    output come back. ``return_dict``: results are dicts instead of ShellResult.

    A command that ran is a success whatever it returned: look at ``ShellResult.returncode``.
    """

    def __init__(
        self,
        cmd: str,
        stdout: Optional[str] = None,
        stderr: Optional[str] = None,
        walltime: Optional[float] = None,
        snippet_lines: int = 1000,
        name: Optional[str] = None,
        return_dict: bool = False,
    ):
        if not isinstance(cmd, str) or not cmd.strip():
            raise ValueError("cmd must be the text of a shell command, got %r" % (cmd,))
        if walltime is not None and not walltime > 0:
            raise ValueError("walltime must be a number of seconds above 0, got %r" % (walltime,))
        if snippet_lines < 0:
            raise ValueError("snippet_lines must not be negative, got %r" % (snippet_lines,))
        self.cmd = cmd
        self.stdout = stdout
        self.stderr = stderr
        self.walltime = walltime
        self.snippet_lines = snippet_lines
        self.name = self.__name__ = name or _name_from(cmd)
        self.return_dict = return_dict
        if not self.name.isidentifier():
            raise ValueError("name must be a Python identifier, got %r" % (name,))

    def body(self) -> bytes:
        """The function's body on the wire."""
        content = {"cmd": self.cmd, "snippet_lines": self.snippet_lines, "stdout": self.stdout, "stderr": self.stderr}
        # For whoever calls the registered function from another process.
        if self.walltime is not None:
            content["walltime_s"] = self.walltime
        if self.return_dict:
            content["return_dict"] = True
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode("utf-8")

    def __call__(self, **_kwargs: Any):
        raise TypeError("a %s runs on an endpoint: Executor.submit(function, name=value, …)" % type(self).__name__)

    def __repr__(self) -> str:
        return "%s(%r)" % (type(self).__name__, self.cmd)


class NativeFunction:
    """A C++ function in a shared object, declared with ``FARCALL_FUNCTION`` of
    ``<farcall/function.h>``, or with ``FARCALL_MPI_FUNCTION`` of ``<farcall/mpi_function.h>``: that one runs
    on as many ranks as the ``resource_specification`` says (``{"num_ranks": 4}``), its result is that of rank 0.

        integrate = NativeFunction("libwork.so", "integrate")
        executor.submit(integrate, 0.0, 1.0, 1000).result()

    Arguments and results are numbers, texts, bytes, lists, dicts with text keys and None; numpy arrays
    go as lists. Keyword arguments are for functions of one struct. The file is read now. Raises
    NotFound (with the functions that it has), InvalidRequest when it is no shared object.
    """

    def __init__(self, library: Union[str, "os.PathLike[str]"], name: str):
        from ._farcall import read_native_function

        self.library = os.fspath(library)
        self.name, meta, self._body = read_native_function(self.library, name)
        self.__name__ = self.name
        self.meta: Dict[str, Any] = json.loads(meta)

    def body(self) -> bytes:
        """The shared object."""
        return self._body

    def __call__(self, *_args: Any, **_kwargs: Any):
        raise TypeError("a NativeFunction runs on an endpoint: Executor.submit(function, …)")

    def __repr__(self) -> str:
        return "NativeFunction(%r, %r)" % (self.library, self.name)


class MPIFunction(ShellFunction):
    """An MPI program: ``cmd`` is started with the launcher of the endpoint, as many ranks on as many
    nodes as the ``resource_specification`` of the executor says: ``{"num_nodes": 2, "num_ranks": 8}``.

    The launcher (``$FARCALL_MPI_PREFIX``, also ``$PARSL_MPI_PREFIX``) is put before ``cmd``. A script
    that wants it elsewhere begins with ``true;`` and writes the prefix itself.
    ``stdout="out.%t"``: a file for each rank, ``%t`` is its number.
    """


def mpi(function: Any = None, *, result: str = "root") -> Any:
    """Marks a function whose first argument is an mpi4py communicator: it runs on as many ranks as
    the ``resource_specification`` says (``{"num_ranks": 4}``), which the endpoint keeps warm.

        @farcall.mpi
        def total(comm, x):
            return comm.allreduce(x + comm.Get_rank())

    ``result``: ``root`` (what rank 0 returns), ``all`` (a list with what each rank returns) or
    ``array``: each rank returns its part of a numpy array of numbers, which follow one another along
    the first axis in the order of the ranks. All ranks write theirs into one HDF5 dataset at the
    endpoint (parallel HDF5: its Python needs h5py with MPI), and nobody has the whole in memory;
    with ``Executor(result="reference")`` it stays there and can be read in slices.
    """
    if result not in ("root", "all", "array"):
        raise ValueError("result must be 'root', 'all' or 'array', got %r" % (result,))
    if isinstance(function, NativeFunction):
        raise TypeError("%r: a C++ function for ranks is declared with FARCALL_MPI_FUNCTION, and gives the result of rank 0" % (function,))

    def mark(target: Any) -> Any:
        target.__farcall_mpi__ = {"result": result}
        return target

    return mark if function is None else mark(function)


def _name_from(cmd: str) -> str:
    words = re.findall(r"[A-Za-z_][A-Za-z0-9_]*", cmd)
    return words[0] if words else "shell_function"
