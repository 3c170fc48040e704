"""Files that a task is given and files that it leaves: docs/data.md.

Also a program, round the command of a task that is no Python:

    farcall_files.py run REPORT COMMAND…

REPORT is JSON: {"directory", "files": [[path, {"file": name, …}], …], "outputs": patterns, "results",
"task"}. Afterwards "said" is in it: {"outputs": [[hash, size, {"file": name, …}], …]}, or {"error",
"user": whether the task is to blame}. It ends as the command does.
"""

import glob
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile

_PIECE_BYTES = 1024 * 1024


class OutputMissing(Exception):
    """The task did not leave what it was asked for."""


def place(path, what, directory):
    """Puts a file, which lies at ``path``, into a task's directory under the name that the user gave
    it; where it is then. ``what``: {"file": name, "mode", "tree", "copy"}. Raises OSError, ValueError.

    A link, so that tasks of a node read it once, unless it is to be executed or changed."""
    target = path_in(directory, what["file"])
    os.makedirs(os.path.dirname(target), exist_ok=True)
    mode = what.get("mode", 0o644)
    if what.get("tree"):
        _unpack(path, target)
    elif what.get("copy") or mode & 0o111:
        shutil.copyfile(path, target)
        os.chmod(target, mode | 0o600)
    elif not (os.path.islink(target) and os.readlink(target) == path):  # given twice
        os.symlink(path, target)
    return target


def path_in(directory, name):
    """Where the file of that name is. Raises ValueError."""
    return os.path.join(directory, *_parts(name))


def _parts(name):
    parts = name.split("/")
    if not name or any(part in ("", ".", "..") for part in parts):
        raise ValueError("a file of a task cannot be called %r: it lies in the task's directory" % name)
    return parts


def _unpack(path, target):
    os.makedirs(target, exist_ok=True)
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            if member.name != ".":
                _parts(member.name[2:] if member.name.startswith("./") else member.name)
            archive.extract(member, target, set_attrs=not member.issym())


def collect(patterns, directory, results, task):
    """Keeps the files of a task's directory that match, and whole directories, in the endpoint's
    directory of results: [[hash, size, {"file": name, "mode", "tree"}], …]. Links do not count: what
    the task was given is one. Raises OutputMissing for a name without wildcards that is not there,
    OSError when there is no room."""
    found = {}
    for pattern in patterns:
        _parts(pattern)
        paths = glob.glob(os.path.join(glob.escape(directory), pattern), recursive=True)
        names = [os.path.relpath(path, directory) for path in paths if not os.path.islink(path.rstrip("/"))]
        if not names and not glob.has_magic(pattern):
            raise OutputMissing("the task left no file %r in its directory %s" % (pattern, directory))
        found.update(dict.fromkeys(names))
    return [_keep(name, os.path.join(directory, name), results, task) for name in sorted(found)]


def _keep(name, path, results, task):
    status = os.stat(path)
    what = {"file": name, "mode": stat.S_IMODE(status.st_mode)}
    part = os.path.join(results, ".%s.%s.%d.part" % (task, socket.gethostname(), os.getpid()))
    writer = _HashedFile(part)
    try:
        with writer:
            if stat.S_ISDIR(status.st_mode):
                what["tree"] = True
                pack_tree(path, writer)
            else:
                with open(path, "rb", buffering=0) as source:
                    shutil.copyfileobj(source, writer, _PIECE_BYTES)
            os.fsync(writer.file.fileno())
        name = writer.hasher.hexdigest()
        os.rename(part, os.path.join(results, "%s.%s.file" % (task, name)))
        folder = os.open(results, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise
    return [name, writer.size, what]


class _HashedFile:
    """Written from front to back."""

    def __init__(self, path):
        self.file = open(path, "wb", buffering=0)
        self.hasher = hashlib.blake2b(digest_size=32)
        self.size = 0

    def __enter__(self):
        return self

    def __exit__(self, *_details):
        self.file.close()

    def write(self, data):
        self.hasher.update(data)
        view = memoryview(data)
        self.size += len(view)
        while len(view):
            view = view[self.file.write(view) :]
        return len(data)


def pack_tree(path, into):
    """A directory as a tar archive that is the same for the same content, wherever it lies."""

    def plain(member):
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = int(member.mtime)
        return member

    def walk(folder, name):
        for entry in sorted(os.listdir(folder)):
            inner, inner_name = os.path.join(folder, entry), name + "/" + entry
            archive.add(inner, inner_name, recursive=False, filter=plain)
            if os.path.isdir(inner) and not os.path.islink(inner):
                walk(inner, inner_name)

    with tarfile.open(fileobj=into, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        walk(path, ".")


def run(report, command):
    """The exit status, negative for a signal."""
    with open(report) as file:
        told = json.load(file)
    said = {}
    status = 0
    try:
        for path, what in told["files"]:
            place(path, what, told["directory"])
        status = _execute(command)
        said["outputs"] = collect(told["outputs"], told["directory"], told["results"], told["task"])
    except OutputMissing as error:
        said.update(error=str(error), user=status == 0)
        if status:  # it has failed, and says itself why
            said = {"outputs": []}
    except (OSError, ValueError, tarfile.TarError) as error:
        said["error"] = "the files of the task cannot be put into its directory, or kept in %s: %s" % (told["results"], error)
    told["said"] = said
    with open(report, "w") as file:
        json.dump(told, file)
    return status


def _execute(command):
    try:
        return subprocess.call(command)
    except FileNotFoundError:
        print("command %r was not found" % command[0], file=sys.stderr)
        return 127
    except OSError as error:
        print("command %r cannot be executed: %s" % (command[0], error.strerror), file=sys.stderr)
        return 126


def main(words):
    if len(words) < 3 or words[0] != "run":
        raise SystemExit(__doc__)
    status = run(words[1], words[2:])
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
