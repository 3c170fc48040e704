"""What the tasks of a submission need, from the words of Globus Compute to those of farcall."""

import difflib
import json
import warnings
from typing import Any, Dict, Mapping, Optional, Sequence, Union

from .errors import InvalidRequest
from .serialization import RESULT_SERIALIZERS
from .serialize import result_words

Retry = Union[None, str, int, Mapping[str, int]]

_RETRY_CLASSES = ("user_error", "crash", "lost", "memory_exceeded", "time_exceeded", "allocation_ended", "environment")

#: Keys of a resource specification, and what each means.
RESOURCE_KEYS = {
    "cores": "cores of one task (default 1)",
    "memory_mib": "memory of one task in MiB; 0: not asked for",
    "gpus": "GPUs of one task",
    "num_nodes": "nodes of one task",
    "num_ranks": "MPI ranks of one task",
    "ranks_per_node": "MPI ranks on each of its nodes",
    "exclusive": "whole nodes",
    "cores_per_rank": "cores of each rank (default 1)",
    "launcher_options": "more words for mpirun",
    "own_pool": "an MPI function that shares its ranks with no other task",
    "walltime": "seconds after which a task is killed",
    "priority": "lower runs first, as the argument of that name",
}


def resources(specification: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """The resources of a submission's header. Raises InvalidRequest, with the nearest known key."""
    given = dict(specification or {})
    for key in given:
        if key not in RESOURCE_KEYS:
            raise InvalidRequest("resource_specification has no key '%s'%s" % (key, _suggest(key, RESOURCE_KEYS)))
    answer: Dict[str, Any] = {}
    for key in ("cores", "memory_mib", "gpus", "exclusive"):
        if given.get(key) is not None:
            answer[key] = bool(given[key]) if key == "exclusive" else _count(key, given[key])
    nodes = _count("num_nodes", given["num_nodes"]) if given.get("num_nodes") is not None else 1
    ranks = _count("num_ranks", given["num_ranks"]) if given.get("num_ranks") is not None else 0
    if given.get("ranks_per_node") is not None:
        product = nodes * _count("ranks_per_node", given["ranks_per_node"])
        if ranks and ranks != product:
            raise InvalidRequest("resource_specification: num_ranks is %d, but num_nodes * ranks_per_node is %d" % (ranks, product))
        ranks = product
    if nodes != 1:
        answer["nodes"] = nodes
    of_rank = _count("cores_per_rank", given["cores_per_rank"]) if given.get("cores_per_rank") is not None else 1
    if ranks and given.get("cores"):
        raise InvalidRequest("resource_specification: a task with ranks takes cores_per_rank instead of cores")
    if ranks and nodes == 1:
        answer["cores"] = ranks * max(1, of_rank)
    elif ranks:
        answer["ranks"] = ranks  # over several nodes: refused by the endpoint
    return answer


def _mpi_environment(specification: Mapping[str, Any]) -> Dict[str, str]:
    """What the launcher on the node wants to know."""
    answer = {}
    ranks = specification.get("num_ranks") or specification.get("ranks_per_node")
    if ranks:
        answer["FARCALL_NUM_RANKS"] = str(ranks)
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
) -> Dict[str, Any]:
    """The part of a submission's header that does not say what runs where."""
    wished = (resource_specification or {}).get("priority")
    if wished is not None and (isinstance(wished, bool) or not isinstance(wished, int)):
        raise InvalidRequest("resource_specification: priority must be a whole number, got %r" % (wished,))
    answer: Dict[str, Any] = {"group": task_group_id or "", "label": label, "sandbox": bool(sandbox)}
    answer["priority"] = int(priority if wished is None else wished)
    answer["resources"] = resources(resource_specification)
    answer["retry"] = retry(retries)
    answer["environment"] = {str(key): str(value) for key, value in (environment or {}).items()}
    answer["environment"].update(_mpi_environment(resource_specification or {}))
    if (resource_specification or {}).get("walltime") is not None:
        walltime_s = resource_specification["walltime"]
    words = result_words(result_serializers)
    if words:
        answer["environment"][RESULT_SERIALIZERS] = ",".join(words)
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
