"""Results and failures as bytes: docs/payloads.md."""

import hashlib
import importlib
import json
import os
import pickle
import pickletools
import socket
import struct
import sys
import tempfile
import traceback

from farcall_values import dump_value, pickle_in

#: A larger result stays in a file at the endpoint until somebody wants it.
RESULT_INLINE_MAX = 1024 * 1024
_PROTOCOL = min(5, pickle.HIGHEST_PROTOCOL)
_TRACEBACK_CHARACTERS_MAX = 64 * 1024
_MESSAGE_CHARACTERS_MAX = 16 * 1024
_EXCEPTION_BYTES_MAX = 1024 * 1024
_DIRECTORY = os.path.dirname(__file__)  # as it stands in the code objects of the runner


class EnvironmentFailure(Exception):
    """The worker's Python is not one that can run this; no fault of the function."""


class LoadFailure(Exception):
    """A function, an argument set or a result cannot be taken apart or put together."""


class ResultNotStored(EnvironmentFailure):
    """There is no room for a large result."""


_results_directory = None


def keep_large_results_in(directory):
    """Where they are put; None: nowhere, and all travel with their task's outcome."""
    global _results_directory
    _results_directory = directory


def result_file(name):
    """Where a result of this hash lies; None: there is no such place."""
    if _results_directory is None or len(name) != 64 or not name.isalnum():
        return None
    return os.path.join(_results_directory, name)


def carries_code(data):
    """True when a pickle brings bytecode along, which only the Python that made it can run."""
    try:
        for _opcode, argument, _position in pickletools.genops(pickle_in(data)):
            if argument in ("CodeType", "_create_code"):  # cloudpickle's and dill's
                return True
    except Exception:  # pylint: disable=broad-except
        pass  # no pickle: loading it will say so
    return False


def dump_result(value, arguments_kind, function, wanted=(), foreign=False):
    """The data of a result as a list of buffers. `wanted`: ways to send it, the first that works is
    used; none: chosen here. `foreign`: the client has another Python. Raises LoadFailure when the
    value cannot be sent."""
    parts = _dump_wanted(value, function, wanted) if wanted else _dump_chosen(value, arguments_kind, function)
    if foreign and parts[0][:1] != b"J" and carries_code(b"".join(parts)):
        raise LoadFailure(
            "the result of %s carries functions or classes as bytecode of Python %s, and the client has another version: "
            "return plain values" % (function.name, ".".join(map(str, sys.version_info[:2])))
        )
    size = sum(map(len, parts))
    return parts if size <= RESULT_INLINE_MAX or _results_directory is None else _stored(value, parts, size, function)


def _stored(value, parts, size, function):
    """Writes a payload to a file that is named by its hash; the payload that refers to it. The file
    is whole and on disk when it has its name."""
    hasher = hashlib.blake2b(digest_size=32)
    path = None
    try:
        fd, path = tempfile.mkstemp(prefix=".", suffix=".part", dir=_results_directory)
        with os.fdopen(fd, "wb", buffering=0) as file:
            for part in parts:
                hasher.update(part)
                view = memoryview(part)
                while len(view):
                    view = view[file.write(view) :]
            os.fsync(fd)
        os.rename(path, os.path.join(_results_directory, hasher.hexdigest()))
    except OSError as error:
        if path is not None:
            try:
                os.unlink(path)
            except OSError:
                pass
        raise ResultNotStored(
            "the result of %s, %d bytes, cannot be written to %s: %s; make room there, or set `staging.directory` of the endpoint"
            % (function.name, size, _results_directory, error.strerror or error)
        ) from None
    array = _array_in(value, parts, size)
    return [pack_blobs([(hasher.hexdigest(), size)], [[0, None, array] if array else [0, None]])]


def _array_in(value, parts, size):
    """Where the array lies in the payload of one, so that parts of it can be read; None: it is no array."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or parts[0][:1] != b"N" or len(parts[-1]) != value.nbytes:
        return None
    if value.dtype.kind not in "biufcSUMm":  # a pickle happens to have its size
        return None
    return {"dtype": value.dtype.str, "shape": list(value.shape), "offset": size - value.nbytes}


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
