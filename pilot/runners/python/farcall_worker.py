"""A Python worker: runs the functions that the pilot sends, one after the other.

Messages, framed as farcall_channel.py says:

    from the pilot  {"op": "function", "number", "id", "kind", "name", "meta", "blobs"} + body
                    {"op": "environment", "number", "env"}
                    RUN + arguments, or when there is more to say
                    {"op": "run", "sequence", "task", "attempt", "function": number, "cwd", "env",
                    "stream", "blobs": files by hash} + arguments; several may be sent ahead; "stream":
                    what it prints is wanted at once
    to the pilot    DONE + data; times are wall clock
                    {"op": "note", "done", "total", "text", "out", "out_offset", "err_offset"} + what
                    was printed, the first "out" bytes on standard output; while a task runs

Bodies, arguments and data are as docs/payloads.md says. Each result is written before the next
task starts: when a worker dies, the first task without an answer is the one that it died under.
"""

import json
import os
import signal
import sys
import time

from farcall_channel import RUN, Channel
from farcall_functions import Functions, differs, load_arguments
from farcall_notes import Notes, install
from farcall_payloads import EnvironmentFailure, dump_result, failure
from farcall_processes import end_children

_OUTPUT_BYTES_MAX = 256 * 1024  # of one task, per stream
_EXIT_SECONDS_MAX = 5  # for exit handlers and threads of the user's code
# Failure classes as they are numbered on the wire.
_NONE, _USER_ERROR, _ENVIRONMENT = 0, 1, 7


def hide_runner():
    """Gives user code the interpreter as it would find it in a script of its own."""
    directory = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != directory]
    sys.argv = [""]
    main = type(sys)("__main__")
    main.__builtins__ = __builtins__
    # The module object must live on: its functions are the template.
    sys.modules["farcall_runner_main"] = sys.modules["__main__"]
    sys.modules["__main__"] = main


class BoundedStream:
    """What print() writes to in a worker: unbuffered, and a task that prints without end fills
    neither a disk nor a log."""

    def __init__(self, stream, number, notes):
        self._stream = stream
        self._number = number
        self._notes = notes
        self._left = _OUTPUT_BYTES_MAX

    def next_task(self, fd):
        """Begins to count anew. `fd`: to write to when the stream was closed."""
        self._left = _OUTPUT_BYTES_MAX
        if self._stream.closed:
            self._stream = open(fd, "w", buffering=1, errors="backslashreplace", closefd=False)

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError("write() argument must be str, not %s" % type(text).__name__)
        if self._notes.streams:
            self._notes.output(self._number, text)
        if self._left <= 0:
            return len(text)
        shown = text[: self._left]
        self._left -= len(shown)
        try:
            self._stream.write(shown)
            if self._left <= 0:
                self._stream.write("\n[farcall: the task printed more than %d bytes; the rest is dropped]\n" % _OUTPUT_BYTES_MAX)
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads it: no reason to fail the task
            self._left = 0
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def __getattr__(self, name):
        return getattr(self._stream, name)


class Environment:
    """What the tasks of a submission find in os.environ, and what it says to this runner."""

    def __init__(self, variables):
        self.variables = variables
        self.client_version = variables.get("FARCALL_CLIENT_PYTHON", "")
        self.foreign = differs(self.client_version)
        self.outputs = json.loads(variables.get("FARCALL_TASK_OUTPUTS", "[]"))
        self.wanted = [word for word in variables.get("FARCALL_RESULT_SERIALIZERS", "").split(",") if word]


_NO_ENVIRONMENT = Environment({})


def _set(variables):
    """Sets them; what _restore() needs to undo that."""
    saved = {}
    for name, value in variables.items():
        saved[name] = os.environ.get(name)
        os.environ[name] = str(value)
    return saved


def _restore(saved):
    for name, value in saved.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


class Worker:
    """Serves the pilot at the other end of a socket until that is closed. Made in the template, so that
    a fork has only to attach() it."""

    def __init__(self):
        self._channel = None
        self._functions = Functions()
        self._pid = None
        self._attempt = None  # whose number stands in the environment
        self._environments = {0: _NO_ENVIRONMENT}
        self._applied = _NO_ENVIRONMENT
        self._replaced = {}  # by that
        self._home_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        os.set_inheritable(self._home_fd, False)
        self._descriptors = [(fd, os.dup(fd)) for fd in (0, 1, 2)]
        self._notes = Notes()
        install(self._notes)
        self._streams = [
            BoundedStream(open(fd, "w", buffering=1, errors="backslashreplace", closefd=False), fd - 1, self._notes) for fd in (1, 2)
        ]

    def attach(self, sock):
        """Makes this process the worker that serves `sock`."""
        self._channel = Channel(sock)
        self._notes.attach(self._channel)
        self._pid = os.getpid()
        self._prefer_this_victim()
        self._reseed()

    def run(self):
        """Exit status for the process."""
        try:
            while True:
                message = self._channel.buffered()
                if message is not None:
                    self._serve(*message)
                elif not self._channel.read():
                    break
        except (BrokenPipeError, ConnectionResetError):
            pass
        # Threads or exit handlers that never end must not keep the process.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_EXIT_SECONDS_MAX)
        return 0

    def _serve(self, header, body):
        if type(header) is bytes:
            self._run_packed(header, body)
            return
        operation = header.get("op")
        if operation == "run":
            self._run(header, body)
        elif operation == "function":
            self._functions.add(header, body)
        elif operation == "environment":
            self._environments[header["number"]] = Environment(header["env"])
        elif operation == "bind":
            self._bind(header["processors"])
        else:
            print("python worker: unknown request", header, file=sys.stderr)

    @staticmethod
    def _bind(processors):
        try:
            os.sched_setaffinity(0, processors)
        except OSError as error:
            print("python worker: not bound to processors %s: %s" % (processors, error), file=sys.stderr)

    def _run(self, header, arguments):
        started = time.time()
        environment = Environment(header.get("env") or {})
        self._apply(_NO_ENVIRONMENT)
        saved = self._enter(header)
        self._notes.begin(header.get("stream"))
        try:
            data, failure_class = self._execute(header["function"], header["attempt"], header.get("cwd"), environment, arguments, header.get("blobs"))
        finally:
            self._notes.end()
            self._leave(saved)
        self._answer(failure_class, header["sequence"], started, data)

    def _run_packed(self, header, arguments):
        """As _run() without a directory. What it sets in the environment stays until the next task
        sets it otherwise."""
        started = time.time()
        _mark, sequence, number, environment_number, attempt, task = RUN.unpack(header)
        environment = self._environments[environment_number]
        if environment is not self._applied:
            self._apply(environment)
        environ = os.environ
        for name, value in environment.variables.items():
            if environ.get(name) != value:  # the task before has changed it
                environ[name] = str(value)
        environ["FARCALL_TASK_ID"] = environ["GC_TASK_UUID"] = task.decode("ascii")
        if attempt != self._attempt or "FARCALL_TASK_ATTEMPT" not in environ:
            environ["FARCALL_TASK_ATTEMPT"] = str(attempt)
            self._attempt = attempt
        self._restore_output()
        self._notes.begin(False)
        data, failure_class = self._execute(number, attempt, None, environment, arguments)
        self._notes.end()
        os.fchdir(self._home_fd)
        self._answer(failure_class, sequence, started, data)

    def _apply(self, environment):
        """Puts back what the last environment has changed, sets this one."""
        _restore(self._replaced)
        self._replaced = _set(environment.variables)
        self._applied = environment

    def _answer(self, failure_class, sequence, started, data):
        if os.getpid() != self._pid:
            # The function called os.fork() and this is the child that came back from it.
            os._exit(1 if failure_class else 0)
        end_children()
        self._channel.send_done(failure_class, sequence, int(started * 1000), int(time.time() * 1000), *data)

    def _execute(self, number, attempt, directory, environment, arguments, files=None):
        """The task's data, as buffers, and its failure class. Never raises: whatever happens is an answer."""
        function = None
        try:
            if directory:
                os.chdir(directory)
            function = self._functions.get(number)
            positional, named, kind = load_arguments(arguments, function, environment.client_version, files)
            function.enter()
            value = function.entry(*positional, **named)
            return dump_result(value, kind, function, environment.wanted, environment.foreign, environment.outputs), _NONE
        except EnvironmentFailure as error:
            return [failure(error, "environment", attempt)], _ENVIRONMENT
        except BaseException as error:  # pylint: disable=broad-except
            return [failure(error, "user_error", attempt, environment.foreign)], _USER_ERROR

    def _enter(self, header):
        """Sets the task's environment; what has to be put back afterwards."""
        self._restore_output()
        wanted = dict(header.get("env") or {})
        wanted["FARCALL_TASK_ID"] = wanted["GC_TASK_UUID"] = str(header["task"])
        wanted["FARCALL_TASK_ATTEMPT"] = str(header["attempt"])
        return _set(wanted)

    def _leave(self, saved):
        _restore(saved)
        os.fchdir(self._home_fd)

    def _restore_output(self):
        """A task may have closed or replaced it; else a file that the next one opens would get what is printed."""
        for fd, saved in self._descriptors:
            try:
                os.fstat(fd)
            except OSError:
                os.dup2(saved, fd)
        sys.stdout, sys.stderr = self._streams
        for fd, stream in zip((1, 2), self._streams):
            stream.next_task(fd)

    @staticmethod
    def _prefer_this_victim():
        """When a node runs out of memory, a worker is to go, not the pilot with all its results."""
        try:
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, b"500")
            os.close(fd)
        except OSError:
            pass

    @staticmethod
    def _reseed():
        """`random` does it by itself after a fork, numpy does not."""
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed()
