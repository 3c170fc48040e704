"""Functions and values as bytes: docs/payloads.md. No connection, no state."""

import contextlib
import importlib
import importlib.util
import inspect
import json
import os
import pickle
import platform
import struct
import sys
import sysconfig
import textwrap
import types
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from ._values import dump_value, load_value
from .errors import (
    FAILURES,
    DeserializationError,
    RemoteTraceback,
    ResultTooLarge,
    SerializationError,
    TaskExecutionFailed,
)
from .functions import MPIFunction, NativeFunction, Raw, ShellFunction, ShellResult

PROTOCOL = 5
_SOURCE_CHARACTERS_MAX = 64 * 1024

#: How a function may be sent.
CODE_STRATEGIES = ("cloudpickle", "dill", "source", "module", "source-or-dill")
#: How values may be sent.
VALUE_STRATEGIES = ("pickle", "cloudpickle", "dill", "json", "json-or-dill")

#: The worker is told by environment variables of the task which Python sent it and how its result
#: is to travel: docs/payloads.md.
CLIENT_PYTHON = "FARCALL_CLIENT_PYTHON"
RESULT_SERIALIZERS = "FARCALL_RESULT_SERIALIZERS"


class Code(NamedTuple):
    """A function, ready to be registered."""

    kind: str
    name: str
    meta: Dict[str, Any]
    body: bytes


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def serialize_function(function: Callable, strategy: Optional[str] = None, description: Optional[str] = None) -> Code:
    """Turns a callable into code.

    ``strategy``: ``cloudpickle`` (default where it is installed; functions of the running script
    and of modules that are not installed go with all they use), ``dill``, ``source`` (the text of
    the function alone, so imports belong inside it; needs nothing but Python on the worker and
    works across Python versions), ``module`` (the text of the whole file it is defined in),
    ``source-or-dill`` (the text where it can be had). Raises SerializationError.
    """
    if isinstance(function, MPIFunction):
        return Code("mpi-program", function.name, _meta("shell", function, description), function.body())
    if isinstance(function, ShellFunction):
        return Code("shell", function.name, _meta("shell", function, description), function.body())
    if isinstance(function, NativeFunction):
        meta = dict(function.meta, **({"description": description} if description else {}))
        kind = "mpi-function" if meta.get("code") == "native" else "native"
        return Code(kind, function.name, meta, function.body())
    if not callable(function):
        raise SerializationError("%r is not callable" % (function,))
    options = getattr(function, "__farcall_mpi__", None)
    code = _serialize_python(function, strategy, description)
    return code if options is None else _mpi_code(code, options)


def _mpi_code(code: Code, options: Mapping[str, Any]) -> Code:
    """The same code as an MPI function. What it returns is part of what it is, so of its name."""
    # The same source with another result is another function.
    name = code.name + {"root": "", "all": " (of all ranks)", "array": " (in parts)"}[options["result"]]
    return Code("mpi-function", name, {**code.meta, "code": code.kind, **options}, code.body)


def _serialize_python(function: Callable, strategy: Optional[str], description: Optional[str]) -> Code:
    if strategy is None:
        strategy = "cloudpickle" if _has("cloudpickle") else "source"
    if strategy not in CODE_STRATEGIES:
        raise SerializationError("'%s' is no way to send a function; there are: %s" % (strategy, ", ".join(CODE_STRATEGIES)))
    if strategy == "source-or-dill":
        try:
            return _serialize_python(function, "source", description)
        except SerializationError:
            strategy = "dill"
    name = getattr(function, "__name__", None) or type(function).__name__
    if strategy in ("source", "module"):
        source = _source_of(function, whole_module=strategy == "module")
        return source_code(source, name, description or inspect.getdoc(function), _module_of(function, strategy))
    pickler = _pickler(strategy)
    try:
        with _by_value(function, strategy):
            body = pickler.dumps(function, protocol=PROTOCOL)
    except Exception as error:
        raise SerializationError(
            "%s cannot be sent with %s: %s: %s" % (name, strategy, type(error).__name__, error)
        ) from error
    return Code("python-pickle", name, _meta(strategy, function, description), body)


def source_code(source: str, entry: str, description: Optional[str] = None, more: Optional[Dict[str, Any]] = None) -> Code:
    """Code from the text of a whole module and the name of the function in it.
    Raises SerializationError when the text is no Python (of this version)."""
    try:
        compile(source, "<source of %s>" % entry, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise SerializationError("the source of %s is no Python: %s" % (entry, error)) from error
    meta = {"python_version": platform.python_version(), "serializer": "source", **(more or {})}
    if description:
        meta["description"] = description
    body = json.dumps({"entry": entry, "source": source}, separators=(",", ":"), sort_keys=True)
    return Code("python", entry, meta, body.encode("utf-8"))


def _meta(serializer: str, function: Any, description: Optional[str]) -> Dict[str, Any]:
    meta = {"python_version": platform.python_version(), "serializer": serializer}
    text = description or (inspect.getdoc(function) if isinstance(function, types.FunctionType) else None)
    if text:
        meta["description"] = text
    if isinstance(function, types.FunctionType):
        try:  # for people: what was run can be read in a campaign file
            source = textwrap.dedent(inspect.getsource(function))
            if len(source) <= _SOURCE_CHARACTERS_MAX:
                meta["source"] = source
        except (OSError, TypeError, IndentationError, SyntaxError):
            pass
    return meta


def _module_of(function: Callable, strategy: str) -> Dict[str, Any]:
    more = {"file": os.path.basename(getattr(getattr(function, "__code__", None), "co_filename", "") or "source")}
    module = getattr(function, "__module__", "") or ""
    if strategy == "module" and module != "__main__":
        more["module"] = module
    return more


def _source_of(function: Callable, whole_module: bool) -> str:
    name = getattr(function, "__qualname__", "")
    if not isinstance(function, types.FunctionType):
        raise SerializationError("only plain functions can be sent by source, not a %s" % type(function).__name__)
    if function.__closure__ or "<" in name or "." in name:
        raise SerializationError(
            "%s cannot be sent by source: it is a lambda, a method or a function within another; "
            "move it to the top of its module, or install cloudpickle here and on the workers" % name
        )
    try:
        if whole_module:
            return inspect.getsource(sys.modules[function.__module__])
        return textwrap.dedent(_text_of(function))
    except (OSError, TypeError, KeyError) as error:
        raise SerializationError(
            "the source of %s is not to be had (%s): install cloudpickle, or give the text to register_source_code()" % (name, error)
        ) from error


def _text_of(function: Callable) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        if not _has("dill"):
            raise
        # dill also knows what was typed at the prompt.
        return importlib.import_module("dill.source").getsource(function)


def load_function(kind: str, serializer: str, name: str, body: bytes) -> Callable:
    """A function from its code, as a worker makes it. Raises whatever its loading raises."""
    if kind == "shell":
        return shell_function(name, body)
    if kind == "python-pickle":
        return importlib.import_module(serializer or "cloudpickle").loads(body)
    content = json.loads(body.decode("utf-8"))
    scope: Dict[str, Any] = {"__name__": "farcall_function"}
    exec(compile(content["source"], "<source of %s>" % name, "exec", dont_inherit=True), scope)
    return scope[content["entry"]]


def shell_function(name: str, body: bytes) -> ShellFunction:
    """The ShellFunction that a body was made from."""
    content = json.loads(body.decode("utf-8"))
    return ShellFunction(
        content.get("cmd") or "true",
        content.get("stdout"),
        content.get("stderr"),
        content.get("walltime_s"),
        content.get("snippet_lines", 1000),
        name if name.isidentifier() else None,
        content.get("return_dict", False),
    )


def _pickler(strategy: str):
    try:
        return importlib.import_module(strategy)
    except ImportError as error:
        raise SerializationError("this Python has no module %s: pip install %s" % (strategy, strategy)) from error


#: Names of modules whose functions were sent by value: their classes do not exist on a worker.
_sent_by_value = set()


@contextlib.contextmanager
def _by_value(function: Callable, strategy: str) -> Iterator[None]:
    """The user's own modules are not installed on the workers: cloudpickle is to take them along."""
    module = sys.modules.get(getattr(function, "__module__", "") or "")
    cloudpickle = sys.modules.get("cloudpickle")
    if strategy != "cloudpickle" or module is None or not _is_users(module) or not hasattr(cloudpickle, "register_pickle_by_value"):
        yield
        return
    _sent_by_value.add(module.__name__.encode("utf-8"))
    known = module.__name__ in cloudpickle.list_registry_pickle_by_value()
    if not known:
        # Stays registered: values of its classes are sent later.
        cloudpickle.register_pickle_by_value(module)
    yield


def _is_users(module: types.ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if module.__name__ == "__main__" or not file:
        return False
    paths = sysconfig.get_paths()
    installed = {paths.get(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    file = os.path.realpath(file)
    if "site-packages" in file.split(os.sep) or "dist-packages" in file.split(os.sep):
        return False
    return not any(file.startswith(os.path.realpath(path) + os.sep) for path in installed if path)


def serialize_arguments(args: Tuple, kwargs: Dict[str, Any], strategy: Optional[str] = None) -> bytes:
    """The bytes of one argument set. ``strategy`` None: pickle, and cloudpickle for what pickle
    cannot do and for objects of classes that the worker does not have. Raises SerializationError."""
    try:
        if strategy == "json":
            return b"J" + _json_arguments(args, kwargs)
        if strategy == "json-or-dill":
            text = _exact_json_arguments(args, kwargs)
            if text is not None:
                return b"J" + text
            strategy = "dill"
        if strategy == "dill":
            return b"D" + _pickler("dill").dumps((args, kwargs), protocol=PROTOCOL)
        if strategy == "cloudpickle":
            return b"".join(dump_value((args, kwargs), _pickler("cloudpickle").dumps))
        if strategy not in (None, "pickle"):
            raise SerializationError("'%s' is no way to send values; there are: %s" % (strategy, ", ".join(VALUE_STRATEGIES)))
        return _pickled((args, kwargs), strict=strategy == "pickle")
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError("the arguments cannot be sent: %s: %s" % (type(error).__name__, error)) from error


def _json_arguments(args: Tuple, kwargs: Dict[str, Any]) -> bytes:
    content: Dict[str, Any] = {}
    if args:
        content["args"] = list(args)
    if kwargs:
        content["kwargs"] = kwargs
    return json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _exact_json_arguments(args: Tuple, kwargs: Dict[str, Any]) -> Optional[bytes]:
    try:
        text = _json_arguments(args, kwargs)
        back = json.loads(text)
        same = back.get("args", []) == list(args) and back.get("kwargs", {}) == kwargs
        return text if same is True else None
    except Exception:
        return None


def value_parts(value: Any, strategy: Optional[str] = None) -> List[Any]:
    """As serialize_value(), in buffers to be read one after the other: arrays are not copied."""
    if strategy in (None, "pickle", "cloudpickle"):
        dumps = _pickler("cloudpickle").dumps if strategy == "cloudpickle" else pickle.dumps if strategy else _dumps_for_worker
        try:
            return dump_value(value, dumps)
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError("the value cannot be sent: %s: %s" % (type(error).__name__, error)) from error
    return [serialize_value(value, strategy)]


def serialize_value(value: Any, strategy: Optional[str] = None) -> bytes:
    """The bytes of one value, as a result has them. Raises SerializationError."""
    try:
        if strategy in ("json", "json-or-dill"):
            text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
            if strategy == "json" or json.loads(text) == value:
                return b"J" + text
    except Exception as error:
        if strategy == "json":
            raise SerializationError("the value cannot be sent as JSON: %s: %s" % (type(error).__name__, error)) from error
    try:
        if strategy in ("dill", "json-or-dill"):
            return b"D" + _pickler("dill").dumps(value, protocol=PROTOCOL)
        if strategy == "cloudpickle":
            return b"".join(dump_value(value, _pickler("cloudpickle").dumps))
        return _pickled(value, strict=strategy == "pickle")
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError("the value cannot be sent: %s: %s" % (type(error).__name__, error)) from error


def _pickled(value: Any, strict: bool) -> bytes:
    """Form P, or N when there are arrays in the value."""
    return b"".join(dump_value(value, pickle.dumps if strict else _dumps_for_worker))


def _dumps_for_worker(value: Any, protocol: int, buffer_callback: Optional[Callable] = None) -> bytes:
    """As pickle.dumps; with cloudpickle what only that can do, or what the worker lacks."""
    found: List[Any] = []
    options = {} if buffer_callback is None else {"buffer_callback": found.append}
    try:
        data = pickle.dumps(value, protocol, **options)
        again = _refers_to_client(data) and _has("cloudpickle")
    except Exception:
        if not _has("cloudpickle"):
            raise
        again = True
    if again:
        found.clear()
        data = _pickler("cloudpickle").dumps(value, protocol=protocol, **options)
    for buffer in found:
        buffer_callback(buffer)  # type: ignore[misc]
    return data


def _refers_to_client(data: bytes) -> bool:
    """True when the pickle may name a module that only this process has. A text argument that
    says so too costs a second pickling and nothing else."""
    return b"__main__" in data or any(name in data for name in _sent_by_value)


def native_arguments(name: str, args: Tuple, kwargs: Dict[str, Any]) -> bytes:
    """The argument set of a native function. Raises SerializationError."""
    from ._farcall import pack_value

    try:
        return pack_value({"args": list(args), "kwargs": kwargs} if kwargs else {"args": list(args)})
    except (TypeError, ValueError) as error:
        raise SerializationError("the arguments of %s cannot be sent: %s" % (name, error)) from error


def shell_arguments(function: ShellFunction, args: Tuple, kwargs: Dict[str, Any]) -> bytes:
    """The argument set of a shell task."""
    if args:
        raise SerializationError("%s takes keyword arguments only, which fill its template; got %r" % (function.name, args))
    content: Dict[str, Any] = {"kwargs": {key: _shell_value(key, value) for key, value in kwargs.items()}}
    raw = [key for key, value in kwargs.items() if isinstance(value, Raw)]
    if raw:
        content["raw"] = raw
    if function.walltime is not None:
        content["walltime_s"] = function.walltime
    return b"J" + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _shell_value(key: str, value: Any) -> Any:
    if isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise SerializationError("argument %s of a shell command must be text or a number, not a %s" % (key, type(value).__name__))


def deserialize_result(
    data: bytes, task_id: str = "", return_dict: bool = False, allowed: Optional[FrozenSet[bytes]] = None
) -> Any:
    """The value of a task that succeeded. ``allowed``: the first bytes of docs/payloads.md that may
    be read. Raises DeserializationError."""
    kind = bytes(data[:1])
    if allowed is not None and kind not in allowed and kind not in (b"S", b"M"):
        raise DeserializationError(
            "the result of task %s came as %s, which allowed_deserializer_types does not allow; it was not read: "
            "give the tasks result_serializers that are allowed" % (task_id, _KIND_NAMES.get(kind, repr(kind)))
        )
    try:
        if kind == b"J":
            return json.loads(bytes(data[1:]).decode("utf-8"))
        if kind == b"P":
            return pickle.loads(memoryview(data)[1:])
        if kind == b"N":
            return load_value(data)
        if kind == b"M":
            from ._farcall import unpack_value

            return unpack_value(bytes(data))
        if kind == b"D":
            return importlib.import_module("dill").loads(data[1:])
        if kind == b"S":
            return ShellResult.from_bytes(data, return_dict)
    except BaseException as error:  # what a pickle runs may raise anything, SystemExit too
        raise DeserializationError(
            "the result of task %s cannot be read by this Python (%s): %s: %s"
            % (task_id, platform.python_version(), type(error).__name__, error)
        ) from error
    raise DeserializationError("the result of task %s begins with %r, expected J, M, N, P, D or S" % (task_id, kind))


_KIND_NAMES = {b"J": "JSON", b"N": "pickle", b"P": "pickle", b"D": "dill"}


def deserialize_failure(data: bytes, allowed: Optional[FrozenSet[bytes]] = None, **facts: Any) -> BaseException:
    """The exception for a task that did not succeed: the user's own where it can be rebuilt, with
    a RemoteTraceback as its cause, else a TaskExecutionFailed. ``facts``: as that takes them."""
    header, pickled = _split_failure(data)
    failure_class = facts.setdefault("failure_class", header.get("class", "user_error"))
    kind = FAILURES.get(failure_class, TaskExecutionFailed)
    if header.get("module") == "farcall" and header.get("type") == "ResultTooLarge":
        kind = ResultTooLarge
    if failure_class == "user_error" and pickled and (allowed is None or b"P" in allowed):
        error = _rebuild(pickled)
        if error is not None:
            _attach(error, header, facts)
            return error
    message = header.get("message") or "the task failed and left no text"
    if failure_class == "user_error" and header.get("module") != "farcall" and header.get("type"):
        message = "%s: %s" % (header["type"], message)
    return kind(message, details=header, **facts)


def _attach(error: BaseException, header: Dict[str, Any], facts: Dict[str, Any]) -> None:
    where = "task %s on %s" % (facts.get("task_id", ""), header.get("host", "a worker"))
    error.__cause__ = RemoteTraceback('\n"""\n%s"""\n(%s)' % (header.get("traceback", ""), where))
    try:
        error.task_id = facts.get("task_id", "")  # type: ignore[attr-defined]
    except Exception:  # __slots__: then without
        pass


def _rebuild(pickled: bytes) -> Optional[BaseException]:
    try:
        error = pickle.loads(pickled)
    except BaseException:  # its class is not importable here, or its __init__ is odd
        return None
    return error if isinstance(error, BaseException) else None


def _split_failure(data: bytes) -> Tuple[Dict[str, Any], bytes]:
    if data[:1] != b"E" or len(data) < 5:
        return {}, b""
    (size,) = struct.unpack_from("<I", data, 1)
    try:
        header = json.loads(data[5 : 5 + size].decode("utf-8"))
    except ValueError:
        return {}, b""
    return (header if isinstance(header, dict) else {}), data[5 + size :]
