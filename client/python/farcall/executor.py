"""``Executor``: a concurrent.futures.Executor whose workers are on a supercomputer."""

import atexit
import concurrent.futures
import copy
import logging
import threading
import time
import types
import uuid
import weakref
from collections import OrderedDict
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from . import options as _options
from .client import Client
from .errors import InvalidRequest
from .files import has_files
from .functions import NativeFunction, ShellFunction
from .results import READ_ALL, Reading, TaskFuture, task_id_of
from .sending import Function, Item, Sender, cancel_all, chunked, chunks
from .serialization import serialize_function
from .serialize import choose

_log = logging.getLogger("farcall")

_FUNCTIONS_MAX = 1024  # remembered
_EXIT_FLUSH_S = 30.0


class Executor(concurrent.futures.Executor):
    """Runs calls on an endpoint.

        with Executor("mycluster") as executor:
            print(executor.submit(pow, 2, 10).result())

    ``endpoint_id``: name or id. ``client``: default a new Client(). ``task_group_id``: default a new
    one; ``reload_tasks()`` finds the tasks of a group again. ``resource_specification``,
    ``walltime_s``, ``priority``, ``retry``, ``environment``, ``sandbox``, ``working_directory``, ``outputs``: as
    Client.create_batch(). ``result``: "reference": large results stay where they are, futures give a
    RemoteResult. ``output_directory``: the files that ``outputs`` names come into a folder in it,
    called as the task, before its future is done; None: they stay at the endpoint.
    ``batch_size``: at most so many tasks in one submission. ``serializer``: how functions and values
    travel, a ComputeSerializer, a strategy or a word ("pickle", "cloudpickle", "dill", "json");
    ``code_serializer``: how functions do ("cloudpickle", "dill", "source", "module");
    ``result_serializers``: how results do, the first of the list that works. All can be set between
    submits; a task has the values of the moment of its submit(). ``user_endpoint_config``,
    ``amqp_port``, ``api_burst_limit`` and ``api_burst_window_s`` are taken for scripts written for
    Globus Compute and change nothing (the first warns when it is used).

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
        user_endpoint_config: Optional[Mapping[str, Any]] = None,
        label: str = "",
        batch_size: int = 128,
        amqp_port: Optional[int] = None,
        api_burst_limit: int = 4,
        api_burst_window_s: int = 16,
        serializer: Any = None,
        result_serializers: Optional[Sequence[Any]] = None,
        *,
        walltime_s: Optional[float] = None,
        priority: int = 0,
        retry: _options.Retry = None,
        environment: Optional[Mapping[str, str]] = None,
        sandbox: bool = False,
        working_directory: Optional[str] = None,
        code_serializer: Optional[str] = None,
        result: Optional[str] = None,
        outputs: Sequence[str] = (),
        output_directory: Optional[str] = None,
    ):
        if result not in (None, "reference"):
            raise InvalidRequest('result must be None or "reference", got %r' % (result,))
        self.result = result
        self.output_directory = output_directory
        self._settings: Dict[str, Any] = {
            "resource_specification": resource_specification,
            "task_group_id": str(task_group_id or uuid.uuid4()),
            "label": label,
            "priority": priority,
            "walltime_s": walltime_s,
            "retries": retry,
            "environment": environment,
            "sandbox": sandbox,
            "working_directory": working_directory,
            "result_serializers": result_serializers,
            "user_endpoint_config": user_endpoint_config,
            "outputs": outputs,
        }
        self._header: Tuple[Dict[str, Any], str] = ({}, "")
        self._header_of: Dict[str, Any] = {}
        self._make_header()
        self.endpoint_id = str(endpoint_id) if endpoint_id else None
        self.batch_size = batch_size
        self.serializer = serializer
        self.code_serializer = code_serializer
        self.amqp_port = amqp_port
        self.client = client if client is not None else Client()
        # By id(), of functions that live: a reference that dies takes its entry along.
        self._functions: Dict[Tuple[int, Optional[str]], Tuple[weakref.ref, Function]] = {}
        self._by_content: "OrderedDict[Tuple[str, str, bytes], Function]" = OrderedDict()
        self._lock = threading.RLock()  # a weak reference may die while it is held
        self._shut_down = False
        self._sender = Sender(self.client, client is None)
        weakref.finalize(self, self._sender.end).atexit = False
        _senders.add(self._sender)

    # --- settings ----------------------------------------------------------------------------

    def _make_header(self) -> Tuple[Dict[str, Any], str]:
        """The header that a submit() of this moment has. Dicts that were changed in place count."""
        if self._settings != self._header_of:
            header = _options.header(**self._settings)
            self._header = header, _options.frozen(header)
            self._header_of = copy.deepcopy(self._settings)
        return self._header

    def _set(self, name: str, value: Any) -> None:
        before = self._settings[name]
        self._settings[name] = value
        try:
            self._make_header()
        except Exception:
            self._settings[name] = before
            raise

    @property
    def batch_size(self) -> int:
        """At most so many tasks go in one submission."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidRequest("batch_size must be a whole number, at least 1, got %r" % (value,))
        self._batch_size = value

    @property
    def serializer(self) -> Any:
        """How functions and values travel; applies to the submits that follow."""
        return self._serializer

    @serializer.setter
    def serializer(self, value: Any) -> None:
        self._chosen = choose(value)
        self._serializer = value

    @property
    def task_count_submitted(self) -> int:
        """Tasks that the relay has acknowledged."""
        return self._sender.count_submitted

    def get_worker_hardware_details(self, timeout: Optional[float] = None) -> Dict[str, str]:
        """What a worker of this endpoint says of its node, text by command. Waits for it; raises
        TaskPending after ``timeout`` seconds, and what the task may end with."""
        self._check_usable()
        return self.client.get_result(self.client.get_worker_hardware_details(self.endpoint_id), timeout=timeout)

    # --- functions ---------------------------------------------------------------------------

    def _code_word(self) -> Optional[str]:
        return self.code_serializer or self._chosen.code or self.client.code_serialization_strategy

    def register_function(self, fn: Union[Callable, ShellFunction], function_id: Optional[str] = None, **more: Any) -> str:
        """Registers ahead of the first submit. ``function_id``: it is there already, under this id.
        ``more``: as Client.register_function()."""
        if function_id is None:
            function_id = self.client.register_function(fn, strategy=self._code_word(), **more)
        self._remember(fn, Function(function_id=function_id))
        return function_id

    def register_source_code(self, source: str, function_name: str, **more: Any) -> str:
        """As Client.register_source_code(); for submit_to_registered_function()."""
        return self.client.register_source_code(source, function_name, **more)

    def _remember(self, fn: Any, function: Function) -> None:
        key = (id(fn), self._code_word())

        def dead(_reference: Any, functions: Any = self._functions, key: Any = key) -> None:
            functions.pop(key, None)

        try:
            # A bound method lives no longer than the expression that made it.
            reference = weakref.ref(fn, dead) if not isinstance(fn, types.MethodType) else None
        except TypeError:
            reference = None
        if reference is not None:
            self._functions[key] = reference, function

    def _function(self, fn: Any) -> Function:
        found = self._functions.get((id(fn), self._code_word()))
        if found is not None and found[0]() is fn:
            return found[1]
        code = serialize_function(fn, self._code_word())
        with self._lock:
            # Lambdas made in a loop are one function and go in one submission.
            function = self._by_content.setdefault((code.kind, code.name, code.body), Function(code))
            while len(self._by_content) > _FUNCTIONS_MAX:
                self._by_content.popitem(last=False)
        self._remember(fn, function)
        return function

    # --- submitting --------------------------------------------------------------------------

    def submit(self, fn: Union[Callable, ShellFunction], /, *args: Any, **kwargs: Any) -> TaskFuture:  # type: ignore[override]
        """Calls ``fn(*args, **kwargs)`` on the endpoint. The arguments are read before it returns.
        Raises RuntimeError after shutdown, SerializationError."""
        self._check_usable()
        function = self._function(fn)
        if isinstance(fn, ShellFunction):
            return self._enqueue(function, self.client._shell_arguments(fn, args, kwargs), fn.return_dict, has_files(args, kwargs))
        if isinstance(fn, NativeFunction):
            return self._enqueue(function, self.client._native_arguments(fn.name, args, kwargs))
        word = self._chosen.data or self.client.data_serialization_strategy
        return self._enqueue(function, self.client._serialized(args, kwargs, word), False, has_files(args, kwargs))

    def submit_to_registered_function(
        self, function_id: str, args: Optional[tuple] = None, kwargs: Optional[dict] = None
    ) -> TaskFuture:
        """submit() for a function that the relay has. ``args`` is a tuple, ``kwargs`` a dict."""
        self._check_usable()
        function_id = str(function_id)
        arguments = self.client._arguments(function_id, tuple(args or ()), dict(kwargs or {}), self._chosen.data)
        shell = self.client._shell_function(function_id)
        with_files = has_files(tuple(args or ()), dict(kwargs or {}))
        return self._enqueue(Function(function_id=function_id), arguments, shell is not None and shell.return_dict, with_files)

    def _check_usable(self) -> None:
        if _interpreter_ends:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not self.endpoint_id:
            raise InvalidRequest("the executor has no endpoint: Executor(endpoint_id=…) or executor.endpoint_id = …")

    def _enqueue(self, function: Function, arguments: bytes, return_dict: bool = False, with_files: bool = False) -> TaskFuture:
        header, frozen = self._make_header()
        if with_files:  # they lie in its directory
            header, frozen = dict(header, sandbox=True), frozen + " sandbox"
        future = TaskFuture()
        allowed = self._chosen.allowed or self.client._chosen.allowed
        plain = allowed is None and not return_dict and not self.result and not self.output_directory
        future._farcall_reading = READ_ALL if plain else Reading(return_dict, allowed, bool(self.result), self.output_directory)
        future._farcall_canceller = self.client._tracker.cancel
        endpoint = str(self.endpoint_id)
        key = (id(function) if function.function_id is None else function.function_id, endpoint, frozen)
        self._sender.put(Item(future, function, arguments, endpoint, header, key, self._batch_size))
        return future

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
        whole = chunksize == 1 or isinstance(fn, (NativeFunction, ShellFunction))
        if whole:
            futures = [self.submit(fn, *row) for row in rows]
        else:
            in_chunks = chunked(fn)
            futures = [self.submit(in_chunks, chunk) for chunk in chunks(rows, chunksize)]
        return _in_order(self.client, futures, deadline, not whole)

    # --- other days --------------------------------------------------------------------------

    def reload_tasks(self, task_group_id: Optional[str] = None) -> List[TaskFuture]:
        """Futures for all tasks of a group, from this process or another, in the order of their
        submission. ``task_group_id``: default this executor's; becomes it."""
        if task_group_id is not None:
            self.task_group_id = str(task_group_id)
        answer: List[TaskFuture] = []
        for entry in reversed(list(self.client.submissions(group=self.task_group_id))):
            answer.extend(self._reload(entry["submission_id"], entry["received"], entry["function_id"]))
        return answer

    def _reload(self, submission: str, count: int, function_id: str) -> List[TaskFuture]:
        tracker = self.client._tracker
        futures = {index: tracker.new_future(task_id_of(submission, index)) for index in range(count)}
        shell = self.client._shell_function(function_id)
        allowed = self._chosen.allowed or self.client._chosen.allowed
        for future in futures.values():
            future._farcall_reading = Reading(shell is not None and shell.return_dict, allowed)
        self._sender.follow(list(futures.values()))
        if futures:
            tracker.watch(submission, futures, whole=False)
        return list(futures.values())

    # --- the end -----------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No submit() after this. ``wait``: until all tasks have finished. ``cancel_futures``: those
        that do not run yet are cancelled, also on the endpoint. May be called again."""
        self._shut_down = True
        sender = self._sender
        sender.end()
        if cancel_futures:
            with sender.condition:
                futures = list(sender.open)
            for future in futures:
                if not future._farcall_claimed:
                    future.cancel()
            sender.wait_sent(_EXIT_FLUSH_S)
            cancel_all(self.client, futures)
        if wait:
            sender.wait_open()
            if threading.current_thread() is not sender.thread:
                sender.thread.join()


def _in_order(client: Client, futures: List[TaskFuture], deadline: Optional[float], in_chunks: bool) -> Iterator[Any]:
    """Keeps nothing of what it has yielded."""
    futures.reverse()
    try:
        while futures:
            futures[-1].exception(None if deadline is None else deadline - time.monotonic())
            if in_chunks:
                values = futures.pop().result()
                values.reverse()
                while values:
                    yield values.pop()
            else:
                yield futures.pop().result()
    finally:
        cancel_all(client, futures)


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
    ("working_directory", None, "Where the tasks run."),
    ("result_serializers", None, "How results travel: the first of the list that works."),
    ("outputs", None, "Patterns of files that are kept of what a task leaves in its directory."),
    ("user_endpoint_config", None, "Taken for Globus Compute's scripts, and not used."),
):
    setattr(Executor, _name, _property(_name, _setting, _doc))


_senders: "weakref.WeakSet[Sender]" = weakref.WeakSet()
_interpreter_ends = False


# Registered after client.py's, so it runs before that closes the connections.
@atexit.register
def _flush_all() -> None:
    """What was submitted must reach the relay although nobody waits for it."""
    global _interpreter_ends
    _interpreter_ends = True
    for sender in list(_senders):
        left = sender.wait_sent(_EXIT_FLUSH_S)
        if left:
            _log.error("farcall: %d tasks could not be handed to the relay", left)


__all__ = ["Executor"]
