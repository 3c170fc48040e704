"""Results and failures as bytes: docs/payloads.md."""

import fcntl
import importlib
import json
import mmap
import os
import pickle
import pickletools
import socket
import struct
import subprocess
import sys
import traceback

from farcall_files import collect
from farcall_values import dump_value, pickle_in

#: A larger result stays in a file at the endpoint until somebody wants it.
RESULT_INLINE_MAX = 1024 * 1024
_PROTOCOL = min(5, pickle.HIGHEST_PROTOCOL)
_TRACEBACK_CHARACTERS_MAX = 64 * 1024
_MESSAGE_CHARACTERS_MAX = 16 * 1024
_EXCEPTION_BYTES_MAX = 1024 * 1024
_DIRECTORY = os.path.dirname(__file__)  # as it stands in the code objects of the runner
_RESULT_FILE = os.path.join(_DIRECTORY, "farcall-result-file")
_ENVIRONMENT = dict(os.environ)  # of the programs that are started here: tasks change their own
_PIPE_BYTES = 1024 * 1024
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ of fcntl, which names it from Python 3.10 on


class EnvironmentFailure(Exception):
    """The worker's Python is not one that can run this; no fault of the function."""


class LoadFailure(Exception):
    """A function, an argument set or a result cannot be taken apart or put together."""


class ResultNotStored(EnvironmentFailure):
    """There is no room for a large result."""


_results_directory = None
_results_gzip = 0


def keep_large_results_in(directory, gzip=0):
    """Where they are put; None: nowhere, and all travel with their task's outcome. `gzip`: level."""
    global _results_directory, _results_gzip
    _results_directory, _results_gzip = directory, gzip


def open_result(name, size, task):
    """The payload of a result that an earlier task left here. Raises EnvironmentFailure."""
    path = _result_path(name, task)
    if path is None:
        raise EnvironmentFailure(
            "result %s of task %s is not at this endpoint (%s): it was removed, or its task ran on another endpoint; fetch() it and give the value"
            % (name, task, _results_directory or "which has no staging directory")
        )
    payload = mmap.mmap(-1, max(size, 1))
    try:
        reader = subprocess.Popen(
            [_RESULT_FILE, "read", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env=_ENVIRONMENT
        )
        with reader:
            _widen(reader.stdout)
            view = memoryview(payload)[:size]
            while len(view):
                got = reader.stdout.readinto(view)
                if not got:
                    break
                view = view[got:]
            said = reader.stderr.read().decode("utf-8", "replace").strip()
        if len(view):
            raise OSError(said or "it ends %d bytes early" % len(view))
    except OSError as error:
        raise EnvironmentFailure("the result of task %s cannot be read on this node: %s" % (task, error)) from None
    return memoryview(payload)[:size]


def output_file(name, _size, task):
    """Where a file lies that an earlier task left here. Raises EnvironmentFailure."""
    path = _result_path(name, task, ".file")
    if path is None:
        raise EnvironmentFailure(
            "the file %s of task %s is not at this endpoint: it was removed, or its task ran on another endpoint; save() it and give it as a File"
            % (name, task)
        )
    return path


def task_directory():
    """Where the files of the task that runs are."""
    return os.environ.get("FARCALL_SANDBOX") or os.getcwd()


def _keep_outputs(patterns):
    """Files that the task has left: [hash, size, {"file": name, …}]. Raises OutputMissing."""
    directory = task_directory()
    if _results_directory is None:
        raise ResultNotStored("files of a task cannot be kept: the endpoint has no staging directory")
    try:
        return collect(patterns, directory, _results_directory, os.environ.get("FARCALL_TASK_ID") or "task")
    except OSError as error:
        raise ResultNotStored(
            "the files %s of the task in %s cannot be kept in %s: %s; make room there, or set `staging.directory` of the endpoint"
            % (", ".join(patterns), directory, _results_directory, error)
        ) from None


def _result_path(name, task, suffix=".h5"):
    """Where it lies; None: nowhere."""
    if _results_directory is None or len(name) != 64 or not name.isalnum() or not task.replace("-", "").isalnum():
        return None
    path = os.path.join(_results_directory, "%s.%s%s" % (task, name, suffix))
    return path if os.path.exists(path) else None


def _widen(pipe):
    """Fewer changes between the two processes."""
    try:
        fcntl.fcntl(pipe.fileno(), _SET_PIPE_SIZE, _PIPE_BYTES)
    except OSError:  # beyond what a user may have
        pass


def carries_code(data):
    """True when a pickle brings bytecode along, which only the Python that made it can run."""
    try:
        for _opcode, argument, _position in pickletools.genops(pickle_in(data)):
            if argument in ("CodeType", "_create_code"):  # cloudpickle's and dill's
                return True
    except Exception:  # pylint: disable=broad-except
        pass  # no pickle: loading it will say so
    return False


def dump_result(value, arguments_kind, function, wanted=(), foreign=False, outputs=()):
    """The data of a result as a list of buffers. `wanted`: ways to send it, the first that works is
    used; none: chosen here. `foreign`: the client has another Python. `outputs`: patterns of files
    that go along. Raises LoadFailure when the value cannot be sent, OutputMissing."""
    parts = _dump_wanted(value, function, wanted) if wanted else _dump_chosen(value, arguments_kind, function)
    if foreign and parts[0][:1] != b"J" and carries_code(b"".join(parts)):
        raise LoadFailure(
            "the result of %s carries functions or classes as bytecode of Python %s, and the client has another version: "
            "return plain values" % (function.name, ".".join(map(str, sys.version_info[:2])))
        )
    return keep_or_send(parts, function, outputs, value)


def keep_or_send(parts, function, outputs=(), value=None):
    """The data of a result whose payload these are: a large one is put into a file, and named.
    `value`: what it was, if it was an object of Python."""
    size = sum(map(len, parts))
    if size <= RESULT_INLINE_MAX or _results_directory is None:
        return with_outputs(parts, outputs)
    blobs, places = stored_array(_stored(parts, size, function), size, _array_in(value, parts, size))
    return with_outputs([], outputs, blobs, places)


def with_outputs(parts, outputs, blobs=(), places=()):
    """The data of a result with the files round it that match `outputs`. Raises OutputMissing."""
    blobs, places = list(blobs), list(places)
    for name, length, what in _keep_outputs(outputs) if outputs else ():
        places.append([len(blobs), what["file"], what])
        blobs.append((name, length))
    return [pack_blobs(blobs, places, b"".join(parts))] if blobs else parts


def _stored(parts, size, function):
    """Has a payload written to an HDF5 file at the endpoint; its hash. The file is whole and on disk
    then."""
    name = _result_file(["write", _results_directory, _task(), str(size), str(_results_gzip)], parts, size, function.name)
    if len(name) != 64:
        raise _not_stored(function.name, size, "%s gave no hash" % _RESULT_FILE)
    return name


def results_are_kept():
    """Whether there is a place for large results."""
    return _results_directory is not None


def begin_stored_array(head, size, name):
    """Has the file made for an array whose parts others write: its name. Raises ResultNotStored."""
    return _result_file(["begin", _results_directory, _task(), str(size), str(_results_gzip)], [head], size, name)


def seal_stored_array(file, size, name):
    """When it is written: its hash. Raises ResultNotStored."""
    return _result_file(["seal", file, _task()], [], size, name)


def stored_array(hash_name, size, array):
    """Blobs and places of a result in a file, for with_outputs(); `array`: where it lies in
    the payload, if that is one."""
    return [(hash_name, size)], [[0, None, array] if array else [0, None]]


def _task():
    return os.environ.get("FARCALL_TASK_ID") or "task"


def _not_stored(name, size, why):
    return ResultNotStored(
        "the result of %s, %d bytes, cannot be kept in %s: %s; make room there, or set `staging.directory` of the endpoint"
        % (name, size, _results_directory, why)
    )


def _result_file(words, parts, size, name):
    """What the program says that has to do with HDF5 here: that is nothing that a worker has, and what
    it does when there is no room stays outside."""
    said, answer = b"", ""
    try:
        writer = subprocess.Popen(
            [_RESULT_FILE, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env=_ENVIRONMENT,
        )  # fmt: skip
        with writer:
            _widen(writer.stdin)
            try:
                for part in parts:
                    view = memoryview(part)
                    while len(view):
                        view = view[writer.stdin.write(view) :]
                writer.stdin.close()
            except BrokenPipeError:  # it says why
                pass
            answer = writer.stdout.read().decode("utf-8", "surrogateescape")
            said = writer.stderr.read().decode("utf-8", "replace").strip()
        if writer.returncode != 0 or not answer:
            raise OSError(said or "%s ended with %s" % (_RESULT_FILE, writer.returncode))
    except OSError as error:
        raise _not_stored(name, size, error) from None
    return answer


def _array_in(value, parts, size):
    """Where the array lies in the payload of one, so that parts of it can be read; None: it is no array."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or parts[0][:1] != b"N" or len(parts[-1]) != value.nbytes:
        return None
    if value.dtype.kind not in "biufcSUMm":  # a pickle happens to have its size
        return None
    return array_place(value.dtype.str, value.shape, size - value.nbytes)


def array_place(dtype, shape, offset):
    """Where the array lies in its payload."""
    return {"dtype": dtype, "shape": list(shape), "offset": offset}


def pack_blobs(blobs, places, rest=b""):
    """Form B of docs/payloads.md; `blobs`: (hash, size)."""
    text = json.dumps(places, separators=(",", ":")).encode("ascii")
    entries = [struct.pack("<64sQ", name.encode("ascii"), size) for name, size in blobs]
    return b"".join([struct.pack("<c3xI", b"B", len(blobs)), *entries, struct.pack("<I", len(text)), text, rest])


def _dump_wanted(value, function, wanted):
    problems = []
    for word in wanted:
        try:
            if word == "json":
                return [b"J", json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode("utf-8")]
            module = importlib.import_module(word)
            return [b"D", module.dumps(value, _PROTOCOL)] if word == "dill" else dump_value(value, module.dumps)
        except BaseException as error:  # pylint: disable=broad-except
            problems.append("%s: %s: %s" % (word, type(error).__name__, _text(error)))
    raise LoadFailure("the result of %s can be sent in none of the ways that were asked for: %s" % (function.name, "; ".join(problems)))


def _dump_chosen(value, arguments_kind, function):
    if arguments_kind == b"J":
        text = _exact_json(value)
        if text is not None:
            return [b"J", text]
    try:
        if function.meta.get("serializer") == "dill":
            import dill

            return [b"D", dill.dumps(value)]
        return dump_value(value, dumps_pickle)
    except BaseException as error:  # pylint: disable=broad-except
        what = type(value).__name__
        raise LoadFailure(
            "the result of %s is %s %s, which cannot be pickled: %s: %s"
            % (function.name, "an" if what[:1] in "aeiouAEIOU" else "a", what, type(error).__name__, _text(error))
        ) from (error if isinstance(error, Exception) else None)


def dumps_pickle(value, protocol=_PROTOCOL, buffer_callback=None):
    """pickle, and what only cloudpickle can do (classes of the client's script) if it is loaded."""
    found = []
    options = {} if buffer_callback is None else {"buffer_callback": found.append}
    try:
        data = pickle.dumps(value, protocol, **options)
    except Exception:
        cloudpickle = sys.modules.get("cloudpickle")
        if cloudpickle is None:
            raise
        del found[:]
        data = cloudpickle.dumps(value, protocol, **options)
    for buffer in found:
        buffer_callback(buffer)
    return data


def _exact_json(value):
    """JSON of a value that would come back equal, else None."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        same = json.loads(text) == value
        return text.encode("utf-8") if same is True else None
    except Exception:  # pylint: disable=broad-except
        return None


def failure(error, failure_class, attempt, foreign=False):
    """The data of a failure: header and, if it can be had, the pickled exception."""
    own = isinstance(error, (EnvironmentFailure, LoadFailure))
    shown = error.__cause__ if own and error.__cause__ is not None else error
    header = {
        "type": type(error).__qualname__,
        "module": type(error).__module__,
        "message": _cut(_text(error), _MESSAGE_CHARACTERS_MAX),
        "traceback": _cut(_format(shown), _TRACEBACK_CHARACTERS_MAX),
        "class": failure_class,
        "host": socket.gethostname(),
        "attempt": attempt,
    }
    pickled = b""
    if own:
        header["module"] = "farcall"
    else:
        pickled = _pickled(error, foreign)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    return b"".join((b"E", struct.pack("<I", len(text)), text, pickled))


def _pickled(error, foreign):
    try:
        data = dumps_pickle(error)
        if foreign and carries_code(b"P" + data):
            return b""
        return data if len(data) <= _EXCEPTION_BYTES_MAX else b""
    except BaseException:  # pylint: disable=broad-except
        return b""


def _format(error):
    """The traceback from the user's first frame on."""
    try:
        tb = error.__traceback__
        while tb is not None and _is_runner(tb.tb_frame.f_code.co_filename):
            tb = tb.tb_next
        return "".join(traceback.format_exception(type(error), error, tb))
    except BaseException as problem:  # pylint: disable=broad-except
        return "%s: %s\n(the traceback cannot be shown: %s)\n" % (type(error).__name__, _text(error), type(problem).__name__)


def _is_runner(file):
    return os.path.dirname(file) == _DIRECTORY


def _text(error):
    try:
        return str(error)
    except BaseException:  # pylint: disable=broad-except
        return "<the exception's __str__ raises>"


def _cut(text, limit):
    text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates are no JSON to others
    if len(text) <= limit:
        return text
    half = limit // 2
    return "%s\n… %d characters left out …\n%s" % (text[:half], len(text) - 2 * half, text[-half:])
