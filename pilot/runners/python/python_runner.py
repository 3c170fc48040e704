#!/usr/bin/env python3
"""The template process of a node: forks Python workers for the pilot.

    python_runner.py --socket-fd N [--preload MODULE,MODULE…] [--results DIRECTORY]

The pilot starts one of these per node with the user's interpreter; a worker is then a fork, which
takes a millisecond where a new interpreter and its imports take seconds. Needs Python 3.8 and the
standard library only. Messages (farcall_channel.py says how they are framed):

    to the pilot    {"op": "hello", "python_version", "executable", "pid"}       first
                    {"op": "forked", "worker", "pid"}
                    {"op": "fork_failed", "worker", "error"}
                    {"op": "exited", "worker", "pid", "status"}   status: as wait(2) gives it
    from the pilot  {"op": "fork", "worker"}   with the worker's socket beside it (SCM_RIGHTS)

What a worker says is in farcall_worker.py. The template ends when its socket is closed, and the
workers with it. Results of a worker that has exited may still be in its socket: read it to the end.
"""

import argparse
import gc
import importlib
import importlib.util
import os
import platform
import selectors
import signal
import socket
import sys

import farcall_payloads
import farcall_worker
from farcall_channel import Channel

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Template:
    """Forks workers when the pilot asks for it and reports their ends."""

    def __init__(self, sock, worker):
        self._channel = Channel(sock)
        self._worker = worker  # what a fork becomes
        self._workers = {}  # pid → the pilot's number of it
        self._selector = selectors.DefaultSelector()
        # The wake-up pipe makes SIGCHLD something that the selector sees.
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def run(self):
        """Serves the pilot. False when it is gone; in a fork, which is a worker now: True."""
        self._channel.send(
            {
                "op": "hello",
                "python_version": platform.python_version(),
                "executable": sys.executable,
                "pid": os.getpid(),
            }
        )
        self._selector.register(self._channel.socket, selectors.EVENT_READ, "pilot")
        self._selector.register(self._wake_read, selectors.EVENT_READ, "child")
        while True:
            for key, _events in self._selector.select():
                if key.data == "child":
                    self._reap()
                    continue
                if not self._channel.read_with_fds():
                    return False
                while self._channel.readable():
                    if not self._channel.read_with_fds():
                        return False
                if self._serve():
                    return True

    def _serve(self):
        """True in a new worker."""
        wanted = []
        while True:
            message = self._channel.buffered()
            if message is None:
                break
            header, _body = message
            if header.get("op") == "fork":
                wanted.append(header["worker"])
            else:
                print("python_runner: unknown request", header, file=sys.stderr)
        return self._fork_all(wanted)

    def _fork_all(self, wanted):
        """All of them before anything else is done: after each fork every page that is written to is
        copied once more, and that is most of what a worker costs here."""
        template_pid = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        fds, workers, answers = self._channel.fds, self._workers, []
        for worker in wanted:
            if not fds:
                answers.append({"op": "fork_failed", "worker": worker, "error": "no socket came with the request"})
                continue
            fd = fds.popleft()
            try:
                pid = os.fork()
            except OSError as error:
                os.close(fd)
                answers.append({"op": "fork_failed", "worker": worker, "error": str(error)})
                continue
            if pid == 0:
                self._become_worker(fd, template_pid)
                return True
            os.close(fd)
            workers[pid] = worker
            answers.append({"op": "forked", "worker": worker, "pid": pid})
        for answer in answers:
            self._channel.send(answer)
        return False

    def _become_worker(self, fd, template_pid):
        """Makes the forked process independent of everything but its socket."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        _die_with_parent()
        if os.getppid() != template_pid:  # it died before the line above
            os._exit(1)
        # As objects, not only as numbers: collected later, they would close what has the numbers then.
        self._selector.close()
        self._channel.socket.close()
        for other in (self._wake_read, self._wake_write, *self._channel.fds):
            os.close(other)
        self._worker.attach(socket.socket(fileno=fd))

    def _reap(self):
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            if worker is not None:
                self._channel.send({"op": "exited", "worker": worker, "pid": pid, "status": status})


def _load_prctl():
    try:
        import ctypes

        return ctypes.CDLL(None, use_errno=True).prctl
    except (ImportError, OSError, AttributeError):
        return None


_prctl = _load_prctl()  # before the fork: it costs 10 ms


def _die_with_parent():
    """A worker whose template is killed must not work on. Without ctypes it sees the end of its
    socket after the running task."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # What its tasks leave behind stays below it, where it is found: farcall_processes.py.
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _preload(modules):
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # pylint: disable=broad-except
            # A worker that needs it will say so; others do not have to suffer.
            print("python_runner: cannot preload %s: %s" % (name, error), file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description="Forks Python workers for farcall-pilot.")
    parser.add_argument("--socket-fd", type=int, required=True, help="socket to the pilot, inherited")
    parser.add_argument("--preload", default="", help="modules to import before forking, with commas")
    parser.add_argument("--results", help="directory of large results, which all nodes and the interchange see")
    parser.add_argument("--results-gzip", type=int, default=0, help="level to which they are compressed, 0: not at all")
    arguments = parser.parse_args()
    farcall_payloads.keep_large_results_in(arguments.results, arguments.results_gzip)

    # The pilot may have blocked signals for a signalfd of its own; that is inherited.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the pilot's to handle
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null > 2:
        os.close(null)
    os.set_inheritable(arguments.socket_fd, False)

    farcall_worker.hide_runner()
    if importlib.util.find_spec("cloudpickle") is not None:
        _preload(["cloudpickle"])  # most functions come with it, and every new worker would import it
    _preload([name for name in arguments.preload.split(",") if name])
    # Ready before the fork: what each worker makes for itself is that much memory to copy.
    worker = farcall_worker.Worker()
    gc.collect()
    gc.freeze()  # what the workers share stays shared: the collector does not write to it

    try:
        is_worker = Template(socket.socket(fileno=arguments.socket_fd), worker).run()
    except (BrokenPipeError, ConnectionResetError):
        return 0
    return worker.run() if is_worker else 0


if __name__ == "__main__":
    sys.exit(main())
