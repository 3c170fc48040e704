"""One task at a time, or in batches, with ids that outlive the process: ``Client``."""

import atexit
import concurrent.futures
import json
import logging
import platform
import threading
import uuid
import warnings
import weakref
import zlib
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple, Union

from . import options as _options
from ._farcall import Client as _NativeClient
from .errors import FarcallError, InvalidRequest, RelayTimeout, TaskCancelled, TaskPending, Unreachable, from_code
from .files import FileStore, has_files
from .functions import ShellFunction
from .remote import RemoteResult
from .results import Reading, TaskFuture, Tracker, split_task_id, task_id_of
from .serialization import (
    CLIENT_PYTHON,
    Code,
    native_arguments,
    serialize_function,
    shell_arguments,
    shell_function,
    source_code,
    value_parts,
)
from .serialize import ComputeSerializer, Strategy, choose, strategy_word
from .stored import INLINE_BYTES_MAX, StoredValue, arguments_with_blobs, pack, place_file

_log = logging.getLogger("farcall")

_FINAL = ("succeeded", "failed", "cancelled")
#: Names of Globus Compute for the states.
_STATUS = {"succeeded": "success", "failed": "failed", "cancelled": "cancelled"}


class Batch:
    """Tasks that go to the relay together. ``len()`` says how many.

    ``request_id``: makes batch_run() safe to repeat. Write it down, and after a crash or a lost
    answer make the batch again with the same id and the same tasks: what is there already is not
    run twice. The same id with other tasks is refused.
    """

    def __init__(self, client: "Client", header: Mapping[str, Any], request_id: str):
        self._client = client
        self.header = dict(header)
        self.request_id = request_id
        self.tasks: List[Tuple[str, bytes]] = []

    def add(self, function_id: str, args: Optional[Sequence] = None, kwargs: Optional[Mapping[str, Any]] = None) -> None:
        """One more task. Raises TypeError, SerializationError."""
        args = () if args is None else args
        kwargs = {} if kwargs is None else kwargs
        if not isinstance(args, (tuple, list)):
            raise TypeError("args: expected tuple, got: %s" % type(args).__name__)
        if not isinstance(kwargs, Mapping):
            raise TypeError("kwargs: expected dict, got: %s" % type(kwargs).__name__)
        function_id = str(function_id)
        if has_files(tuple(args), dict(kwargs)):
            self.header["sandbox"] = True
        self.tasks.append((function_id, self._client._arguments(function_id, tuple(args), dict(kwargs))))

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return bool(self.tasks)

    def submission_of(self, function_id: str) -> str:
        """The id of the submission that this batch makes for a function."""
        number = uuid.UUID(self.request_id).int ^ (zlib.crc32(function_id.encode("ascii")) << 32)
        return str(uuid.UUID(int=number))


class Client:
    """A user at a relay. Thread-safe.

    ``home``: directory with the identity (default ``$FARCALL_HOME`` or ``~/.farcall``); ``relay``:
    another address than the identity's; ``timeout_s``: seconds for connecting and for each
    request. ``code_serialization_strategy`` and ``data_serialization_strategy``: how functions and
    values travel (``farcall.serialize``); None chooses by itself; ``inline_bytes_max``: arguments
    and functions above it are blobs, which travel once however many tasks have them. What Globus Compute's Client takes
    besides (``environment``, ``local_compute_services``, ``do_version_check``, ``app``,
    ``authorizer``) is accepted and has no meaning here.

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
        code_serialization_strategy: Strategy = None,
        data_serialization_strategy: Strategy = None,
        serializer: Optional[ComputeSerializer] = None,
        environment: Optional[str] = None,
        local_compute_services: bool = False,
        do_version_check: bool = True,
        app: Any = None,
        authorizer: Any = None,
        inline_bytes_max: int = INLINE_BYTES_MAX,
        **unknown: Any,
    ):
        if unknown:  # as Globus Compute's Client
            warnings.warn("Client() does not know %s: ignored" % ", ".join(sorted(unknown)), UserWarning, stacklevel=2)
        self.inline_bytes_max = inline_bytes_max
        self._chosen = choose(serializer)
        self.code_serialization_strategy = strategy_word(code_serialization_strategy, True) or self._chosen.code
        self.data_serialization_strategy = strategy_word(data_serialization_strategy, False) or self._chosen.data
        self._native = _NativeClient(home or "", identity or "", relay or "", invitation or "", timeout_s)
        self._files = FileStore(self._native)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._tracker_or_none: Optional[Tracker] = None
        self._shell: Dict[str, Optional[ShellFunction]] = {}  # by function id; None: not a shell function
        self._return_dict: Set[str] = set()  # submissions of our own
        self._native_names: Dict[str, str] = {}  # by function id
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
        public: bool = False,
        group: Optional[str] = None,
        ha_endpoint_id: Optional[str] = None,
        *,
        strategy: Strategy = None,
    ) -> str:
        """Sends a function to the relay and returns its id. The same code always has the same id,
        so registering again costs little. Functions are their owner's alone: ``public``, ``group``
        and ``ha_endpoint_id`` are taken for Globus Compute's scripts, and the first two warn.
        Raises SerializationError, FarcallError."""
        _warn_private(public, group)
        word = strategy_word(strategy, True) or self.code_serialization_strategy
        code = serialize_function(function, word, description)
        return self._register(code, metadata, function)

    def register_source_code(
        self,
        source: str,
        function_name: str,
        description: Optional[str] = None,
        metadata: Optional[Mapping[str, Any]] = None,
        public: bool = False,
        group: Optional[str] = None,
        ha_endpoint_id: Optional[str] = None,
    ) -> str:
        """Registers ``function_name`` of a whole module given as text: imports, constants and
        helpers at its top level work. Raises SerializationError."""
        _warn_private(public, group)
        return self._register(source_code(source, function_name, description), metadata)

    def _register(self, code: Code, metadata: Optional[Mapping[str, Any]] = None, function: Any = None) -> str:
        meta = dict(code.meta)
        if metadata:
            meta["metadata"] = dict(metadata)
        body = code.body
        if code.kind == "python-pickle" and len(body) > self.inline_bytes_max:
            body = pack([self._store([body])], [[0, None]], b"")
        function_id = self._native.register_function(code.kind, code.name, json.dumps(meta), body)
        if "native" in (code.kind, code.meta.get("code")):
            self._native_names[function_id] = code.name
        if code.kind not in ("shell", "mpi-program"):
            self._shell[function_id] = None
        elif isinstance(function, ShellFunction):
            self._shell[function_id] = function
        else:
            self._shell[function_id] = shell_function(code.name, code.body)
        return function_id

    def _shell_function(self, function_id: str) -> Optional[ShellFunction]:
        """The shell function of this id; None when it is of another kind."""
        if function_id not in self._shell:
            text, payload = self._native.call("function.show", json.dumps({"function": function_id}))
            record = json.loads(text)["functions"][0]
            shell = record.get("kind") in ("shell", "mpi-program")
            if "native" in (record.get("kind"), (record.get("meta") or {}).get("code")):
                self._native_names[function_id] = record.get("name", "function")
            self._shell[function_id] = shell_function(record.get("name", ""), payload[0] if payload else b"{}") if shell else None
        return self._shell[function_id]

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
        user_endpoint_config: Optional[Mapping[str, Any]] = None,
        create_websocket_queue: bool = False,
        result_serializers: Optional[Sequence[Strategy]] = None,
        *,
        label: str = "",
        priority: int = 0,
        walltime_s: Optional[float] = None,
        retry: _options.Retry = None,
        environment: Optional[Mapping[str, str]] = None,
        sandbox: bool = False,
        working_directory: Optional[str] = None,
        outputs: Sequence[str] = (),
        request_id: Optional[str] = None,
    ) -> Batch:
        """An empty batch. ``resource_specification``: ``farcall.RESOURCE_KEYS`` lists the keys;
        ``walltime_s``: seconds for each task; ``retry``: None (the defaults), "never", a number of
        retries after errors of the function, or numbers by failure class; ``priority``: lower runs
        first; ``sandbox``: a fresh working directory per attempt; ``working_directory``: one that
        exists there, or within the sandbox if it is relative; ``outputs``: names or patterns
        ("*.h5", "run/**") of files that a task leaves in its directory, a fresh one then, and that
        ``future.outputs`` names; ``request_id``: of an earlier batch that is to be sent again. Raises InvalidRequest."""
        header = _options.header(
            resource_specification,
            str(task_group_id or uuid.uuid4()),
            label,
            priority,
            walltime_s,
            retry,
            environment,
            sandbox,
            result_serializers,
            user_endpoint_config,
            working_directory,
            outputs,
        )
        return Batch(self, header, _request_id(request_id) or self._native.new_submission_id())

    def batch_run(self, endpoint_id: str, batch: Batch) -> Dict[str, Any]:
        """Submits all tasks of a batch; returns when they are safe at the relay:
        ``{"tasks": {function id: [task id, …]}, "request_id", "task_group_id", "endpoint_id"}``.
        Running the same batch again is harmless and returns the same ids."""
        if not batch.tasks:
            raise InvalidRequest("the batch is empty: add() tasks first")
        endpoint = self._native.find_endpoint(str(endpoint_id))
        by_function: Dict[str, List[bytes]] = {}
        for function_id, arguments in batch.tasks:
            by_function.setdefault(function_id, []).append(arguments)
        tasks = {}
        for function_id, sets in by_function.items():
            submission = batch.submission_of(function_id)
            # The time that its id begins with: a header that is sent again has to be the same.
            header = dict(batch.header, submission=submission, created_ms=uuid.UUID(submission).int >> 80)
            writer = self._open(function_id, endpoint, header, sets)
            writer.wait_durable(self._timeout_s)
            tasks[function_id] = [task_id_of(writer.id, index) for index in range(len(sets))]
        return {
            "tasks": tasks,
            "request_id": batch.request_id,
            "task_group_id": batch.header["group"],
            "endpoint_id": endpoint,
        }

    def _open(
        self,
        function_id: str,
        endpoint: str,
        header: Mapping[str, Any],
        sets: List[bytes],
        on_way: Optional[Callable[[str], None]] = None,
        keep_trying: Callable[[], bool] = lambda: False,
    ) -> Any:
        """Puts a submission on its way; wait_durable() waits until it is safe. ``on_way`` gets its id
        as soon as it can be watched. While the relay does not answer: raises, unless
        ``keep_trying()``."""
        header = dict(header, function=function_id, endpoint=endpoint)
        if self._shell.get(function_id) is None:
            header["environment"] = dict(header["environment"], **{CLIENT_PYTHON: platform.python_version()})
        writer = self._native.open_submission(header)
        self._patiently(keep_trying, lambda: writer.add(sets, writer.added))
        writer.seal()
        shell = self._shell.get(function_id)
        if shell is not None and shell.return_dict:
            self._return_dict.add(writer.id)
        if on_way is not None:
            on_way(writer.id)
        return writer

    def _why_it_waits(self) -> str:
        """What the relay says of its disk; "" if it keeps what comes, or does not answer."""
        try:
            return json.loads(self._native.call("whoami", "{}")[0]).get("store_error", "")
        except FarcallError:
            return ""

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

    def _arguments(self, function_id: str, args: Tuple, kwargs: Dict[str, Any], word: Optional[str] = None) -> bytes:
        function = self._shell_function(function_id)
        if function is not None:
            return self._shell_arguments(function, args, kwargs)
        if function_id in self._native_names:
            return self._native_arguments(self._native_names[function_id], args, kwargs)
        return self._serialized(args, kwargs, word or self.data_serialization_strategy)

    def _native_arguments(self, name: str, args: Tuple, kwargs: Dict[str, Any]) -> bytes:
        whole = native_arguments(name, args, kwargs)
        return whole if len(whole) <= self.inline_bytes_max else pack([self._store([whole])], [[0, None]], b"")

    def _shell_arguments(self, function: ShellFunction, args: Tuple, kwargs: Dict[str, Any]) -> bytes:
        """With files, which stand in the template by their names."""
        blobs: List[StoredValue] = []
        places: List[List[Any]] = []
        names: Dict[str, Any] = {}
        plain = {key: place_file(key, value, blobs, places, names, self._files.store) or value for key, value in kwargs.items()}
        rest = shell_arguments(function, args, plain)
        return pack(blobs, places, rest) if places else rest

    def _serialized(self, args: Tuple, kwargs: Dict[str, Any], word: Optional[str]) -> bytes:
        """An argument set; what is large is at the relay when this returns."""
        return arguments_with_blobs(args, kwargs, word, self._store, self.inline_bytes_max, self._files.store)

    def _store(self, parts: Sequence[Any]) -> StoredValue:
        return StoredValue(*self._native.store_bytes(parts))

    def put(self, value: Any, strategy: Strategy = None) -> StoredValue:
        """Brings a value to the relay, for arguments of many tasks: it is serialised and sent once.
        Arguments above ``inline_bytes_max`` go the same way by themselves, and are read and hashed
        for each task. Raises SerializationError, FarcallError (the relay's disk is full)."""
        word = strategy_word(strategy, False) or self.data_serialization_strategy
        return self._store(value_parts(value, word))

    # --- results -----------------------------------------------------------------------------

    @property
    def _tracker(self) -> Tracker:
        with self._lock:
            if self._tracker_or_none is None:
                self._tracker_or_none = Tracker(self._native)
            return self._tracker_or_none

    def future(self, task_id: str) -> TaskFuture:
        """A future for a task, whoever submitted it and when. Nothing is taken away by it."""
        task_id = str(task_id)
        return_dict = task_id[:-8] + "00000000" in self._return_dict
        return self._tracker.future(task_id, Reading(return_dict, self._chosen.allowed))

    def reference(self, task_id: str, timeout: Optional[float] = None) -> RemoteResult:
        """The result of a task without its bytes, when it is there. ``timeout``: seconds to wait.
        Raises what the task raised, TimeoutError."""
        return self._tracker.future(str(task_id), Reading(reference=True)).result(timeout)

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
        """For each task as get_task(), but with ``"exception"`` instead of raising: no task is
        missing from the answer, whatever became of it. Raises NotFound for an unknown id."""
        answer: Dict[str, Dict[str, Any]] = {}
        for task_id, details in self._details([str(task_id) for task_id in task_id_list]).items():
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

    def _details(self, task_ids: List[str]) -> Dict[str, Dict[str, Any]]:
        """Where tasks stand: one request for those of a submission when there are many."""
        by_submission: Dict[str, List[str]] = {}
        for task_id in task_ids:
            by_submission.setdefault(split_task_id(task_id)[0], []).append(task_id)
        found: Dict[str, Dict[str, Any]] = {}
        for submission, ids in by_submission.items():
            if len(ids) > _STATUS_ONE_BY_ONE_MAX:
                found.update((task["task_id"], task) for task in self.list_tasks(submission=submission))
            found.update((task_id, self.task_status(task_id)) for task_id in ids if task_id not in found)
        return {task_id: found[task_id] for task_id in task_ids}

    def list_tasks(
        self,
        state: Optional[str] = None,
        group: Optional[str] = None,
        endpoint: Optional[str] = None,
        submission: Optional[str] = None,
        limit: Optional[int] = None,
        after: Optional[str] = None,
        page_size: int = 1000,
    ) -> Iterator[Dict[str, Any]]:
        """This user's tasks, newest submission first, fetched in pages while they are iterated.

        ``state``: ``pending``, ``delivered``, ``running``, ``succeeded``, ``failed`` or
        ``cancelled``; ``group``, ``endpoint`` (name or id), ``submission``: only theirs; ``limit``:
        at most so many; ``after``: go on after this task id. Raises InvalidRequest, NotFound."""
        filters = {"state": state, "group": group, "endpoint": endpoint, "submission": submission}
        wanted = {key: value for key, value in filters.items() if value}
        return _pages(self, "task.list", "tasks", "task_id", "after", wanted, limit, after, page_size)

    def submissions(
        self, group: Optional[str] = None, endpoint: Optional[str] = None, limit: Optional[int] = None, page_size: int = 1000
    ) -> Iterator[Dict[str, Any]]:
        """This user's submissions with counts of their tasks, newest first, fetched in pages."""
        wanted = {key: value for key, value in {"group": group, "endpoint": endpoint}.items() if value}
        return _pages(self, "submission.list", "submissions", "submission_id", "before", wanted, limit, None, page_size)

    def stored(self, endpoint: Optional[str] = None, page_size: int = 500) -> Iterator[Dict[str, Any]]:
        """Large results and files that this user's tasks have left at an endpoint (name or id), or at
        all of them: fetched in pages while they are iterated.

        Each is a dict: ``task_id``; ``kind``: ``result`` or ``file``; ``name`` of a file; ``bytes`` on
        its disk; ``written_ms``; ``there``; ``expires_ms``, or ``removed_ms`` of one that has gone;
        ``state``: ``there``, ``released`` or ``expired``; ``endpoint``, ``endpoint_id``, ``function``,
        ``group``, ``hash``. An endpoint that is not connected raises Unreachable if it was asked for;
        among all, it is one dict with ``task_id`` None, ``bytes`` 0, ``there`` None and ``state``
        ``not connected``. Raises NotFound."""
        if endpoint is not None:
            yield from self._stored_at(endpoint, page_size)
            return
        for entry in self.endpoints():
            try:
                yield from self._stored_at(entry["endpoint_id"], page_size)
            except Unreachable:
                known = {"endpoint": entry["name"], "endpoint_id": entry["endpoint_id"]}
                yield dict(known, task_id=None, bytes=0, there=None, state="not connected")

    def _stored_at(self, endpoint: str, page_size: int) -> Iterator[Dict[str, Any]]:
        after: Optional[str] = ""
        while after is not None:
            page = self.call("task.stored", endpoint=endpoint, after=after, limit=page_size)
            yield from page["stored"]
            after = page["after"]

    def release(self, task_ids: Union[str, Iterable[str], None] = None, *, group: Optional[str] = None) -> Dict[str, int]:
        """Removes the large results and files of tasks, or of a group's that have ended, at their
        endpoints: ``{"files", "bytes"}`` that went. What has gone already is no error. The outcomes stay;
        whoever asks for a released result gets NotFound. Raises Unreachable when an endpoint is not
        connected (what lies at others has gone), NotFound for an unknown task or group."""
        if (task_ids is None) == (group is None):
            raise InvalidRequest("release() needs task ids or a group, one of both")
        questions: List[Dict[str, Any]] = [{"group": group}]
        if task_ids is not None:
            ids = [str(task) for task in ([task_ids] if isinstance(task_ids, (str, uuid.UUID)) else task_ids)]
            questions = [{"tasks": ids[i : i + _RELEASED_AT_ONCE]} for i in range(0, len(ids), _RELEASED_AT_ONCE)]
        sums, failed = {"files": 0, "bytes": 0}, []
        for question in questions:
            more = True
            while more:
                answer = self.call("task.release", **question)
                sums = {key: value + answer[key] for key, value in sums.items()}
                failed += answer["failed"]
                more = answer["more"] and not answer["failed"]
        if failed:
            text = "%s: what it keeps of these tasks stays, release them again (%d files, %d bytes went elsewhere)"
            raise from_code(failed[0]["error"], text % (failed[0]["text"], sums["files"], sums["bytes"]))
        return sums

    def wait(
        self,
        task_ids: Iterable[str],
        timeout: Optional[float] = None,
        return_when: str = concurrent.futures.ALL_COMPLETED,
    ) -> Tuple[List[str], List[str]]:
        """Waits for tasks at most ``timeout`` seconds; (finished, not finished), in order."""
        futures = {str(task_id): self.future(str(task_id)) for task_id in task_ids}
        done, _open = concurrent.futures.wait(futures.values(), timeout, return_when)
        finished = [task_id for task_id, future in futures.items() if future in done]
        return finished, [task_id for task_id in futures if futures[task_id] not in done]

    def cancel(self, tasks: Union[str, Iterable[str]], force: bool = False) -> Dict[str, int]:
        """Cancels tasks: how many were ``cancelled`` at once, are ``requested`` to end at their
        endpoint, or had ``finished``. Those that run are ended with all processes that they
        started. ``force``: recorded as cancelled now, also when the endpoint is away."""
        ids = [str(task) for task in ([tasks] if isinstance(tasks, (str, uuid.UUID)) else tasks)]
        return dict(zip(("cancelled", "requested", "finished"), self._native.cancel(ids, force)))

    def cancel_task(self, task_id: str, force: bool = False) -> Dict[str, int]:
        """cancel() of one task."""
        return self.cancel(task_id, force)

    def cancel_group(self, task_group_id: str, force: bool = False) -> Dict[str, int]:
        """Cancels every unfinished task of a group; counts as cancel() gives them."""
        return dict(zip(("cancelled", "requested", "finished"), self._native.cancel_group(task_group_id, force)))

    # --- endpoints ---------------------------------------------------------------------------

    def endpoints(self) -> List[Dict[str, Any]]:
        """This user's endpoints: name, endpoint_id, online, last_seen_ms, host, status."""
        return self.call("endpoint.list")["endpoints"]

    def get_endpoints(self, role: Optional[str] = None) -> List[Dict[str, Any]]:
        """endpoints(), with Globus Compute's ``uuid`` beside. ``role``: all are their owner's."""
        return [dict(entry, uuid=entry["endpoint_id"]) for entry in self.endpoints()]

    def get_endpoint_status(self, endpoint_uuid: str) -> Dict[str, Any]:
        """``{"status": "online" or "offline", "details": {…}}``, by name or id; the details are
        what the endpoint last said of itself, with host, epoch, blocks, pilots and slots."""
        entry = self.call("endpoint.status", endpoint=str(endpoint_uuid))
        details = dict(entry.get("status") or {})
        details.update((key, entry.get(key)) for key in ("name", "endpoint_id", "host", "last_seen_ms"))
        return {"status": "online" if entry.get("online") else "offline", "details": details}

    def get_endpoint_metadata(self, endpoint_uuid: str) -> Dict[str, Any]:
        """What is known of an endpoint besides its load: name, uuid, hostname, description …"""
        entry = self.call("endpoint.status", endpoint=str(endpoint_uuid))
        known = {key: value for key, value in entry.items() if key not in ("status", "online", "last_seen_ms")}
        return dict(known, uuid=entry.get("endpoint_id"), hostname=entry.get("host"))

    def delete_endpoint(self, endpoint_id: str, force: bool = False) -> Dict[str, Any]:
        """Takes an endpoint, by name or id, off the relay; its folder on its host stays. Raises
        FarcallError (code ``busy``) while it has unfinished tasks, unless ``force`` cancels them."""
        return self.call("endpoint.delete", endpoint=str(endpoint_id), force=force)

    def get_worker_hardware_details(self, endpoint_id: str) -> str:
        """Submits a task that reports on the node it runs on, and returns its id."""
        function = self.register_source_code(_HARDWARE_SOURCE, "hardware_report", "hardware of a worker's node")
        return self.run(endpoint_id=endpoint_id, function_id=function)

    def explain(self, task_id: str) -> List[str]:
        """Why a task is where it is."""
        return self.call("task.explain", task=task_id)["lines"]


_STATUS_ONE_BY_ONE_MAX = 8
_RELEASED_AT_ONCE = 1000

_HARDWARE_SOURCE = '''
import platform, subprocess

def hardware_report():
    """Text by command; a command that the node does not have is left out."""
    report = {"python": platform.python_version(), "node": platform.node(), "system": platform.platform()}
    for name, command in {"cpu": "lscpu", "memory": "free -h", "gpu": "nvidia-smi", "disk": "df -h", "pci": "lspci"}.items():
        done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True)
        if done.returncode == 0:
            report[name] = done.stdout
    return report
'''


def _pages(
    client: Client,
    method: str,
    what: str,
    key: str,
    cursor: str,
    filters: Dict[str, Any],
    limit: Optional[int],
    start: Optional[str],
    page_size: int,
) -> Iterator[Dict[str, Any]]:
    if page_size < 1 or (limit is not None and limit < 0):
        raise InvalidRequest("page_size must be at least 1 and limit not negative, got %r and %r" % (page_size, limit))
    left = limit
    while left is None or left > 0:
        wanted = page_size if left is None else min(page_size, left)
        parameters = dict(filters, limit=wanted)
        if start is not None:
            parameters[cursor] = start
        page = client.call(method, **parameters)[what]
        yield from page
        if len(page) < wanted:
            return
        start = page[-1][key]
        left = None if left is None else left - len(page)


def _request_id(text: Optional[str]) -> Optional[str]:
    if text is None:
        return None
    try:
        number = uuid.UUID(str(text))
    except ValueError:
        number = None
    if number is None or number.int % 2**32 != 0:
        raise InvalidRequest("%r is no request id: take the `request_id` of the batch that is to be sent again" % (text,))
    return str(number)


def _warn_private(public: bool, group: Optional[str]) -> None:
    if public or group:
        warnings.warn("functions cannot be shared: only their owner can run them", stacklevel=3)


_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A native thread must not outlive the interpreter that it calls into.
    for client in list(_clients):
        client.close()
