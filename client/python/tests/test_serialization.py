"""Functions, arguments, results and failures as bytes; shell functions; the words for options."""

import json
import pickle

import pytest

import farcall
from farcall import options, serialization
from farcall.results import _complement, split_task_id, task_id_of


def double(x):
    """Twice."""
    return 2 * x


def test_cloudpickle_is_the_default_and_takes_the_user_s_module_along():
    code = serialization.serialize_function(double)
    assert (code.kind, code.name, code.meta["serializer"]) == ("python-pickle", "double", "cloudpickle")
    assert code.meta["description"] == "Twice."
    # Not by reference: the worker has no such module.
    assert b"_make_function" in code.body or b"CodeType" in code.body


def test_source_is_the_function_alone():
    code = serialization.serialize_function(double, "source")
    body = json.loads(code.body)
    assert code.kind == "python" and body["entry"] == "double"
    assert body["source"].startswith("def double(x):") and "import" not in body["source"]


def test_module_is_the_whole_file():
    code = serialization.serialize_function(double, "module")
    assert "import pytest" in json.loads(code.body)["source"]
    assert code.meta["module"] == __name__


@pytest.mark.parametrize("bad", [lambda: 1, farcall.Client.run, pow])
def test_what_has_no_source_of_its_own_is_refused(bad):
    with pytest.raises(farcall.SerializationError):
        serialization.serialize_function(bad, "source")


def test_unknown_strategies_are_named():
    with pytest.raises(farcall.SerializationError, match="there are: cloudpickle, dill, source, module"):
        serialization.serialize_function(double, "marshal")
    with pytest.raises(farcall.SerializationError, match="there are: pickle"):
        serialization.serialize_arguments((), {}, "xml")


def test_bad_source():
    with pytest.raises(farcall.SerializationError, match="is no Python"):
        serialization.source_code("def f(:", "f")


def test_arguments():
    assert serialization.serialize_arguments((1,), {}, "json") == b'J{"args":[1]}'
    assert pickle.loads(serialization.serialize_arguments((1,), {"a": 2})[1:]) == ((1,), {"a": 2})
    with pytest.raises(farcall.SerializationError):
        serialization.serialize_arguments((object(),), {}, "json")
    with pytest.raises(farcall.SerializationError):
        serialization.serialize_arguments((float("nan"),), {}, "json")


def test_lambda_as_argument_falls_back_to_cloudpickle():
    args, _kwargs = pickle.loads(serialization.serialize_arguments((lambda: 5,), {})[1:])
    assert args[0]() == 5


def test_damaged_results_are_said_to_be():
    for data in (b"", b"X", b"Pgarbage", b"J{"):
        with pytest.raises(farcall.DeserializationError, match="task t1"):
            serialization.deserialize_result(data, "t1")


def test_failure_without_text():
    error = serialization.deserialize_failure(b"", failure_class="lost", task_id="t")
    assert isinstance(error, farcall.TaskLost) and error.task_id == "t"


@pytest.mark.parametrize(
    "name, kind",
    [
        ("crash", farcall.WorkerCrashed),
        ("memory_exceeded", farcall.MemoryExceeded),
        ("time_exceeded", farcall.TimeExceeded),
        ("allocation_ended", farcall.AllocationTooShort),
        ("environment", farcall.EnvironmentBroken),
        ("cancelled", farcall.TaskCancelled),
        ("a newer class", farcall.TaskExecutionFailed),
    ],
)
def test_failure_classes(name, kind):
    text = json.dumps({"type": "x", "message": "the whole sentence", "class": name, "limit": 5}).encode()
    error = serialization.deserialize_failure(b"E" + len(text).to_bytes(4, "little") + text)
    assert type(error) is kind and error.details["limit"] == 5 and str(error) == "the whole sentence"
    assert type(pickle.loads(pickle.dumps(error))) is kind


def test_shell_function():
    function = farcall.ShellFunction("echo {text} | awk '{print $1}'", walltime=2.5)
    code = serialization.serialize_function(function)
    assert code.kind == "shell" and code.name == "echo"
    assert json.loads(code.body)["cmd"] == function.cmd
    content = json.loads(serialization.shell_arguments(function, (), {"text": "a b"})[1:])
    assert content == {"kwargs": {"text": "a b"}, "walltime_s": 2.5}
    with pytest.raises(farcall.SerializationError, match="keyword arguments only"):
        serialization.shell_arguments(function, (1,), {})
    with pytest.raises(farcall.SerializationError, match="must be text or a number, not a list"):
        serialization.shell_arguments(function, (), {"text": []})
    for bad in ({"cmd": ""}, {"cmd": "x", "walltime": 0}, {"cmd": "x", "name": "a b"}, {"cmd": "x", "snippet_lines": -1}):
        with pytest.raises(ValueError):
            farcall.ShellFunction(**bad)


def test_mpi_function_is_a_program_for_the_launcher():
    code = serialization.serialize_function(farcall.MPIFunction("hello {who}"))
    assert code.kind == "mpi-program" and b'"cmd":"hello {who}"' in code.body


def test_mpi_marks_a_function_of_a_communicator():
    @farcall.mpi
    def first(comm):
        return comm

    @farcall.mpi(result="all")
    def every(comm):
        return comm

    code = serialization.serialize_function(first, "cloudpickle")
    assert (code.kind, code.name, code.meta["code"], code.meta["result"]) == ("mpi-function", "first", "python-pickle", "root")
    assert serialization.serialize_function(every, "cloudpickle").name == "every (of all ranks)"
    with pytest.raises(ValueError, match="'root', 'all' or 'array'"):
        farcall.mpi(result="some")


def test_options():
    assert options.retry("never") == {"never": True} and options.retry(2) == {"user_error": 2}
    with pytest.raises(farcall.InvalidRequest, match="did you mean 'crash'"):
        options.retry({"crashes": 1})
    with pytest.raises(farcall.InvalidRequest, match="num_ranks is 3, but num_nodes \\* ranks_per_node is 4"):
        options.resources({"num_nodes": 2, "ranks_per_node": 2, "num_ranks": 3})
    assert options.resources({"num_ranks": 4, "cores_per_rank": 2}) == {"ranks": 4, "nodes": 0, "cores": 2}
    assert options.resources({"num_ranks": 5, "ranks_per_node": 2}) == {"ranks": 5, "nodes": 3}
    assert options.resources({"num_nodes": 2, "cores": 4, "memory": 100}) == {"nodes": 2, "cores": 4, "memory_mib": 100}
    with pytest.raises(farcall.InvalidRequest, match="3 nodes for 2 ranks"):
        options.resources({"num_nodes": 3, "num_ranks": 2})
    with pytest.raises(farcall.InvalidRequest, match="takes cores_per_rank instead of cores"):
        options.resources({"num_ranks": 2, "cores": 4})
    with pytest.raises(farcall.InvalidRequest, match="gpus_per_rank needs num_ranks or ranks_per_node"):
        options.resources({"gpus_per_rank": 1})
    assert options.header({"num_ranks": 2, "launcher_options": "--verbose", "own_pool": True})["environment"] == {
        "FARCALL_LAUNCHER_OPTIONS": "--verbose", "FARCALL_OWN_POOL": "1"}
    assert options.header({"walltime": 2.5, "priority": 3})["walltime_ms"] == 2500
    with pytest.raises(farcall.InvalidRequest, match="whole number"):
        options.resources({"cores": "4"})


def test_task_ids():
    submission = "0190c0de-0000-7000-8000-000000000000"
    task = task_id_of(submission, 258)
    assert task == "0190c0de-0000-7000-8000-000000000102"
    assert split_task_id(task) == (submission, 258)
    with pytest.raises(ValueError):
        split_task_id("nonsense")


def test_complement():
    assert _complement([0, 1]) == [(2, 2**32 - 1)]
    assert _complement([5, 3]) == [(0, 3), (4, 5), (6, 2**32 - 1)]


def test_every_public_name_is_there():
    for name in farcall.__all__:
        assert hasattr(farcall, name)
