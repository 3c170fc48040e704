"""What the tasks of a submission need, from the words of Globus Compute to those of farcall."""

import difflib
import json
import os
import warnings
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union

from .errors import InvalidRequest
from .serialization import RESULT_SERIALIZERS
from .serialize import result_words

Retry = Union[None, str, int, Mapping[str, int]]

_RETRY_CLASSES = ("user_error", "crash", "lost", "memory_exceeded", "time_exceeded", "allocation_ended", "environment")

#: Keys of a resource specification, and what each means.
RESOURCE_KEYS = {
    "cores": "cores of one task, on each of its nodes (default 1); not with ranks",
    "memory": "memory on each of its nodes in MiB, with more it is killed",
    "memory_mib": "the same",
    "max_processes": "processes that one task may have at once, with more it is killed (default: the endpoint's max_processes)",
    "gpus": "GPUs of one task, on each of its nodes; not with ranks",
    "num_nodes": "nodes of one task (default: as few as hold the ranks)",
    "num_ranks": "MPI ranks of one task",
    "ranks_per_node": "MPI ranks on each of its nodes",
    "cores_per_rank": "cores of each rank (default 1)",
    "gpus_per_rank": "GPUs of each rank",
    "exclusive": "nothing else on its nodes",
    "launcher_options": "more words for mpirun",
    "own_pool": "an MPI function that shares its ranks with no other task",
    "walltime": "seconds after which a task is killed",
    "priority": "lower runs first",
}

_COUNTS = ("cores", "memory", "memory_mib", "gpus", "num_nodes", "num_ranks", "ranks_per_node", "cores_per_rank", "gpus_per_rank")


def resources(specification: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """The resources of a submission's header. Raises InvalidRequest, with the nearest known key."""
    given = {key: value for key, value in (specification or {}).items() if value is not None}
    for key in given:
        if key not in RESOURCE_KEYS:
            raise InvalidRequest("resource_specification has no key '%s'%s" % (key, _suggest(key, RESOURCE_KEYS)))
    counts = {key: _count(key, given[key]) for key in _COUNTS if key in given}
    answer: Dict[str, Any] = {}
    memory = counts.get("memory", counts.get("memory_mib"))
    if memory is not None:
        answer["memory_mib"] = memory
    if given.get("exclusive"):
        answer["exclusive"] = True
    with_ranks = "num_ranks" in counts or "ranks_per_node" in counts
    for key in ("cores", "gpus"):
        of_rank = key + "_per_rank"
        if with_ranks and counts.get(key):
            raise InvalidRequest("resource_specification: a task with ranks takes %s instead of %s" % (of_rank, key))
        if not with_ranks and counts.get(of_rank):
            raise InvalidRequest("resource_specification: %s needs num_ranks or ranks_per_node" % of_rank)
        value = counts.get(of_rank if with_ranks else key)
        if value is not None:
            answer[key] = value
    if with_ranks:
        answer["ranks"], answer["nodes"] = _ranks_and_nodes(counts)
    elif given.get("launcher_options"):
        raise InvalidRequest("resource_specification: launcher_options needs num_ranks or ranks_per_node")
    elif "num_nodes" in counts and counts["num_nodes"] != 1:
        answer["nodes"] = counts["num_nodes"]
    return answer


def _ranks_and_nodes(counts: Mapping[str, int]) -> Tuple[int, int]:
    """Nodes: 0 for as few as fit."""
    nodes, ranks, per_node = (counts.get(key) for key in ("num_nodes", "num_ranks", "ranks_per_node"))
    if ranks is None:
        nodes = nodes or 1
        ranks = nodes * (per_node or 0)
    elif per_node and nodes and ranks != nodes * per_node:
        raise InvalidRequest("resource_specification: num_ranks is %d, but num_nodes * ranks_per_node is %d" % (ranks, nodes * per_node))
    elif per_node and not nodes:
        nodes = -(-ranks // per_node)
    if ranks == 0 or (nodes or 0) > ranks:
        raise InvalidRequest("resource_specification: %d nodes for %d ranks: each node needs one" % (nodes or 0, ranks))
    return ranks, nodes or 0


def _launcher_environment(specification: Mapping[str, Any]) -> Dict[str, str]:
    """What only the launcher on the node wants to know."""
    answer = {}
    options = specification.get("launcher_options")
    if options:
        answer["FARCALL_LAUNCHER_OPTIONS"] = options if isinstance(options, str) else " ".join(map(str, options))
    if specification.get("own_pool"):
        answer["FARCALL_OWN_POOL"] = "1"
    return answer


def retry(wish: Retry) -> Dict[str, Any]:
    """The retry policy of a submission's header. ``wish``: None (the defaults), ``"never"``, a number
    (of retries after errors of the function), or numbers by failure class."""
    if wish is None:
        return {}
    if wish == "never":
        return {"never": True}
    if isinstance(wish, int) and not isinstance(wish, bool):
        return {"user_error": _count("retry", wish)}
    if not isinstance(wish, Mapping):
        raise InvalidRequest("retry must be None, 'never', a number or a dict by failure class, got %r" % (wish,))
    for key in wish:
        if key not in _RETRY_CLASSES:
            raise InvalidRequest("retry has no failure class '%s'%s" % (key, _suggest(key, _RETRY_CLASSES)))
    return {key: _count("retry." + key, value) for key, value in wish.items()}


def header(
    resource_specification: Optional[Mapping[str, Any]] = None,
    task_group_id: Optional[str] = None,
    label: str = "",
    priority: int = 0,
    walltime_s: Optional[float] = None,
    retries: Retry = None,
    environment: Optional[Mapping[str, str]] = None,
    sandbox: bool = False,
    result_serializers: Optional[Sequence[Any]] = None,
    user_endpoint_config: Optional[Mapping[str, Any]] = None,
    working_directory: Optional[str] = None,
    outputs: Sequence[str] = (),
) -> Dict[str, Any]:
    """The part of a submission's header that does not say what runs where."""
    wished = (resource_specification or {}).get("priority")
    if wished is not None and (isinstance(wished, bool) or not isinstance(wished, int)):
        raise InvalidRequest("resource_specification: priority must be a whole number, got %r" % (wished,))
    answer: Dict[str, Any] = {"group": task_group_id or "", "label": label, "sandbox": bool(sandbox)}
    answer["priority"] = int(priority if wished is None else wished)
    answer["resources"] = resources(resource_specification)
    specification = resource_specification or {}
    if specification.get("walltime") is not None:
        walltime_s = specification["walltime"]
    answer["retry"] = retry(retries)
    answer["environment"] = {str(key): str(value) for key, value in (environment or {}).items()}
    if working_directory:
        answer["environment"]["FARCALL_TASK_DIRECTORY"] = os.fspath(working_directory)
    if specification.get("max_processes") is not None:
        answer["environment"]["FARCALL_TASK_MAX_PROCESSES"] = str(_count("max_processes", specification["max_processes"]))
    answer["environment"].update(_launcher_environment(specification))
    words = result_words(result_serializers)
    if words:
        answer["environment"][RESULT_SERIALIZERS] = ",".join(words)
    if isinstance(outputs, str) or not all(isinstance(name, str) and name and not name.startswith("/") for name in outputs):
        raise InvalidRequest("outputs must be a list of names or patterns of files in the task's directory, got %r" % (outputs,))
    if outputs:
        answer["sandbox"] = True
        answer["environment"]["FARCALL_TASK_OUTPUTS"] = json.dumps(list(outputs))
    _check_user_endpoint_config(user_endpoint_config)
    if walltime_s is not None:
        if not walltime_s > 0:
            raise InvalidRequest("walltime_s must be a number of seconds above 0, got %r" % (walltime_s,))
        answer["walltime_ms"] = max(1, round(walltime_s * 1000))
    return answer


def _check_user_endpoint_config(config: Optional[Mapping[str, Any]]) -> None:
    """Globus Compute starts another endpoint for each; here an endpoint has one configuration."""
    if not config:
        return
    try:
        json.dumps(config)
    except (TypeError, ValueError) as error:
        raise TypeError("user_endpoint_config must be JSON-serializable: %s" % error) from error
    warnings.warn(
        "user_endpoint_config is not used: an endpoint of farcall has one configuration, its config.yaml; "
        "what differs from task to task goes into resource_specification (%s)" % ", ".join(config),
        stacklevel=2,
    )


def frozen(options: Mapping[str, Any]) -> str:
    """A key: equal for options that mean the same."""
    return json.dumps(options, sort_keys=True)


def _count(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequest("%s must be a whole number, 0 or more, got %r" % (key, value))
    return value


def _suggest(key: str, known) -> str:
    near = difflib.get_close_matches(key, list(known), 1)
    return "; did you mean '%s'?" % near[0] if near else "; there are: %s" % ", ".join(known)
