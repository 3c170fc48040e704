"""Results and failures as bytes: docs/payloads.md."""

import json
import os
import pickle
import socket
import struct
import sys
import traceback

from farcall_values import dump_value

_PROTOCOL = min(5, pickle.HIGHEST_PROTOCOL)
_TRACEBACK_CHARACTERS_MAX = 64 * 1024
_MESSAGE_CHARACTERS_MAX = 16 * 1024
_EXCEPTION_BYTES_MAX = 1024 * 1024
_DIRECTORY = os.path.dirname(__file__)  # as it stands in the code objects of the runner


class EnvironmentFailure(Exception):
    """The worker's Python is not one that can run this; no fault of the function."""


class LoadFailure(Exception):
    """A function, an argument set or a result cannot be taken apart or put together."""


def dump_result(value, arguments_kind, function):
    """The data of a result as a list of buffers. Raises LoadFailure when it cannot be pickled."""
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


def failure(error, failure_class, attempt):
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
        pickled = _pickled(error)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    return b"".join((b"E", struct.pack("<I", len(text)), text, pickled))


def _pickled(error):
    try:
        data = dumps_pickle(error)
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
