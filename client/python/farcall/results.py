"""Futures, and the thread that fulfils them from what the relay sends."""

import asyncio
import concurrent.futures
import functools
import logging
import os
import threading
import time
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from .errors import FarcallError, NotFound, from_code
from .files import RemoteFile, output_files
from .serialization import deserialize_failure, deserialize_result
from .remote import RemoteResult, mapped
from .stored import unpack

_log = logging.getLogger("farcall")

#: How long cancel() waits to learn whether the task could be stopped.
CANCEL_WAIT_S = 2.0

_INDEX_END = 2**32 - 1
_FETCHES_AT_ONCE = 4


def task_id_of(submission: str, index: int) -> str:
    """A task's id is its submission's, with the index in the last 32 bits."""
    return "%s%08x" % (submission[:-8], index)


def split_task_id(task_id: str) -> Tuple[str, int]:
    """(submission id, index). Raises ValueError when it is no task id."""
    if len(task_id) != 36 or task_id.count("-") != 4:
        raise ValueError("%r is no task id, expected a UUID" % (task_id,))
    return task_id[:-8].lower() + "00000000", int(task_id[-8:], 16)


class Reading(NamedTuple):
    """How the bytes of a result are to be read."""

    return_dict: bool = False
    allowed: Optional[frozenset] = None
    reference: bool = False  # a RemoteResult instead of the value
    output_directory: Optional[str] = None  # where files come that the task left


READ_ALL = Reading()


class Progress(NamedTuple):
    """How far a running task says it is. ``total`` 0: not known."""

    done: float
    total: float
    note: str


_some_became_durable = threading.Condition()


class TaskFuture(concurrent.futures.Future):
    """The result of a task, when it is there. As any concurrent.futures.Future, and

    ``task_id``: None until the task is on its way to the relay; then it is enough to find the
    task again from anywhere. ``running()``: a worker has begun it (reported for tasks that run
    longer than 0.1 s). ``progress``: None, or the last that the running function said with
    ``farcall.progress()``. ``outputs``: when it is done, the files that it left and was asked for,
    as ``RemoteFile``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.task_id: Optional[str] = None
        self.progress: Optional[Progress] = None
        self.outputs: List[RemoteFile] = []
        self._farcall_canceller: Optional[Callable[["TaskFuture", float], None]] = None
        self._farcall_reading = READ_ALL
        self._farcall_claimed = False  # by the thread that sends it: cannot be cancelled here alone
        self._farcall_durable = False  # the relay has it

    def cancel(self, running: bool = False) -> bool:  # type: ignore[override]
        """Cancels the task wherever it is: here, at the relay, in the queue of its endpoint. True:
        it is cancelled. False: it has finished, or it runs.

        ``running=True``: a task that runs is to be ended too, with all processes that it started.
        Waits up to 2 s for the answer of the endpoint; False may then also mean that it is still
        being stopped, and ``cancelled()`` will tell. In a callback of a future and in a coroutine
        it does not wait.

        A task counts as running once ``running()`` says so. One that began an instant ago is
        ended as if it were still queued.
        """
        with self._condition:
            if self.done():
                return self.cancelled()
            if not self._farcall_claimed:
                return super().cancel()  # the lock is re-entrant
            if self._state == "RUNNING" and not running:
                return False
        if self._farcall_canceller is not None:
            self._farcall_canceller(self, CANCEL_WAIT_S)
        return self.cancelled()

    def _claim(self) -> bool:
        """False when it was cancelled before it was sent."""
        with self._condition:
            if self.done():
                return False
            self._farcall_claimed = True
            return True

    def _became_durable(self) -> None:
        # Not this future's own condition: Future.result() takes any wake-up for the end.
        with _some_became_durable:
            self._farcall_durable = True
            _some_became_durable.notify_all()

    def _wait_durable(self, timeout_s: float) -> None:
        with _some_became_durable:
            _some_became_durable.wait_for(lambda: self._farcall_durable or self.done(), timeout_s)

    def _mark_running(self) -> None:
        with self._condition:
            if self._state == "PENDING":
                self._state = "RUNNING"

    def _mark_cancelled(self) -> None:
        with self._condition:
            if self.done():
                return
            self._state = "PENDING"  # a task that runs can be cancelled, a plain Future cannot
            super().cancel()
            self.set_running_or_notify_cancel()

    def _finish(self, value: Any = None, error: Optional[BaseException] = None) -> None:
        try:
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(value)
        except concurrent.futures.InvalidStateError:
            pass  # it has an outcome already: the first one counts


class _Watch:
    """The futures of one submission that wait."""

    def __init__(self) -> None:
        self.futures: Dict[int, TaskFuture] = {}
        self.native_id: Optional[int] = None
        self.whole = True  # all tasks of the submission are wanted


def _complement(indices: Iterable[int]) -> List[Tuple[int, int]]:
    ranges, start = [], 0
    for index in sorted(indices):
        if index > start:
            ranges.append((start, index))
        start = index + 1
    ranges.append((start, _INDEX_END))
    return ranges


class Tracker:
    """Watches submissions and fulfils futures. Thread-safe. Callbacks of futures run on its thread:
    they must not wait for other futures of the same client."""

    def __init__(self, native: Any):
        self._native = native
        self._lock = threading.Lock()
        self._watches: Dict[str, _Watch] = {}
        self._closing = False
        self._handling = threading.RLock()  # held while events are served
        self._may_fetch = threading.BoundedSemaphore(_FETCHES_AT_ONCE)
        self._thread = threading.Thread(target=self._run, name="farcall-results", daemon=True)
        self._thread.start()

    def watch(self, submission: str, futures: Dict[int, TaskFuture], whole: bool) -> None:
        """Fulfils these, which are tasks of one submission. ``whole``: they are all that it has."""
        with self._lock:
            watch = self._watches.setdefault(submission, _Watch())
            watch.whole = whole and not watch.futures
            for index, future in futures.items():
                first = watch.futures.setdefault(index, future)
                if first is not future:  # somebody waits for this task already: both get its end
                    first.add_done_callback(functools.partial(_follow, future))
            have = [] if watch.whole else _complement(watch.futures)
            watch.native_id = self._native.watch([(submission, have)])

    def future(self, task_id: str, reading: Reading = READ_ALL) -> TaskFuture:
        """The future of a task that somebody submitted, maybe long ago."""
        submission, index = split_task_id(task_id)
        with self._lock:
            watch = self._watches.get(submission)
            known = watch.futures.get(index) if watch else None
        if known is not None:
            return known
        future = self.new_future(task_id)
        future._farcall_reading = reading
        self.watch(submission, {index: future}, whole=False)
        return future

    def new_future(self, task_id: str) -> TaskFuture:
        """One for a task that the relay has."""
        future = TaskFuture()
        future.task_id = task_id
        future._farcall_claimed = future._farcall_durable = True
        future._farcall_canceller = self.cancel
        return future

    def cancel(self, future: TaskFuture, wait_s: float) -> None:
        """Asks for the end of a task and waits for it, except on the thread that would bring it."""
        deadline = time.monotonic() + wait_s
        # A coroutine that waits would stop all others, the one that it waits for among them.
        waits = threading.current_thread() is not self._thread and asyncio._get_running_loop() is None
        if waits:
            future._wait_durable(wait_s)
        if future.done() or not future._farcall_durable:
            return
        self._native.cancel([future.task_id])
        if waits:
            concurrent.futures.wait([future], max(0.0, deadline - time.monotonic()))

    def fail_all(self, error: BaseException) -> None:
        """Nothing will come any more."""
        with self._lock:
            watches, self._watches = self._watches, {}
        for watch in watches.values():
            for future in watch.futures.values():
                future._finish(error=error)

    def stop(self) -> None:
        """Before the native client is closed: lets it say what has been collected."""
        held = self._handling.acquire(timeout=1.0)  # a callback may wait for whoever closes
        self._closing = True
        if held:
            self._handling.release()

    def join(self) -> None:
        """After the native client was closed."""
        if threading.current_thread() is not self._thread:
            self._thread.join(5)

    def _run(self) -> None:
        while True:
            events = self._native.next_events(60.0)
            if events is None:
                return
            with self._handling:
                for event in events:
                    self._serve(event)
            # Values may be large: they are the futures' now.
            events = event = None

    def _serve(self, event: tuple) -> None:
        try:
            if event[0] == "outcomes":
                self._outcomes(event[1], event[2])
            elif event[0] == "notes":
                self._notes(event[1], event[2])
            else:
                self._progress(*event[1:])
        except Exception:
            if not self._closing:
                _log.exception("farcall: handling of results failed for submission %s", event[1])

    def _outcomes(self, submission: str, outcomes: List[tuple]) -> None:
        with self._lock:
            watch = self._watches.get(submission)
            found = []
            for outcome in outcomes:
                future = watch.futures.pop(outcome[0], None) if watch else None
                if future is not None:
                    found.append((future, outcome))
            finished = self._drop_if_empty(submission, watch)
        now = []
        for future, outcome in found:
            reading = future._farcall_reading
            if outcome[2] == "succeeded" and reading.reference and not reading.output_directory:
                self._refer(submission, future, outcome)
            elif outcome[2] == "succeeded" and outcome[-1][:1] == b"B":
                self._fetch(submission, future, outcome)
            else:
                now.append((future, outcome))
        found = now
        indices = [outcome[0] for _future, outcome in found]
        found.reverse()
        while found:
            _fulfil(submission, *found.pop())
        # They are in the program's hands now; their time to live at the relay begins.
        self._native.collected(submission, indices)
        if finished is not None:
            self._native.unwatch(finished)

    def _notes(self, submission: str, notes: List[tuple]) -> None:
        with self._lock:
            watch = self._watches.get(submission)
            for index, done, total, note in notes:
                future = watch.futures.get(index) if watch else None
                if future is not None:
                    future.progress = Progress(done, total, note)

    def _refer(self, submission: str, future: TaskFuture, outcome: tuple) -> None:
        try:
            self._name_outputs(submission, future, outcome)
            future._finish(RemoteResult(self._native, task_id_of(submission, outcome[0]), outcome[-1]))
        except BaseException as error:
            future._finish(error=error)

    def _fetch(self, submission: str, future: TaskFuture, outcome: tuple) -> None:
        """A result that is still at its endpoint: on a thread of its own, others go on."""
        # No pool: the interpreter would wait for its threads, and they for a relay that is away.
        threading.Thread(target=self._fetch_now, args=(submission, future, outcome), name="farcall-fetch", daemon=True).start()

    def _fetch_now(self, submission: str, future: TaskFuture, outcome: tuple) -> None:
        try:
            blobs, places, rest = unpack(outcome[-1])
            reading, task_id = future._farcall_reading, task_id_of(submission, outcome[0])
            self._name_outputs(submission, future, outcome)
            with self._may_fetch:
                for file in future.outputs if reading.output_directory else ():
                    file.save(os.path.join(reading.output_directory, task_id, file.name))
            if reading.reference:
                self._refer(submission, future, outcome)
                return
            data: Any = bytes(rest)
            for number, place, *_array in places:
                if place is None:
                    with self._may_fetch:
                        data = mapped(self._native.fetch_blob(task_id, *blobs[number]), blobs[number][1])
            _fulfil(submission, future, outcome[:-1] + (data,))
            self._native.collected(submission, [outcome[0]])
        except BaseException as error:
            future._finish(error=error)

    def _name_outputs(self, submission: str, future: TaskFuture, outcome: tuple) -> None:
        if outcome[-1][:1] == b"B":
            blobs, places, _rest = unpack(outcome[-1])
            future.outputs = output_files(self._native, task_id_of(submission, outcome[0]), blobs, places)

    def _drop_if_empty(self, submission: str, watch: Optional[_Watch]) -> Optional[int]:
        if watch is None or watch.futures:
            return None
        del self._watches[submission]
        return watch.native_id

    def _progress(
        self,
        submission: str,
        received: int,
        sealed: bool,
        _succeeded: int,
        _failed: int,
        _cancelled: int,
        running: List[Tuple[int, int]],
        error: Optional[Tuple[str, str]],
    ) -> None:
        missing: Dict[int, TaskFuture] = {}
        with self._lock:
            watch = self._watches.get(submission)
            if watch is None:
                return
            if error is not None:
                missing, watch.futures = watch.futures, {}
            elif sealed:
                missing = {index: watch.futures.pop(index) for index in list(watch.futures) if index >= received}
            now_running = [watch.futures[i] for first, last in running for i in range(first, last) if i in watch.futures]
            finished = self._drop_if_empty(submission, watch)
        for index, future in missing.items():
            problem: FarcallError = NotFound("no task %s: its submission has %d" % (task_id_of(submission, index), received))
            if error is not None:
                if not future._farcall_durable:
                    continue  # refused: who sends it hears why
                problem = from_code(*error)
            future._finish(error=problem)
        for future in now_running:
            future._mark_running()
        if finished is not None:
            self._native.unwatch(finished)


def _follow(future: TaskFuture, first: concurrent.futures.Future) -> None:
    if first.cancelled():
        future._mark_cancelled()
    else:
        error = first.exception()
        future._finish(None if error else first.result(), error)


_OUTCOME = ("index", "attempt", "state", "failure_class", "exit_code", "signal", "started_ms", "ended_ms", "host")


def _fulfil(submission: str, future: TaskFuture, outcome: tuple) -> None:
    """``outcome``: _OUTCOME and the data, as the native module has it."""
    facts = dict(zip(_OUTCOME, outcome))
    data, state = outcome[-1], facts.pop("state")
    task_id = task_id_of(submission, facts.pop("index"))
    if state == "cancelled":
        future._mark_cancelled()
        return
    reading = future._farcall_reading
    try:
        if state == "succeeded":
            future._finish(deserialize_result(data, task_id, reading.return_dict, reading.allowed))
            return
        error = deserialize_failure(data, reading.allowed, task_id=task_id, **facts)
    except BaseException as problem:
        error = problem
    future._finish(error=error)
