"""Globus Compute's serialization strategies over a relay that lives in this process."""

import pytest

import farcall
from farcall import serialize

WAIT_S = 30


def double(x):
    return 2 * x


def pair(a, b=None):
    return (a, b)


def kinds(relay):
    return [kind for kind, *_rest in relay.functions.values()]


def arguments(relay):
    return [one[:1] for writer in relay.submissions.values() for one in writer.sets]


@pytest.mark.parametrize(
    "code, kind",
    [
        (farcall.DillCode, "python-pickle"),
        (farcall.DillCode(), "python-pickle"),
        ("globus_compute_sdk.serialize.PureSourceTextInspect", "python"),
        (farcall.PureSourceDill(), "python"),
        ("CombinedCode", "python"),
        (farcall.AllCodeStrategies(), "python"),
    ],
)
def test_strategies_for_code(client, relay, code, kind):
    serializer = farcall.ComputeSerializer(strategy_code=code)
    with farcall.Executor("here", client=client, serializer=serializer) as executor:
        assert executor.submit(double, 4).result(WAIT_S) == 8
    assert kinds(relay) == [kind]


def test_a_lambda_has_no_source_of_its_own(client, relay):
    with farcall.Executor("here", client=client, serializer=farcall.AllCodeStrategies()) as executor:
        assert executor.submit(lambda x: x + 1, 4).result(WAIT_S) == 5
    assert kinds(relay) == ["python-pickle"]


@pytest.mark.parametrize(
    "data, value, letter",
    [
        (farcall.JSONData, 1, b"J"),
        (farcall.DillDataBase64, 1, b"D"),
        (farcall.AllDataStrategies(), 1, b"J"),
        (farcall.AllDataStrategies(), (1,), b"D"),
    ],
)
def test_strategies_for_data(client, relay, data, value, letter):
    with farcall.Executor("here", client=client, serializer=farcall.ComputeSerializer(strategy_data=data)) as executor:
        assert executor.submit(pair, value).result(WAIT_S) == (value, None)
    assert arguments(relay) == [letter]


def test_serializer_is_that_of_the_moment_of_submit(client, relay):
    with farcall.Executor("here", client=client) as executor:
        first = executor.submit(pair, 1)
        executor.serializer = farcall.JSONData()
        second = executor.submit(pair, 1)
        assert first.result(WAIT_S) == second.result(WAIT_S) == (1, None)
    assert sorted(arguments(relay)) == [b"J", b"P"]


def test_result_serializers_reach_the_worker(client, relay):
    names = ["globus_compute_sdk.serialize.JSONData", farcall.DillDataBase64()]
    with farcall.Executor("here", client=client, result_serializers=names) as executor:
        executor.submit(pair, 1).result(WAIT_S)
        executor.result_serializers = None
        executor.submit(pair, 1).result(WAIT_S)
    found = [writer.header["environment"].get("FARCALL_RESULT_SERIALIZERS") for writer in relay.submissions.values()]
    assert found == ["json,dill", None]
    with pytest.raises(farcall.SerializationError, match="must be a list"):
        farcall.Executor("here", client=client, result_serializers="JSONData")


def test_client_strategies(client, relay, monkeypatch):
    with farcall.Client(code_serialization_strategy=farcall.PureSourceTextInspect(), data_serialization_strategy=farcall.JSONData()) as other:
        task = other.run(3, endpoint_id="here", function_id=other.register_function(double))
        assert other.get_result(task, timeout=WAIT_S) == 6
        assert kinds(other._native) == ["python"] and arguments(other._native) == [b"J"]


def test_results_of_other_kinds_are_not_read(client):
    allowed = farcall.ComputeSerializer(allowed_deserializer_types=["globus_compute_sdk.*Code", farcall.JSONData])
    with farcall.Executor("here", client=client, serializer=allowed) as executor:
        with pytest.raises(farcall.DeserializationError, match="came as pickle, which allowed_deserializer_types does not allow"):
            executor.submit(pair, 1).result(WAIT_S)
        executor.serializer = farcall.ComputeSerializer(strategy_data=farcall.JSONData(), allowed_deserializer_types=["*Code", "JSONData"])
        assert executor.submit(double, 1).result(WAIT_S) == 2
        error = executor.submit(double, None).exception(WAIT_S)
        assert type(error) is farcall.TaskExecutionFailed and error.remote_type == "TypeError"


def test_an_allow_list_needs_both_kinds():
    with pytest.raises(farcall.SerializationError, match="at least one strategy for code"):
        farcall.ComputeSerializer(allowed_deserializer_types=["JSONData"])
    with pytest.raises(farcall.SerializationError, match="'NoData' is no strategy"):
        farcall.ComputeSerializer(allowed_deserializer_types=["NoData", "*Code"])


def test_wrong_strategies_are_refused_with_those_that_are_there():
    with pytest.raises(farcall.SerializationError, match="'jsonn' is no way to send values; there are: pickle.*JSONData"):
        farcall.ComputeSerializer(strategy_data="jsonn")
    with pytest.raises(farcall.SerializationError, match="DillCode is not a way to send values"):
        farcall.ComputeSerializer(strategy_data=farcall.DillCode)


@pytest.mark.parametrize("code", [None, farcall.DillCode, farcall.PureSourceTextInspect])
@pytest.mark.parametrize("data", [None, farcall.JSONData, farcall.AllDataStrategies])
def test_check_strategies(code, data):
    function, args, kwargs = farcall.ComputeSerializer(code, data).check_strategies(double, 3, b=[1])
    assert function(args[0]) == 6 and kwargs == {"b": [1]}


def test_strategies_are_exported_under_globus_computes_names():
    assert set(serialize.STRATEGIES) <= set(dir(serialize)) and serialize.DEFAULT_STRATEGY_CODE.word == "dill"
    assert farcall.serialize is serialize
