"""Functions as a worker keeps them: made from their bodies once, then called many times."""

import importlib
import json
import linecache
import pickle
import platform
import sys
import tarfile
import types

from farcall_blobs import body_of, open_blob, split
from farcall_files import path_in
from farcall_files import place as place_file
from farcall_payloads import EnvironmentFailure, LoadFailure, carries_code, open_result, output_file, task_directory
from farcall_values import load_value

_HERE = platform.python_version()


def _minor(version):
    return ".".join(str(version).split(".")[:2])


def differs(client_version):
    """True when that is another minor version of Python, whose bytecode must not be run here."""
    return bool(client_version) and _minor(client_version) != _minor(_HERE)


def serializer(name):
    """The module cloudpickle or dill; EnvironmentFailure when the worker's Python has none."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EnvironmentFailure(
            "the worker's Python (%s, %s) has no module %s, with which the function or its arguments were sent (%s): "
            "install it there, for instance in the `worker_init` of the endpoint, or send the function by source"
            % (sys.executable, _HERE, name, error)
        ) from None


class Function:
    """One function, ready to be called as `entry`."""

    def __init__(self, header, body):
        self.name = header.get("name") or "function"
        self.kind = header["kind"]
        self.id = str(header["id"])
        self.meta = _meta(header.get("meta"))
        self.entry = None
        self._body = body
        self._files = header.get("blobs") or {}
        self._module = None

    @property
    def client_version(self):
        """Python version of the client, or an empty string."""
        return self.meta.get("python_version") or ""

    @property
    def other_python(self):
        """True when client and worker run different minor versions of Python."""
        return differs(self.client_version)

    def versions(self):
        return "pickled by Python %s, the worker has %s" % (_minor(self.client_version), _minor(_HERE))

    def load(self, files=None):
        """Makes `entry`. Raises LoadFailure, EnvironmentFailure or what the source raised."""
        self._body = body_of(self._body, files or self._files)
        if self.kind == "python":
            self.entry = self._load_source()
        elif self.kind == "python-pickle":
            self.entry = self._load_pickle()
        else:
            raise EnvironmentFailure("function %s is of kind %s, which a Python worker cannot run" % (self.name, self.kind))
        self._body = None

    def enter(self):
        """To be called before the entry: classes of the function's module must be found under its
        name when they are pickled, also after another version of it was loaded."""
        if self._module is not None:
            sys.modules[self._module.__name__] = self._module

    def _load_source(self):
        try:
            body = json.loads(bytes(self._body).decode("utf-8"))
            source, entry = body["source"], body["entry"]
        except (ValueError, KeyError, TypeError) as error:
            raise LoadFailure("the body of function %s is not what docs/payloads.md says: %r" % (self.name, error)) from None
        module = types.ModuleType(self._module_name())
        file = "<%s of function %s>" % (self.meta.get("file") or "source", self.id)
        module.__file__ = file
        linecache.cache[file] = (len(source), None, source.splitlines(True), file)
        before = sys.modules.get(module.__name__)
        sys.modules[module.__name__] = module
        try:
            exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)
            found = module
            for part in entry.split("."):
                found = getattr(found, part, None)
            if not callable(found):
                defined = sorted(key for key, value in vars(module).items() if isinstance(value, types.FunctionType))
                raise LoadFailure("the source of function %s defines no callable %r; it defines: %s" % (self.name, entry, ", ".join(defined) or "no function"))
        except BaseException:
            if before is None:
                del sys.modules[module.__name__]
            else:
                sys.modules[module.__name__] = before
            raise
        self._module = module
        return found

    def _module_name(self):
        """The client's name of the module, so that classes are the same on both sides, unless
        that would hide a module that is there."""
        name = self.meta.get("module") or ""
        own = "farcall_function_" + self.id.replace("-", "_")
        if not name.isidentifier() or name == "__main__" or name in getattr(sys, "stdlib_module_names", ()):
            return own
        there = sys.modules.get(name)
        if there is not None and not str(getattr(there, "__file__", "")).startswith("<"):
            return own
        return name

    def _load_pickle(self):
        if self.other_python:
            raise EnvironmentFailure(
                "function %s was %s: send it by source, or set `python:` of the endpoint to a Python %s"
                % (self.name, self.versions(), _minor(self.client_version))
            )
        module = serializer(self.meta.get("serializer") or "cloudpickle")
        try:
            return module.loads(self._body)
        except BaseException as error:  # pylint: disable=broad-except
            raise LoadFailure("function %s cannot be loaded in the worker (%s): %s%s" % (self.name, _what(error), error, _advice(error))) from error


class Functions:
    """The functions that one worker was sent."""

    def __init__(self):
        self._functions = {}

    def add(self, header, body):
        self._functions[header["number"]] = Function(header, body)

    def get(self, number, files=None):
        """A function that is loaded; loads it the first time. `files`: where its body is by now."""
        function = self._functions.get(number)
        if function is None:
            raise EnvironmentFailure("function %s was never sent to this worker" % number)
        if function.entry is None:
            function.load(files)
        return function


def load_arguments(data, function, client_version="", files=None, placed=False):
    """(args, kwargs) from the bytes of an argument set, and the kind of its values. `client_version`:
    the Python that made it. `files`: of the blobs that it refers to, by hash. `placed`: the files of the
    task are in its directory already."""
    kind = bytes(data[:1])
    if kind == b"B":
        return _load_with_blobs(data, function, client_version, files or {}, placed)
    content = _load(data, function, client_version)
    if kind == b"J":
        content = content.get("args") or (), content.get("kwargs") or {}
    return content[0], content[1], kind


class _Kept:
    """Bytes and texts that the last task had as large arguments: the next one that shares them gets the
    same objects, which nobody can change. Copying them out of their file is what would take the time
    of a short task."""

    def __init__(self):
        self._values = {}  # by hash
        self._next = {}

    def get(self, name):
        value = self._values.get(name)
        if value is not None:
            self._next[name] = value
        return value

    def offer(self, name, value):
        if name is not None and type(value) in (bytes, str) and len(value) <= _KEPT_BYTES_MAX:
            self._next[name] = value

    def all_asked(self):
        """Those of the task before are let go."""
        self._values, self._next = self._next, {}


_KEPT_BYTES_MAX = 256 << 20
_kept = _Kept()


def _load_with_blobs(data, function, client_version, files, placed):
    try:
        return _load_them(data, function, client_version, files, placed)
    finally:
        _kept.all_asked()


def _load_them(data, function, client_version, files, placed):
    blobs, places, rest = split(data)
    numbered = []
    values = {number for number, _place, *what in places if not what and isinstance(number, int)}
    views = [open_blob(blob, files) if number in values else None for number, blob in enumerate(blobs)]
    for number, place, *what in places:
        if what:  # a file, given by its path
            views.append(path_in(task_directory(), what[0]["file"]) if placed else _placed(number, what[0], blobs, files))
            numbered.append((len(views) - 1, place))
            continue
        if isinstance(number, list):  # a result that lies here
            views.append(open_result(*number))
            number = len(views) - 1
        numbered.append((number, place))
        if place is None:
            rest = views[number]
    positional, named, kind = load_arguments(rest, function, client_version)
    positional, named = list(positional), dict(named)
    for number, place in numbered:
        if place is None:
            continue
        name = blobs[number][0] if number < len(blobs) else None
        value = views[number] if isinstance(views[number], str) else _kept.get(name)
        if value is None:
            value = _load(views[number], function, client_version)
            _kept.offer(name, value)
        (named if isinstance(place, str) else positional)[place] = value
    return positional, named, kind


def _placed(number, what, blobs, files):
    path = output_file(*number) if isinstance(number, list) else files.get(blobs[number][0])
    if path is None:
        raise EnvironmentFailure("the pilot named no file for %s" % what["file"])
    try:
        return place_file(path, what, task_directory())
    except (OSError, ValueError, EOFError, tarfile.TarError) as error:
        raise EnvironmentFailure("file %s cannot be put into the task's directory: %s" % (what["file"], error)) from None


def _load(data, function, client_version):
    """What was dumped, whatever it is; of form J the JSON."""
    kind = bytes(data[:1])
    if kind in (b"P", b"N", b"D") and differs(client_version) and carries_code(data):
        raise EnvironmentFailure(
            "the arguments of %s carry functions or classes as bytecode of Python %s, the worker has %s: give the name of "
            "something that is installed there instead, or set `python:` of the endpoint to a Python %s"
            % (function.name, _minor(client_version), _minor(_HERE), _minor(client_version))
        )
    try:
        if kind == b"J":
            return json.loads(bytes(data[1:]).decode("utf-8"))
        if kind == b"P":
            return pickle.loads(memoryview(data)[1:])
        if kind == b"N":
            return load_value(data)
        if kind == b"D":
            return serializer("dill").loads(data[1:])
    except EnvironmentFailure:
        raise
    except BaseException as error:  # pylint: disable=broad-except
        versions = " (%s)" % function.versions() if function.other_python else ""
        raise LoadFailure(
            "the arguments of %s cannot be loaded in the worker (%s): %s%s%s"
            % (function.name, _what(error), error, versions, _advice(error))
        ) from error
    raise LoadFailure("the arguments of %s begin with %r, expected J, N, P or D" % (function.name, kind))


def _what(error):
    return type(error).__name__


def _advice(error):
    if isinstance(error, ImportError):
        return "; install the module in the worker's Python (%s) or send its source" % sys.executable
    return ""


def _meta(meta):
    if isinstance(meta, dict):
        return meta
    try:
        found = json.loads(meta) if meta else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}
