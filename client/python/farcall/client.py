"""One task at a time, or in batches, with ids that outlive the process: ``Client``."""

import atexit
import concurrent.futures
import json
import logging
import threading
import uuid
import weakref
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple, Union

from . import options as _options
from ._farcall import Client as _NativeClient
from .errors import FarcallError, InvalidRequest, RelayTimeout, TaskCancelled, TaskPending, Unreachable
from .functions import ShellFunction
from .results import TaskFuture, Tracker, task_id_of
from .serialization import Code, serialize_arguments, serialize_function, shell_arguments, source_code

_log = logging.getLogger("farcall")

_FINAL = ("succeeded", "failed", "cancelled")
#: Names of Globus Compute for the states.
_STATUS = {"succeeded": "success", "failed": "failed", "cancelled": "cancelled"}


class Batch:
    """Tasks that go to the relay together. ``len()`` says how many."""

    def __init__(self, client: "Client", header: Mapping[str, Any]):
        self._client = client
        self.header = dict(header)
        self.tasks: List[Tuple[str, bytes]] = []

    def add(self, function_id: str, args: Optional[Sequence] = None, kwargs: Optional[Mapping[str, Any]] = None) -> None:
        """One more task. Raises TypeError, SerializationError."""
        args = () if args is None else args
        kwargs = {} if kwargs is None else kwargs
        if not isinstance(args, (tuple, list)):
            raise TypeError("args: expected tuple, got: %s" % type(args).__name__)
        if not isinstance(kwargs, Mapping):
            raise TypeError("kwargs: expected dict, got: %s" % type(kwargs).__name__)
        self.tasks.append((function_id, self._client._arguments(function_id, tuple(args), dict(kwargs))))

    def __len__(self) -> int:
        return len(self.tasks)


class Client:
    """A user at a relay. Thread-safe.

    ``home``: directory with the identity (default ``$FARCALL_HOME`` or ``~/.farcall``); ``relay``:
    another address than the identity's; ``timeout_s``: seconds for connecting and for each
    request. ``code_serialization_strategy`` and ``data_serialization_strategy``: see
    ``serialize_function`` and ``serialize_arguments``; None chooses by itself.

    Connects at once: raises NotFound (no identity; the text says how to get one), Unreachable,
    Denied. A connection that is lost later is made again by itself.
    """

    def __init__(
        self,
        home: Optional[str] = None,
        *,
        identity: Optional[str] = None,
        relay: Optional[str] = None,
        invitation: Optional[str] = None,
        timeout_s: float = 30.0,
        code_serialization_strategy: Optional[str] = None,
        data_serialization_strategy: Optional[str] = None,
    ):
        self._native = _NativeClient(home or "", identity or "", relay or "", invitation or "", timeout_s)
        self._timeout_s = timeout_s
        self.code_serialization_strategy = code_serialization_strategy
        self.data_serialization_strategy = data_serialization_strategy
        self._lock = threading.Lock()
        self._tracker_or_none: Optional[Tracker] = None
        self._shell: Dict[str, Optional[ShellFunction]] = {}  # by function id; None: not a shell function
        self._return_dict: Set[str] = set()  # submissions
        self._closed = False
        _clients.add(self)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_details: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. Tasks go on; futures that are not done get an exception."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            tracker = self._tracker_or_none
        if tracker is not None:
            tracker.stop()
        self._native.close()
        if tracker is not None:
            tracker.join()
            tracker.fail_all(FarcallError("the client was closed before the result came; the task goes on", "unreachable"))

    @property
    def user(self) -> str:
        """Our name at the relay."""
        return self._native.relay()["user"]

    def relay_info(self) -> Dict[str, Any]:
        """Address, software, user, generation, inline_bytes_max (largest argument set and result)."""
        return self._native.relay()

    def call(self, method: str, **parameters: Any) -> Dict[str, Any]:
        """A method of docs/protocol.md, for what has no function of its own."""
        return json.loads(self._native.call(method, json.dumps(parameters))[0])

    # --- functions ---------------------------------------------------------------------------

    def register_function(
        self,
        function: Union[Callable, ShellFunction],
        description: Optional[str] = None,
        metadata: Optional[Mapping[str, Any]] = None,
        *,
        strategy: Optional[str] = None,
    ) -> str:
        """Sends a function to the relay and returns its id. The same code always has the same id,
        so registering again costs little. Raises SerializationError, FarcallError."""
        code = serialize_function(function, strategy or self.code_serialization_strategy, description)
        return self._register(code, metadata, function)

    def register_source_code(
        self,
        source: str,
        function_name: str,
        description: Optional[str] = None,
        metadata: Optional[Mapping[str, Any]] = None,
    ) -> str:
        """Registers ``function_name`` of a whole module given as text: imports, constants and
        helpers at its top level work. Raises SerializationError."""
        return self._register(source_code(source, function_name, description), metadata)

    def _register(self, code: Code, metadata: Optional[Mapping[str, Any]] = None, function: Any = None) -> str:
        meta = dict(code.meta)
        if metadata:
            meta["metadata"] = dict(metadata)
        function_id = self._native.register_function(code.kind, code.name, json.dumps(meta), code.body)
        shell = function if isinstance(function, ShellFunction) else ShellFunction("true")
        self._shell[function_id] = shell if code.kind == "shell" else None
        return function_id

    def get_function(self, function_id: str) -> Dict[str, Any]:
        """Name, kind, meta of a registered function."""
        answer = self.call("function.show", function=function_id)
        functions = answer.get("functions")
        return functions[0] if functions else answer

    def delete_function(self, function_id: str) -> None:
        self.call("function.delete", function=function_id)

    def functions(self) -> List[Dict[str, Any]]:
        """All functions of this user."""
        return self.call("function.list")["functions"]

    # --- running -----------------------------------------------------------------------------

    def run(self, *args: Any, endpoint_id: str, function_id: str, **kwargs: Any) -> str:
        """Submits one task and returns its id when the relay has it safe. ``endpoint_id`` may be
        a name."""
        batch = self.create_batch()
        batch.add(function_id, args, kwargs)
        return self.batch_run(endpoint_id, batch)["tasks"][function_id][0]

    def create_batch(
        self,
        task_group_id: Optional[str] = None,
        resource_specification: Optional[Mapping[str, Any]] = None,
        *,
        label: str = "",
        priority: int = 0,
        walltime_s: Optional[float] = None,
        retry: _options.Retry = None,
        environment: Optional[Mapping[str, str]] = None,
        sandbox: bool = False,
    ) -> Batch:
        """An empty batch. ``resource_specification``: ``farcall.RESOURCE_KEYS`` lists the keys;
        ``walltime_s``: seconds for each task; ``retry``: None (the defaults), "never", a number of
        retries after errors of the function, or numbers by failure class; ``priority``: lower runs
        first; ``sandbox``: a fresh working directory per attempt. Raises InvalidRequest."""
        return Batch(
            self,
            _options.header(
                resource_specification, task_group_id or str(uuid.uuid4()), label, priority, walltime_s, retry, environment, sandbox
            ),
        )

    def batch_run(self, endpoint_id: str, batch: Batch) -> Dict[str, Any]:
        """Submits all tasks of a batch; returns when they are safe at the relay:
        ``{"tasks": {function id: [task id, …]}, "request_id", "task_group_id", "endpoint_id"}``."""
        if not batch.tasks:
            raise InvalidRequest("the batch is empty: add() tasks first")
        endpoint = self._native.find_endpoint(endpoint_id)
        by_function: Dict[str, List[bytes]] = {}
        for function_id, arguments in batch.tasks:
            by_function.setdefault(function_id, []).append(arguments)
        tasks = {}
        for function_id, sets in by_function.items():
            submission = self._submit(function_id, endpoint, batch.header, sets)
            tasks[function_id] = [task_id_of(submission, index) for index in range(len(sets))]
        return {
            "tasks": tasks,
            "request_id": str(uuid.uuid4()),
            "task_group_id": batch.header["group"],
            "endpoint_id": endpoint,
        }

    def _submit(
        self,
        function_id: str,
        endpoint: str,
        header: Mapping[str, Any],
        sets: List[bytes],
        on_way: Optional[Callable[[str], None]] = None,
        keep_trying: Callable[[], bool] = lambda: False,
    ) -> str:
        """Sends a submission and returns its id when it is durable. ``on_way`` gets the id as soon
        as it can be watched. While the relay does not answer: raises, unless ``keep_trying()``."""
        writer = self._native.open_submission(dict(header, function=function_id, endpoint=endpoint))
        submission = writer.id
        self._patiently(keep_trying, lambda: writer.add(sets, writer.added))
        writer.seal()
        shell = self._shell.get(function_id)
        if shell is not None and shell.return_dict:
            self._return_dict.add(submission)
        if on_way is not None:
            on_way(submission)
        self._patiently(keep_trying, lambda: writer.wait_durable(self._timeout_s))
        return submission

    @staticmethod
    def _patiently(keep_trying: Callable[[], bool], action: Callable[[], None]) -> None:
        while True:
            try:
                action()
                return
            except (RelayTimeout, Unreachable) as error:
                if not keep_trying():
                    raise
                _log.warning("farcall: still waiting for the relay: %s", error)

    def _arguments(self, function_id: str, args: Tuple, kwargs: Dict[str, Any]) -> bytes:
        if function_id not in self._shell:
            shell = self.get_function(function_id).get("kind") == "shell"
            self._shell[function_id] = ShellFunction("true") if shell else None
        function = self._shell[function_id]
        if function is not None:
            return shell_arguments(function, args, kwargs)
        return serialize_arguments(args, kwargs, self.data_serialization_strategy)

    # --- results -----------------------------------------------------------------------------

    @property
    def _tracker(self) -> Tracker:
        with self._lock:
            if self._tracker_or_none is None:
                self._tracker_or_none = Tracker(self._native)
            return self._tracker_or_none

    def future(self, task_id: str) -> TaskFuture:
        """A future for a task, whoever submitted it and when. Nothing is taken away by it."""
        future = self._tracker.future(task_id)
        future._farcall_return_dict = task_id[:-8] + "00000000" in self._return_dict
        return future

    def task_status(self, task_id: str) -> Dict[str, Any]:
        """State, attempt, failure, host and times of a task, without its value."""
        return self.call("task.status", task=task_id)

    def get_task(self, task_id: str) -> Dict[str, Any]:
        """``{"pending", "status", "details"}`` and, when it succeeded, ``"result"``. Raises what
        the task raised, or a TaskExecutionFailed."""
        details = self.task_status(task_id)
        state = details["state"]
        answer = {"pending": state not in _FINAL, "status": _STATUS.get(state, state), "details": details}
        if not answer["pending"]:
            answer["result"] = self._result(task_id, self._timeout_s)
            answer["completion_t"] = details.get("ended_ms")
        return answer

    def get_result(self, task_id: str, timeout: Optional[float] = 0.0) -> Any:
        """The value of a task. ``timeout``: seconds to wait for it; 0: do not wait; None: for ever.
        Raises TaskPending when it is not there in time, what the task raised, TaskExecutionFailed,
        TaskCancelled."""
        if timeout == 0:
            state = self.task_status(task_id)["state"]
            if state not in _FINAL:
                raise TaskPending(task_id, state)
            timeout = self._timeout_s
        try:
            return self._result(task_id, timeout)
        except concurrent.futures.TimeoutError:
            if not self.future(task_id).done():
                raise TaskPending(task_id, self.task_status(task_id)["state"]) from None
            raise

    def _result(self, task_id: str, timeout: Optional[float]) -> Any:
        future = self.future(task_id)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            if future.cancelled():
                raise TaskCancelled("task %s was cancelled" % task_id, task_id=task_id) from None
            raise

    def get_batch_result(self, task_id_list: Iterable[str]) -> Dict[str, Dict[str, Any]]:
        """For each task as get_task(), but with ``"exception"`` instead of raising."""
        answer: Dict[str, Dict[str, Any]] = {}
        for task_id in task_id_list:
            details = self.task_status(task_id)
            state = details["state"]
            answer[task_id] = {"pending": state not in _FINAL, "status": _STATUS.get(state, state), "details": details}
        ready = {task_id: self.future(task_id) for task_id, entry in answer.items() if not entry["pending"]}
        for task_id, future in ready.items():
            try:
                answer[task_id]["result"] = future.result(self._timeout_s)
            except concurrent.futures.CancelledError as error:
                answer[task_id]["exception"] = TaskCancelled("task %s was cancelled" % task_id, task_id=task_id)
                answer[task_id]["exception"].__cause__ = error
            except Exception as error:
                answer[task_id]["exception"] = error
        return answer

    def wait(
        self,
        task_ids: Iterable[str],
        timeout: Optional[float] = None,
        return_when: str = concurrent.futures.ALL_COMPLETED,
    ) -> Tuple[List[str], List[str]]:
        """Waits for tasks at most ``timeout`` seconds; (finished, not finished), in order."""
        futures = {task_id: self.future(task_id) for task_id in task_ids}
        done, _open = concurrent.futures.wait(futures.values(), timeout, return_when)
        finished = [task_id for task_id, future in futures.items() if future in done]
        return finished, [task_id for task_id in futures if futures[task_id] not in done]

    def cancel(self, tasks: Union[str, Iterable[str]], force: bool = False) -> Dict[str, int]:
        """Cancels tasks: how many were ``cancelled`` at once, are ``requested`` to end at their
        endpoint, or had ``finished``. ``force``: also when the endpoint is away."""
        ids = [tasks] if isinstance(tasks, str) else list(tasks)
        return dict(zip(("cancelled", "requested", "finished"), self._native.cancel(ids, force)))

    def cancel_group(self, task_group_id: str, force: bool = False) -> Dict[str, int]:
        """Cancels every unfinished task of a group; counts as cancel() gives them."""
        return dict(zip(("cancelled", "requested", "finished"), self._native.cancel_group(task_group_id, force)))

    # --- endpoints ---------------------------------------------------------------------------

    def endpoints(self) -> List[Dict[str, Any]]:
        """This user's endpoints: name, endpoint_id, online, last_seen_ms, host, status."""
        return self.call("endpoint.list")["endpoints"]

    get_endpoints = endpoints

    def get_endpoint_status(self, endpoint: str) -> Dict[str, Any]:
        """One of the above, by name or id."""
        return self.call("endpoint.status", endpoint=endpoint)

    def explain(self, task_id: str) -> List[str]:
        """Why a task is where it is."""
        return self.call("task.explain", task=task_id)["lines"]


_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A native thread must not outlive the interpreter that it calls into.
    for client in list(_clients):
        client.close()
