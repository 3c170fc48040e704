"""What can go wrong, as exceptions.

``FarcallError`` is for farcall itself: no such endpoint, relay not reachable. ``TaskExecutionFailed``
and its subclasses are for tasks: the user's own exception where it can be rebuilt, else one of these.
"""

import concurrent.futures
from typing import Any, Dict, Optional


class FarcallError(Exception):
    """A request that could not be served. ``code`` is one of the names that ``--json`` prints,
    for instance ``not_found``, ``denied``, ``unreachable``, ``timeout``."""

    code = "internal"

    def __init__(self, message: str, code: Optional[str] = None):
        super().__init__(message)
        if code is not None:
            self.code = code


class NotFound(FarcallError, LookupError):
    """No such endpoint, function, submission or task."""

    code = "not_found"


class ResultLost(NotFound):
    """A large result, or a file that a task left, is not at its endpoint any more, or is damaged
    there. The text says where it lay and since when it has been gone, as far as that is known; only the task
    can bring it back. (What its owner has released is a plain NotFound.)"""

    code = "result_lost"


class InvalidRequest(FarcallError, ValueError):
    """The request makes no sense as it stands."""

    code = "invalid_argument"


class Denied(FarcallError, PermissionError):
    """The relay does not know this key, or it may not do this."""

    code = "denied"


class Unreachable(FarcallError, ConnectionError):
    """Nobody answers at the relay's address."""

    code = "unreachable"


class RelayTimeout(FarcallError, TimeoutError):
    """No answer in time; whether the request was served is not known."""

    code = "timeout"


class TooLarge(FarcallError, ValueError):
    """A value is larger than the relay takes."""

    code = "too_large"


class SerializationError(FarcallError, TypeError):
    """A function or a value cannot be turned into bytes."""

    code = "invalid_argument"


class DeserializationError(FarcallError):
    """A result arrived that this Python cannot read."""

    code = "corrupt"


class TaskPending(FarcallError):
    """The task has not finished. ``status`` is where it stands."""

    code = "busy"

    def __init__(self, task_id: str, status: str):
        super().__init__("task %s is not finished: %s" % (task_id, status))
        self.task_id = task_id
        self.status = status


_BY_CODE = {kind.code: kind for kind in (NotFound, ResultLost, InvalidRequest, Denied, Unreachable, RelayTimeout, TooLarge)}


def from_code(code: str, message: str) -> FarcallError:
    """The exception for an error of libfarcall."""
    kind = _BY_CODE.get(code)
    return kind(message) if kind is not None else FarcallError(message, code)


class TaskExecutionFailed(Exception):
    """A task ended without a value.

    Attributes: ``task_id``; ``failure_class`` (``user_error``, ``crash``, ``lost`` …);
    ``remote_type``, ``remote_module``, ``remote_message`` and ``remote_traceback`` of the
    exception on the worker; ``host``; ``job_id`` of the batch job ("": not known); ``attempt``;
    ``exit_code`` and ``signal`` (0: none); ``limit``: the one that was exceeded (None: none was);
    ``started_ms`` and ``ended_ms`` (ms since 1970 on the worker's clock; 0: never started);
    ``details``: all that the failure says, as a dict.
    """

    failure_class = "user_error"

    def __init__(self, message: str, **details: Any):
        super().__init__(message)
        self.message = message
        self.details: Dict[str, Any] = details.pop("details", {})
        self.task_id: str = details.pop("task_id", "")
        self.failure_class = details.pop("failure_class", self.failure_class)
        self.remote_type: str = self.details.get("type", "")
        self.remote_module: str = self.details.get("module", "")
        self.remote_message: str = self.details.get("message", message)
        self.remote_traceback: str = self.details.get("traceback", "")
        self.host: str = details.pop("host", "") or self.details.get("host", "")
        self.job_id: str = str(self.details.get("job_id") or "")
        self.limit: Any = self.details.get("limit")
        self.attempt: int = details.pop("attempt", 0) or self.details.get("attempt", 0)
        self.exit_code: int = details.pop("exit_code", 0)
        self.signal: int = details.pop("signal", 0) or self.details.get("signal", 0)
        self.started_ms: int = details.pop("started_ms", 0)
        self.ended_ms: int = details.pop("ended_ms", 0)
        if details:
            raise TypeError("unknown details: %s" % ", ".join(details))

    def __str__(self) -> str:
        if self.remote_traceback:
            return "%s\n\nOn the worker:\n%s" % (self.message, self.remote_traceback)
        return self.message

    def __reduce__(self):
        return _rebuild_failure, (type(self), self.message, self.__dict__.copy())


def _rebuild_failure(kind, message, state):
    error = kind(message)
    error.__dict__.update(state)
    return error


class WorkerCrashed(TaskExecutionFailed):
    """The worker died under the task (``signal``, ``exit_code``)."""

    failure_class = "crash"


class MemoryExceeded(TaskExecutionFailed):
    """The task needed more memory than it was given."""

    failure_class = "memory_exceeded"


class TimeExceeded(TaskExecutionFailed, TimeoutError):
    """The task ran longer than its walltime."""

    failure_class = "time_exceeded"


class TaskLost(TaskExecutionFailed):
    """The node or its pilot went away under the task, more often than its retries allow."""

    failure_class = "lost"


class AllocationTooShort(TaskExecutionFailed):
    """The batch job ended before the task did, more often than its retries allow: the blocks of
    the endpoint need a longer walltime, or the task a smaller share of the work."""

    failure_class = "allocation_ended"


class EnvironmentBroken(TaskExecutionFailed):
    """The worker's Python or node cannot run this at all: a missing module, another version."""

    failure_class = "environment"


class TaskCancelled(TaskExecutionFailed, concurrent.futures.CancelledError):
    """The task was cancelled before it had a result."""

    failure_class = "cancelled"


class ResultTooLarge(TaskExecutionFailed, ValueError):
    """The task ran, and its result is larger than what is taken in one piece (``limit``)."""


FAILURES = {
    kind.failure_class: kind
    for kind in (
        TaskExecutionFailed,
        WorkerCrashed,
        MemoryExceeded,
        TimeExceeded,
        TaskLost,
        AllocationTooShort,
        EnvironmentBroken,
        TaskCancelled,
    )
}


class RemoteTraceback(Exception):
    """The ``__cause__`` of a user's exception that was raised on a worker: shows where."""

    def __init__(self, text: str):
        super().__init__(text)
        self.text = self.tb = text

    def __str__(self) -> str:
        return self.text


#: Globus Compute's names.
ComputeError = FarcallError
MaxResultSizeExceeded = ResultTooLarge
VersionMismatch = EnvironmentBroken
