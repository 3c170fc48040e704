"""What a running task says while it runs: its progress, and what it prints when somebody listens.

A function calls ``farcall.progress(done, total, note)``. Where the package farcall is not installed, a
module of that name with this one function stands in for it; where it is, it finds this module under
the name ``farcall_task``. At most ten messages a second go to the pilot; what is between is merged.
"""

import _thread
import importlib.abc
import importlib.machinery
import math
import os
import sys
import time

_EVERY_S = 0.1
_OUTPUT_BYTES_MAX = 64 * 1024  # of one stream in one message; what is more loses its beginning
_TEXT_CHARACTERS_MAX = 1000


def _finite(number):
    """As the pilot takes it: JSON has no other numbers."""
    value = float(number)
    return value if math.isfinite(value) else 0.0


class _Output:
    """Bytes of one stream that nobody was told of yet."""

    def __init__(self):
        self.data = bytearray()
        self.offset = 0

    def add(self, data):
        self.data += data
        if len(self.data) > _OUTPUT_BYTES_MAX:
            cut = len(self.data) - _OUTPUT_BYTES_MAX
            del self.data[:cut]
            self.offset += cut

    def take(self):
        data, offset = bytes(self.data), self.offset
        self.offset += len(data)
        self.data.clear()
        return data, offset


class Notes:
    """Progress and output of the task that runs, if one does. For any thread."""

    def __init__(self):
        self._channel = None
        self._pid = None
        self._running = False
        self.streams = False  # what is printed is wanted
        self._lock = _thread.allocate_lock()  # for all below
        self._next = 0.0
        self._later = False  # a thread waits to tell
        self._said = None
        self._outputs = (_Output(), _Output())

    def attach(self, channel):
        """To whom it is said, from this process."""
        self._channel = channel
        self._pid = os.getpid()

    def begin(self, streams):
        """A task starts. Cheap: it is done for each."""
        self._running = True
        self._said = None
        if streams:
            self.streams = True
            self._outputs = (_Output(), _Output())
            self._next = 0.0

    def end(self):
        """It is over: what was held back is told first."""
        if os.getpid() != self._pid:  # a child of the task, that came back from its function
            return
        if self.streams or self._said is not None:
            with self._lock:
                self._tell()
        self._running = self.streams = False

    def progress(self, done, total=0, note=""):
        """See farcall.progress()."""
        if not self._running or os.getpid() != self._pid:
            return
        text = str(note)[:_TEXT_CHARACTERS_MAX].encode("utf-8", "replace").decode("utf-8")
        said = {"done": _finite(done), "total": _finite(total or 0), "text": text}
        with self._lock:
            self._said = said
            self._tell_in_time()

    def output(self, stream, text):
        """What was printed: stream 0 is standard output, 1 standard error."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._outputs[stream].add(text.encode("utf-8", "replace"))
            self._tell_in_time()

    def _tell_in_time(self):
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY_S
            self._tell()
        elif not self._later:
            self._later = True
            _thread.start_new_thread(self._tell_later, (self._next - now,))

    def _tell_later(self, delay):
        time.sleep(delay)
        with self._lock:
            self._later = False
            if self._running:
                self._next = time.monotonic() + _EVERY_S
                self._tell()

    def _tell(self):
        said, self._said = self._said, None
        (out, out_offset), (err, err_offset) = self._outputs[0].take(), self._outputs[1].take()
        if said is None and not out and not err:
            return
        header = {"op": "note", "out": len(out), "out_offset": out_offset, "err_offset": err_offset}
        header.update(said or {})
        try:
            self._channel.send(header, out + err)
        except OSError:  # the pilot is gone: the worker will see it
            pass


class _StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes `import farcall` work where the package is not installed. Asked last."""

    def __init__(self, notes):
        self._notes = notes

    def find_spec(self, name, path=None, target=None):
        if name != "farcall":
            return None
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.__doc__ = "Stands in for the package farcall, which this Python has not: progress() only."
        module.progress = self._notes.progress


def install(notes):
    """Lets functions reach `notes`."""
    module = type(sys)("farcall_task")
    module.progress = notes.progress
    sys.modules["farcall_task"] = module
    sys.meta_path.append(_StandIn(notes))
