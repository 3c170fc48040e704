"""A Python worker: runs the functions that the pilot sends, one after the other.

Messages, framed as farcall_channel.py says:

    from the pilot  {"op": "function", "id", "kind", "name", "meta", "size"} + body
                    {"op": "run", "task", "attempt", "function", "size", "cwd", "env"} + arguments;
                    several may be sent ahead
    to the pilot    {"op": "done", "task", "attempt", "state": "succeeded" | "failed", "class",
                     "started_ms", "ended_ms", "size"} + data; times are wall clock,
                     "class" is the failure class or "none"

Bodies, arguments and data are as docs/payloads.md says. Each result is written before the next
task starts: when a worker dies, the first task without an answer is the one that it died under.
"""

import os
import signal
import sys
import time

from farcall_channel import Channel
from farcall_functions import Functions, differs, load_arguments
from farcall_payloads import EnvironmentFailure, dump_result, failure

_OUTPUT_BYTES_MAX = 256 * 1024  # of one task, per stream
_EXIT_SECONDS_MAX = 5  # for exit handlers and threads of the user's code


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

    def __init__(self, stream):
        self._stream = stream
        self._left = _OUTPUT_BYTES_MAX

    def next_task(self, fd):
        """Begins to count anew. `fd`: to write to when the stream was closed."""
        self._left = _OUTPUT_BYTES_MAX
        if self._stream.closed:
            self._stream = open(fd, "w", buffering=1, errors="backslashreplace", closefd=False)

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError("write() argument must be str, not %s" % type(text).__name__)
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


class Worker:
    """Serves the pilot at the other end of a socket until that is closed."""

    def __init__(self, sock):
        self._channel = Channel(sock)
        self._functions = Functions()
        self._pid = os.getpid()
        self._home_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        os.set_inheritable(self._home_fd, False)
        self._descriptors = [(fd, os.dup(fd)) for fd in (0, 1, 2)]
        self._streams = [BoundedStream(open(fd, "w", buffering=1, errors="backslashreplace", closefd=False)) for fd in (1, 2)]
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
        operation = header.get("op")
        if operation == "run":
            self._run(header, body)
        elif operation == "function":
            self._functions.add(header, body)
        else:
            print("python worker: unknown request", header, file=sys.stderr)

    def _run(self, header, arguments):
        started = time.time()
        saved = self._enter(header)
        try:
            parts, failure_class = self._execute(header, arguments)
        finally:
            self._leave(saved)
        if os.getpid() != self._pid:
            # The function called os.fork() and this is the child that came back from it.
            os._exit(0 if failure_class == "none" else 1)
        self._channel.send(
            {
                "op": "done",
                "task": header["task"],
                "attempt": header["attempt"],
                "state": "succeeded" if failure_class == "none" else "failed",
                "class": failure_class,
                "started_ms": int(started * 1000),
                "ended_ms": int(time.time() * 1000),
                "size": sum(map(len, parts)),
            },
            *parts,
        )

    def _execute(self, header, arguments):
        """The task's data, as buffers, and its failure class. Never raises: whatever happens is an answer."""
        function = None
        environment = header.get("env") or {}
        client_version = environment.get("FARCALL_CLIENT_PYTHON", "")
        foreign = differs(client_version)
        try:
            if header.get("cwd"):
                os.chdir(header["cwd"])
            function = self._functions.get(header["function"])
            positional, named = load_arguments(arguments, function, client_version)
            function.enter()
            value = function.entry(*positional, **named)
            wanted = [word for word in environment.get("FARCALL_RESULT_SERIALIZERS", "").split(",") if word]
            return dump_result(value, bytes(arguments[:1]), function, wanted, foreign), "none"
        except EnvironmentFailure as error:
            return [failure(error, "environment", header["attempt"])], "environment"
        except BaseException as error:  # pylint: disable=broad-except
            return [failure(error, "user_error", header["attempt"], foreign)], "user_error"

    def _enter(self, header):
        """Sets the task's environment; what has to be put back afterwards."""
        self._restore_output()
        wanted = dict(header.get("env") or {})
        wanted["FARCALL_TASK_ID"] = wanted["GC_TASK_UUID"] = str(header["task"])
        wanted["FARCALL_ATTEMPT"] = str(header["attempt"])
        if header.get("cwd"):
            wanted.setdefault("GC_TASK_SANDBOX_DIR", header["cwd"])
        saved = {}
        for name, value in wanted.items():
            saved[name] = os.environ.get(name)
            os.environ[name] = str(value)
        return saved

    def _leave(self, saved):
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
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
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("500")
        except OSError:
            pass

    @staticmethod
    def _reseed():
        """`random` does it by itself after a fork, numpy does not."""
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed()
