"""The thread that hands an executor's tasks to the relay."""

import concurrent.futures
import logging
import queue
import threading
import time
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from .client import Client
from .errors import RelayTimeout, Unreachable
from .results import TaskFuture, task_id_of
from .serialization import Code

_log = logging.getLogger("farcall")

UNSENT_BYTES_MAX = 256 * 1024 * 1024
_ON_WAY_MAX = 16  # submissions that the relay has not answered yet
_LOOK_S = 0.2  # how long one that is not answered keeps the others waiting


class Function:
    """A function as an executor knows it: its code, its id at the relay, or both."""

    __slots__ = ("code", "function_id")

    def __init__(self, code: Optional[Code] = None, function_id: Optional[str] = None):
        self.code = code
        self.function_id = function_id


class Item(NamedTuple):
    """A task on its way. ``key``: equal for tasks that can share a submission."""

    future: TaskFuture
    function: Function
    arguments: bytes
    endpoint: str
    header: Dict[str, Any]
    key: Tuple
    batch_size: int


class OnWay:
    """A submission that the relay has not answered yet."""

    def __init__(self, writer: Any, items: List[Item], patience_s: float):
        self.writer = writer
        self.items = items
        self.said = time.monotonic()
        self.due = self.said + patience_s


class Sender:
    """Knows nothing of the executor that feeds it, so that one which nobody holds any more can go
    while its tasks are sent. Thread-safe. ``end()`` lets the thread finish: it sends what there is,
    waits for the results if it has to close the client after them, and ends."""

    def __init__(self, client: Client, owns_client: bool):
        self.client = client
        self.count_submitted = 0
        self.open: set = set()  # futures that are not done
        self.condition = threading.Condition()
        self.unsent = 0
        self.ended = False
        self._owns_client = owns_client
        self._unsent_bytes = 0
        self._queue: "queue.SimpleQueue[Optional[Item]]" = queue.SimpleQueue()
        self._on_way: List[OnWay] = []  # of the thread alone
        self.thread = threading.Thread(target=self._run, name="farcall-submitter", daemon=True)
        self.thread.start()

    def put(self, item: Item) -> None:
        """Takes a task. Waits while too much is unsent. Raises RuntimeError after end()."""
        with self.condition:
            # Bounds memory when the relay is slower than the program.
            self.condition.wait_for(lambda: self._unsent_bytes < UNSENT_BYTES_MAX or self.ended)
            if self.ended:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self.unsent += 1
            self._unsent_bytes += len(item.arguments)
            self.open.add(item.future)
            self._queue.put(item)
        item.future.add_done_callback(self.forget)

    def follow(self, futures: Iterable[TaskFuture]) -> None:
        """Futures of tasks that the relay has already."""
        with self.condition:
            self.open.update(futures)
        for future in futures:
            future.add_done_callback(self.forget)

    def forget(self, future: concurrent.futures.Future) -> None:
        """The future is done."""
        with self.condition:
            self.open.discard(future)
            self.condition.notify_all()

    def end(self) -> None:
        """No more put(). May be called again."""
        with self.condition:
            if self.ended:
                return
            self.ended = True
            self._queue.put(None)
            self.condition.notify_all()

    def wait_open(self) -> None:
        """Until all futures are done."""
        with self.condition:
            self.condition.wait_for(lambda: not self.open)

    def wait_sent(self, timeout_s: float) -> int:
        """Until the relay has all that was put; how many it has not after so many seconds."""
        with self.condition:
            self.condition.wait_for(lambda: not self.unsent, timeout_s)
            return self.unsent

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        more = True
        while more:
            if self._on_way and self._queue.empty():
                self._settle()
                continue
            items, more = self._take()
            groups: Dict[Tuple, List[Item]] = {}
            for one in items:
                groups.setdefault(one.key, []).append(one)
            for group in groups.values():
                self._send(group)
            # A task that is done may go with its arguments: nothing of it is kept here.
            items = groups = group = one = None  # type: ignore[assignment]
        while self._on_way:
            self._settle()
        if self._owns_client:
            self.wait_open()
            self.client.close()

    def _take(self) -> Tuple[List[Item], bool]:
        items: List[Item] = []
        item = self._queue.get()
        while item is not None:
            items.append(item)
            if len(items) >= item.batch_size:
                return items, True
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return items, True
        return items, False

    def _send(self, group: List[Item]) -> None:
        claimed, cancelled = [], []
        for item in group:
            (claimed if item.future._claim() else cancelled).append(item)
        for item in cancelled:
            item.future.set_running_or_notify_cancel()
        try:
            if claimed:
                self._open_submission(claimed)
        except BaseException as error:
            for item in claimed:
                item.future._finish(error=error)
            cancelled = group
        self._sent(cancelled)
        while len(self._on_way) > _ON_WAY_MAX:
            self._settle()

    def _open_submission(self, items: List[Item]) -> None:
        first = items[0]
        endpoint = self.client._native.find_endpoint(first.endpoint)
        function = first.function
        if function.function_id is None:
            assert function.code is not None
            function.function_id = self.client._register(function.code)

        def on_way(submission: str) -> None:
            futures = {index: item.future for index, item in enumerate(items)}
            for index, future in futures.items():
                future.task_id = task_id_of(submission, index)
            self.client._tracker.watch(submission, futures, whole=True)

        sets = [item.arguments for item in items]
        writer = self.client._open(function.function_id, endpoint, first.header, sets, on_way, self._keeps_trying)
        self._on_way.append(OnWay(writer, items, self.client._timeout_s))

    def _keeps_trying(self) -> bool:
        return not self.ended

    def _settle(self) -> None:
        """Waits a moment for the oldest, and takes the answers that there are, in any order."""
        on_way, self._on_way = self._on_way, []
        wait_s = _LOOK_S
        for one in on_way:
            if not self._is_settled(one, wait_s):
                self._on_way.append(one)
            wait_s = 0

    def _is_settled(self, one: OnWay, wait_s: float) -> bool:
        try:
            try:
                one.writer.wait_durable(wait_s)
            except (RelayTimeout, Unreachable) as error:
                now = time.monotonic()
                if now < one.due:
                    return False
                waited_s, one.due = now - one.said, now + self.client._timeout_s
                if not self._keeps_trying():
                    raise
                why = self.client._why_it_waits() or str(error)
                _log.warning("farcall: still waiting for the relay after %.0f s: %s", waited_s, why)
                return False
            self.count_submitted += len(one.items)
            for item in one.items:
                item.future._became_durable()
        except BaseException as error:
            for item in one.items:
                item.future._finish(error=error)
        self._sent(one.items)
        return True

    def _sent(self, items: List[Item]) -> None:
        """These are the relay's now, or nobody's."""
        if not items:
            return
        with self.condition:
            self.unsent -= len(items)
            self._unsent_bytes -= sum(len(item.arguments) for item in items)
            self.condition.notify_all()


def cancel_all(client: Client, futures: Iterable[TaskFuture], running: bool = False) -> None:
    """Without waiting, and with one message for all."""
    ids = []
    for future in list(futures):
        if future.done() or (future.running() and not running):
            continue
        if not future._farcall_claimed and future.cancel():
            continue
        if future._farcall_durable and future.task_id:
            ids.append(future.task_id)
    if ids:
        client.cancel(ids)


def chunks(rows: Iterable[tuple], size: int) -> Iterable[List[tuple]]:
    """Rows in lists of so many."""
    chunk: List[tuple] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def chunked(fn: Callable) -> Callable:
    """Uses no global name: the worker has no module farcall."""

    def run_chunk(rows):
        return [fn(*row) for row in rows]

    run_chunk.__module__ = getattr(fn, "__module__", "__main__")
    return run_chunk
