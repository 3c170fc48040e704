"""Results and failures as bytes: docs/payloads.md."""

import importlib
import json
import os
import pickle
import pickletools
import socket
import struct
import sys
import traceback

from farcall_values import dump_value, pickle_in

#: Beyond this one message would keep the connections on its way busy for longer than their silence
#: may last.
RESULT_BYTES_MAX = 32 * 1024 * 1024
_PROTOCOL = min(5, pickle.HIGHEST_PROTOCOL)
_TRACEBACK_CHARACTERS_MAX = 64 * 1024
_MESSAGE_CHARACTERS_MAX = 16 * 1024
_EXCEPTION_BYTES_MAX = 1024 * 1024
_DIRECTORY = os.path.dirname(__file__)  # as it stands in the code objects of the runner


class EnvironmentFailure(Exception):
    """The worker's Python is not one that can run this; no fault of the function."""


class LoadFailure(Exception):
    """A function, an argument set or a result cannot be taken apart or put together."""


class ResultTooLarge(LoadFailure):
    """A result is larger than what the way to the client takes in one piece."""

    limit = "%d bytes" % RESULT_BYTES_MAX


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
    size = sum(map(len, parts))
    if size > RESULT_BYTES_MAX:
        raise ResultTooLarge(
            "the result of %s has %d bytes, at most %d are taken: write it to a file on the endpoint and return its path, "
            "or return it in parts" % (function.name, size, RESULT_BYTES_MAX)
        )
    if foreign and parts[0][:1] != b"J" and carries_code(b"".join(parts)):
        raise LoadFailure(
            "the result of %s carries functions or classes as bytecode of Python %s, and the client has another version: "
            "return plain values" % (function.name, ".".join(map(str, sys.version_info[:2])))
        )
    return parts


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
        if isinstance(error, ResultTooLarge):
            header["limit"] = error.limit
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
