"""Files as arguments of tasks, and files that tasks leave."""

import json
import os
import shutil
import stat
import tempfile
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

from ._files import pack_tree
from .errors import InvalidRequest, SerializationError
from .stored import StoredValue

_TRUSTED_S = 1800.0  # the relay keeps what it was sent for an hour


class File:
    """A file or a directory here, as an argument of tasks: the function gets the path of the same
    content in the directory in which it runs, a fresh one for each task. It is read in pieces, and sent to
    an endpoint once however many tasks have it.

    ``name``: what it is called there, default the same; it may have folders. ``copy``: one that the
    task may change; else it is to be read only. Executable ones stay executable. Raises InvalidRequest.
    """

    __slots__ = ("path", "name", "copy")

    def __init__(self, path: Any, name: Optional[str] = None, copy: bool = False):
        self.path = os.path.abspath(os.fspath(path))
        self.name = name or os.path.basename(self.path)
        self.copy = copy
        if any(part in ("", ".", "..") for part in self.name.split("/")):
            raise InvalidRequest("File: the name has to be one within the task's directory, got %r" % (self.name,))
        if not os.path.exists(self.path):
            raise InvalidRequest("File: there is no %s" % self.path)

    def __repr__(self) -> str:
        return "File(%r)" % self.path

    def __reduce__(self) -> Any:
        raise SerializationError("%r has to be an argument of its own, not a part of another one" % (self,))

    def _farcall_what(self) -> Dict[str, Any]:
        """What the worker is told of it."""
        status = os.stat(self.path)
        what: Dict[str, Any] = {"file": self.name, "mode": stat.S_IMODE(status.st_mode)}
        if stat.S_ISDIR(status.st_mode):
            what["tree"] = True
        if self.copy:
            what["copy"] = True
        return what


class FileStore:
    """Brings files to the relay; what has not changed since is not read again. Thread-safe."""

    def __init__(self, native: Any):
        self._native = native
        self._lock = threading.Lock()
        self._sent: Dict[str, Tuple[Any, StoredValue, float]] = {}  # by path

    def store(self, file: File) -> StoredValue:
        """Raises FarcallError, OSError."""
        with self._lock:
            signature = _signature(file.path)
            found = self._sent.get(file.path)
            if found is not None and found[0] == signature and time.monotonic() - found[2] < _TRUSTED_S:
                return found[1]
            stored = self._send(file.path)
            self._sent[file.path] = (signature, stored, time.monotonic())
            return stored

    def _send(self, path: str) -> StoredValue:
        if not os.path.isdir(path):
            return StoredValue(*self._native.store_file(path))
        with tempfile.NamedTemporaryFile(prefix="farcall-", suffix=".tar") as archive:
            pack_tree(path, archive)
            archive.flush()
            return StoredValue(*self._native.store_file(archive.name))


def _signature(path: str) -> Any:
    """Another one when the content is another one."""

    def one(name: str) -> Tuple:
        status = os.lstat(name)
        return name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode

    if not os.path.isdir(path):
        return one(os.path.realpath(path))
    return tuple(sorted(one(os.path.join(folder, name)) for folder, folders, names in os.walk(path) for name in folders + names))


class RemoteFile:
    """A file, or a directory, that a task has left and that is at its endpoint, for as long as large results are.

    ``name``: its path in the task's directory; ``nbytes``; ``task_id``. Given as an argument to a task
    on the same endpoint it is found there as a File would be, and nothing travels.
    """

    def __init__(self, native: Any, task_id: str, blob: Tuple[str, int], what: Dict[str, Any]):
        self._native = native
        self._blob = blob
        self._what = what
        self.task_id = task_id
        self.name: str = what["file"]
        self.nbytes = blob[1]
        self.is_directory = bool(what.get("tree"))

    def __repr__(self) -> str:
        return "<RemoteFile %s of task %s: %d bytes>" % (self.name, self.task_id, self.nbytes)

    def __reduce__(self) -> Any:
        raise SerializationError("%r has to be an argument of its own, not a part of another one" % (self,))

    def save(self, path: Any = None) -> str:
        """Writes it to ``path``, or into that directory; default: its name here. The path. Memory holds
        a part of it only. Raises NotFound (it was released), ResultLost, Unreachable, FarcallError, OSError."""
        target = os.fspath(path) if path is not None else self.name
        if path is not None and os.path.isdir(target):
            target = os.path.join(target, self.name)
        os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
        came = self._native.fetch_blob(self.task_id, *self._blob)
        if self.is_directory:
            shutil.unpack_archive(came, target, "tar")
            return target
        part = "%s.%d.part" % (target, os.getpid())
        try:
            shutil.copyfile(came, part)
            os.chmod(part, self._what.get("mode", 0o644) | 0o200)
            os.replace(part, target)
        finally:
            if os.path.exists(part):
                os.unlink(part)
        return target

    def delete(self) -> None:
        """Removes it at its endpoint."""
        name = {"task": self.task_id, "hash": self._blob[0], "size": self._blob[1]}
        self._native.call("task.drop", json.dumps(name))

    def _farcall_file(self) -> Tuple[List[Any], Dict[str, Any]]:
        return [*self._blob, self.task_id], dict(self._what)


def output_files(native: Any, task_id: str, blobs: List[Tuple[str, int]], places: List[List[Any]]) -> List[RemoteFile]:
    """Those that a result brings along."""
    return [RemoteFile(native, task_id, blobs[number], what[0]) for number, _place, *what in places if what and "file" in what[0]]


def has_files(args: Tuple, kwargs: Dict[str, Any]) -> bool:
    return any(isinstance(value, (File, RemoteFile)) for value in (*args, *kwargs.values()))
