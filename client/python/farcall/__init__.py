"""Run functions on supercomputers.

    from farcall import Executor

    with Executor("mycluster") as executor:
        print(list(executor.map(simulate, range(1000))))
"""

import concurrent.futures as _futures

from ._farcall import __version__
from ._progress import progress
from .client import Batch, Client
from .errors import (
    AllocationTooShort,
    Denied,
    DeserializationError,
    EnvironmentBroken,
    FarcallError,
    InvalidRequest,
    MemoryExceeded,
    NotFound,
    RelayTimeout,
    RemoteTraceback,
    ResultLost,
    ResultTooLarge,
    SerializationError,
    TaskCancelled,
    TaskExecutionFailed,
    TaskLost,
    TaskPending,
    TimeExceeded,
    TooLarge,
    Unreachable,
    WorkerCrashed,
)
from .executor import Executor
from .files import File, RemoteFile
from .functions import MPIFunction, NativeFunction, Raw, ShellFunction, ShellResult, mpi
from .options import RESOURCE_KEYS
from .remote import RemoteResult
from .results import Progress, TaskFuture
from .stored import StoredValue
from .serialize import (
    AllCodeStrategies,
    AllDataStrategies,
    CombinedCode,
    ComputeSerializer,
    DillCode,
    DillCodeSource,
    DillCodeTextInspect,
    DillDataBase64,
    JSONData,
    PureSourceDill,
    PureSourceTextInspect,
    SerializationStrategy,
)

#: Globus Compute's name.
ComputeFuture = TaskFuture

ALL_COMPLETED = _futures.ALL_COMPLETED
FIRST_COMPLETED = _futures.FIRST_COMPLETED
FIRST_EXCEPTION = _futures.FIRST_EXCEPTION

__all__ = [name for name in dir() if not name.startswith("_")] + ["__version__"]
