"""``Executor``: a concurrent.futures.Executor whose workers are on a supercomputer."""

import atexit
import concurrent.futures
import logging
import queue
import threading
import time
import uuid
import weakref
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Union

from . import options as _options
from .client import Client
from .errors import InvalidRequest
from .functions import ShellFunction
from .results import TaskFuture, task_id_of
from .serialization import Code, serialize_arguments, serialize_function, shell_arguments

_log = logging.getLogger("farcall")

_FUNCTIONS_MAX = 1024  # remembered
_UNSENT_BYTES_MAX = 256 * 1024 * 1024
_EXIT_FLUSH_S = 30.0


class _Function:
    """A function as this executor knows it: its code, its id at the relay, or both."""

    def __init__(self, code: Optional[Code] = None, function_id: Optional[str] = None):
        self.code = code
        self.function_id = function_id


class _Item(NamedTuple):
    """A task on its way to the relay. ``key``: equal for tasks that can share a submission."""

    future: TaskFuture
    function: _Function
    arguments: bytes
    endpoint: str
    header: Dict[str, Any]
    key: Tuple


class Executor(concurrent.futures.Executor):
    """Runs calls on an endpoint.

        with Executor("mycluster") as executor:
            print(executor.submit(pow, 2, 10).result())

    ``endpoint_id``: name or id. ``client``: default a new Client(). ``task_group_id``: default a new
    one; ``reload_tasks()`` finds the tasks of a group again. ``resource_specification``,
    ``walltime_s``, ``priority``, ``retry``, ``environment``, ``sandbox``: as Client.create_batch().
    ``batch_size``: at most so many tasks in one submission. ``serializer``: how values travel
    ("pickle", "cloudpickle", "dill", "json"); ``code_serializer``: how functions do ("cloudpickle",
    "dill", "source", "module"). All can be set between submits; a task has the values of the moment
    of its submit().

    A function is read once, at its first submit: what its globals change to later stays here.
    Exceptions of a function arrive as they were raised where their class is importable here.
    Leaving the ``with`` waits for all tasks. A program that ends without it leaves its tasks
    running: what was submitted is safe at the relay.
    """

    def __init__(
        self,
        endpoint_id: Optional[str] = None,
        client: Optional[Client] = None,
        task_group_id: Optional[str] = None,
        resource_specification: Optional[Mapping[str, Any]] = None,
        label: str = "",
        batch_size: int = 1024,
        *,
        walltime_s: Optional[float] = None,
        priority: int = 0,
        retry: _options.Retry = None,
        environment: Optional[Mapping[str, str]] = None,
        sandbox: bool = False,
        serializer: Optional[str] = None,
        code_serializer: Optional[str] = None,
    ):
        if batch_size < 1:
            raise InvalidRequest("batch_size must be at least 1, got %r" % (batch_size,))
        self._settings: Dict[str, Any] = {
            "resource_specification": resource_specification,
            "task_group_id": task_group_id or str(uuid.uuid4()),
            "label": label,
            "priority": priority,
            "walltime_s": walltime_s,
            "retries": retry,
            "environment": environment,
            "sandbox": sandbox,
        }
        self._header = self._make_header()
        self.endpoint_id = endpoint_id
        self.batch_size = batch_size
        self.serializer = serializer
        self.code_serializer = code_serializer
        self._owns_client = client is None
        self.client = client if client is not None else Client()
        self.task_count_submitted = 0
        # By id(), with the function itself, since an id() is only unique among the living.
        self._functions: "OrderedDict[Tuple[int, Optional[str]], Tuple[Any, _Function]]" = OrderedDict()
        self._by_content: "OrderedDict[Tuple[str, str, bytes], _Function]" = OrderedDict()
        self._open: set = set()  # futures that are not done
        self._condition = threading.Condition()
        self._unsent = 0
        self._unsent_bytes = 0
        self._shut_down = False
        self._queue: "queue.SimpleQueue[Optional[_Item]]" = queue.SimpleQueue()
        self._submitter = threading.Thread(target=self._run_submitter, name="farcall-submitter", daemon=True)
        self._submitter.start()
        _executors.add(self)

    # --- settings ----------------------------------------------------------------------------

    def _make_header(self) -> Tuple[Dict[str, Any], str]:
        header = _options.header(**self._settings)
        return header, _options.frozen(header)

    def _set(self, name: str, value: Any) -> None:
        before = self._settings[name]
        self._settings[name] = value
        try:
            self._header = self._make_header()
        except Exception:
            self._settings[name] = before
            raise

    # --- functions ---------------------------------------------------------------------------

    def register_function(self, fn: Union[Callable, ShellFunction], function_id: Optional[str] = None, **more: Any) -> str:
        """Registers ahead of the first submit. ``function_id``: it is there already, under this id."""
        if function_id is None:
            function_id = self.client.register_function(fn, strategy=self.code_serializer, **more)
        with self._condition:
            self._functions[(id(fn), self.code_serializer)] = (fn, _Function(function_id=function_id))
        return function_id

    def register_source_code(self, source: str, function_name: str, **more: Any) -> str:
        """As Client.register_source_code(); for submit_to_registered_function()."""
        return self.client.register_source_code(source, function_name, **more)

    def _function(self, fn: Any) -> _Function:
        key = (id(fn), self.code_serializer)
        with self._condition:
            if key in self._functions:
                return self._functions[key][1]
        code = serialize_function(fn, self.code_serializer or self.client.code_serialization_strategy)
        with self._condition:
            # Lambdas made in a loop are one function and go in one submission.
            found = self._by_content.setdefault((code.kind, code.name, code.body), _Function(code))
            self._functions[key] = (fn, found)
            for cache in (self._functions, self._by_content):
                while len(cache) > _FUNCTIONS_MAX:
                    cache.popitem(last=False)
        return found

    # --- submitting --------------------------------------------------------------------------

    def submit(self, fn: Union[Callable, ShellFunction], /, *args: Any, **kwargs: Any) -> TaskFuture:  # type: ignore[override]
        """Calls ``fn(*args, **kwargs)`` on the endpoint. The arguments are read before it returns.
        Raises RuntimeError after shutdown, SerializationError."""
        self._check_usable()
        function = self._function(fn)
        if isinstance(fn, ShellFunction):
            arguments = shell_arguments(fn, args, kwargs)
        else:
            arguments = serialize_arguments(args, kwargs, self.serializer or self.client.data_serialization_strategy)
        return self._enqueue(function, arguments, isinstance(fn, ShellFunction) and fn.return_dict)

    def submit_to_registered_function(
        self, function_id: str, args: Optional[tuple] = None, kwargs: Optional[dict] = None
    ) -> TaskFuture:
        """submit() for a function that the relay has. ``args`` is a tuple, ``kwargs`` a dict."""
        self._check_usable()
        arguments = self.client._arguments(function_id, tuple(args or ()), dict(kwargs or {}))
        return self._enqueue(_Function(function_id=function_id), arguments, False)

    def _check_usable(self) -> None:
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not self.endpoint_id:
            raise InvalidRequest("the executor has no endpoint: Executor(endpoint_id=…) or executor.endpoint_id = …")

    def _enqueue(self, function: _Function, arguments: bytes, return_dict: bool) -> TaskFuture:
        header, frozen = self._header
        future = TaskFuture()
        future._farcall_return_dict = return_dict
        future._farcall_canceller = self._cancel
        endpoint = str(self.endpoint_id)
        key = (id(function) if function.function_id is None else function.function_id, endpoint, frozen)
        with self._condition:
            # Bounds memory when the relay is slower than the program.
            self._condition.wait_for(lambda: self._unsent_bytes < _UNSENT_BYTES_MAX or self._shut_down)
            if self._shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._unsent += 1
            self._unsent_bytes += len(arguments)
            self._open.add(future)
            self._queue.put(_Item(future, function, arguments, endpoint, header, key))
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: concurrent.futures.Future) -> None:
        with self._condition:
            self._open.discard(future)
            self._condition.notify_all()

    def _cancel(self, future: TaskFuture, wait_s: float) -> None:
        self.client._tracker.cancel(future, wait_s)

    def map(  # type: ignore[override]
        self, fn: Callable, *iterables: Iterable, timeout: Optional[float] = None, chunksize: int = 1
    ) -> Iterator[Any]:
        """Like the built-in map(), on the endpoint: results in order, as they come. ``timeout``:
        seconds from now until the last; then TimeoutError. ``chunksize``: calls per task (they need
        cloudpickle or dill); tasks are sent in batches whatever it is. When a call raises, or the
        iterator is closed, what has not run is cancelled."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        deadline = None if timeout is None else time.monotonic() + timeout
        rows = zip(*iterables)
        if chunksize == 1 or isinstance(fn, ShellFunction):
            futures = [self.submit(fn, *row) for row in rows]
        else:
            chunked = _chunked(fn)
            futures = [self.submit(chunked, chunk) for chunk in _chunks(rows, chunksize)]
        return self._in_order(futures, deadline, chunksize > 1 and not isinstance(fn, ShellFunction))

    def _in_order(self, futures: List[TaskFuture], deadline: Optional[float], chunked: bool) -> Iterator[Any]:
        def results() -> Iterator[Any]:
            futures.reverse()
            try:
                while futures:
                    left = None if deadline is None else deadline - time.monotonic()
                    value = futures[-1].result(left)
                    futures.pop()
                    if chunked:
                        yield from value
                    else:
                        yield value
            finally:
                self._cancel_all(futures)

        return results()

    def _cancel_all(self, futures: Iterable[TaskFuture]) -> None:
        """Without waiting, and with one message for all."""
        ids = []
        for future in list(futures):
            if future.done():
                continue
            if not future._farcall_claimed and future.cancel():
                continue
            if future._farcall_durable and future.task_id:
                ids.append(future.task_id)
        if ids:
            self.client.cancel(ids)

    # --- the thread that sends ---------------------------------------------------------------

    def _run_submitter(self) -> None:
        while True:
            item = self._queue.get()
            items = []
            while item is not None:
                items.append(item)
                if len(items) >= self.batch_size:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            groups: Dict[Tuple, List[_Item]] = {}
            for one in items:
                groups.setdefault(one.key, []).append(one)
            for group in groups.values():
                self._post(group)
            if item is None:
                return

    def _post(self, group: List[_Item]) -> None:
        claimed = [item for item in group if item.future._claim()]
        try:
            if claimed:
                self._send(claimed)
        except BaseException as error:
            for item in claimed:
                item.future._finish(error=error)
        finally:
            for item in group:
                if item.future.cancelled():
                    item.future.set_running_or_notify_cancel()
            with self._condition:
                self._unsent -= len(group)
                self._unsent_bytes -= sum(len(item.arguments) for item in group)
                self._condition.notify_all()

    def _send(self, items: List[_Item]) -> None:
        first = items[0]
        endpoint = self.client._native.find_endpoint(first.endpoint)
        function_id = self._function_id(first.function)

        def on_way(submission: str) -> None:
            futures = {index: item.future for index, item in enumerate(items)}
            for index, future in futures.items():
                future.task_id = task_id_of(submission, index)
            self.client._tracker.watch(submission, futures, whole=True)

        self.client._submit(
            function_id, endpoint, first.header, [item.arguments for item in items], on_way, lambda: not self._shut_down
        )
        self.task_count_submitted += len(items)
        for item in items:
            item.future._became_durable()

    def _function_id(self, function: _Function) -> str:
        if function.function_id is None:
            assert function.code is not None
            function.function_id = self.client._register(function.code)
        return function.function_id

    # --- other days --------------------------------------------------------------------------

    def reload_tasks(self, task_group_id: Optional[str] = None) -> List[TaskFuture]:
        """Futures for all tasks of a group, from this process or another, in the order of their
        submission. ``task_group_id``: default this executor's; becomes it."""
        if task_group_id is not None:
            self.task_group_id = task_group_id
        found: List[Dict[str, Any]] = []
        before = None
        while True:
            parameters = {"group": self.task_group_id, "limit": 1000}
            if before is not None:
                parameters["before"] = before
            page = self.client.call("submission.list", **parameters)["submissions"]
            found.extend(page)
            if len(page) < 1000:
                break
            before = page[-1]["submission_id"]
        answer: List[TaskFuture] = []
        for entry in reversed(found):
            answer.extend(self._reload(entry["submission_id"], entry["received"]))
        return answer

    def _reload(self, submission: str, count: int) -> List[TaskFuture]:
        futures = {index: self.client._tracker.new_future(task_id_of(submission, index)) for index in range(count)}
        with self._condition:
            self._open.update(futures.values())
        for future in futures.values():
            future.add_done_callback(self._forget)
        if futures:
            self.client._tracker.watch(submission, futures, whole=False)
        return list(futures.values())

    # --- the end -----------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No submit() after this. ``wait``: until all tasks have finished. ``cancel_futures``: those
        that do not run yet are cancelled, also on the endpoint. May be called again."""
        with self._condition:
            if not self._shut_down:
                self._shut_down = True
                self._queue.put(None)
                self._condition.notify_all()
        if cancel_futures:
            with self._condition:
                futures = [future for future in self._open if not future.running()]
            for future in futures:
                if not future._farcall_claimed:
                    future.cancel()
            self._submitter.join(_EXIT_FLUSH_S)
            self._cancel_all(futures)
        if not wait:
            return
        self._submitter.join()
        with self._condition:
            self._condition.wait_for(lambda: not self._open)
        if self._owns_client:
            self.client.close()

    def _flush_at_exit(self) -> None:
        """What was submitted must reach the relay although nobody waits for it."""
        with self._condition:
            if self._unsent and not self._condition.wait_for(lambda: not self._unsent, _EXIT_FLUSH_S):
                _log.error("farcall: %d tasks could not be handed to the relay", self._unsent)


def _property(name: str, setting: Optional[str] = None, doc: str = "") -> property:
    setting = setting or name
    return property(
        lambda self: self._settings[setting],
        lambda self, value: self._set(setting, value),
        doc=doc + " Applies to the submits that follow.",
    )


for _name, _setting, _doc in (
    ("resource_specification", None, "What a task holds while it runs."),
    ("task_group_id", None, "The group that tasks belong to."),
    ("label", None, "For people."),
    ("priority", None, "Lower runs first."),
    ("walltime_s", None, "Seconds that a task may run."),
    ("retry", "retries", "How often a task is tried again."),
    ("environment", None, "Environment variables of the tasks."),
    ("sandbox", None, "A fresh working directory per attempt."),
):
    setattr(Executor, _name, _property(_name, _setting, _doc))


def _chunks(rows: Iterator[tuple], size: int) -> Iterator[List[tuple]]:
    chunk: List[tuple] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _chunked(fn: Callable) -> Callable:
    """Uses no global name: the worker has no module farcall."""

    def run_chunk(rows):
        return [fn(*row) for row in rows]

    run_chunk.__module__ = getattr(fn, "__module__", "__main__")
    return run_chunk


_executors: "weakref.WeakSet[Executor]" = weakref.WeakSet()


# Registered after client.py's, so it runs before that closes the connections.
@atexit.register
def _flush_all() -> None:
    for executor in list(_executors):
        executor._flush_at_exit()


__all__ = ["Executor"]
