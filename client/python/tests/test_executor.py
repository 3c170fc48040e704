"""Executor and Client over a relay that lives in this process."""

import concurrent.futures
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import farcall

WAIT_S = 30


class OwnError(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)
        self.a = a


class Point:
    def __init__(self, x):
        self.x = x


def square(x):
    return x * x


def fails(x):
    raise OwnError(x, "b")


def test_submit_and_result(executor):
    future = executor.submit(square, 7)
    assert future.result(WAIT_S) == 49
    assert len(future.task_id) == 36 and future.done() and not future.cancelled()


def test_keyword_arguments_and_lambdas(executor):
    assert executor.submit(lambda a, *, b: (a, b), 1, b={2}).result(WAIT_S) == (1, {2})


def test_objects_of_a_class_that_only_we_have(executor):
    def move(point):
        point.x += 1
        return point

    moved = executor.submit(move, Point(4)).result(WAIT_S)
    assert type(moved) is Point and moved.x == 5


def test_exception_arrives_as_its_own_type_with_the_remote_traceback(executor):
    with pytest.raises(OwnError) as caught:
        executor.submit(fails, 3).result(WAIT_S)
    assert caught.value.a == 3
    assert isinstance(caught.value.__cause__, farcall.RemoteTraceback)
    assert "OwnError" in str(caught.value.__cause__)
    assert len(caught.value.task_id) == 36


def test_exception_of_a_class_that_we_do_not_have(executor, client):
    source = "class Strange(Exception):\n    pass\ndef f():\n    raise Strange('odd')\n"
    future = executor.submit_to_registered_function(client.register_source_code(source, "f"))
    with pytest.raises(farcall.TaskExecutionFailed, match="Strange: odd") as caught:
        future.result(WAIT_S)
    assert caught.value.remote_type == "Strange" and caught.value.failure_class == "user_error"
    assert "On the worker" in str(caught.value)


def test_crash_names_signal_and_class(executor):
    with pytest.raises(farcall.WorkerCrashed, match="killed by signal 9") as caught:
        executor.submit(square, "die").result(WAIT_S)
    assert (caught.value.signal, caught.value.attempt, caught.value.host) == (9, 2, "n1")


def test_thousand_submits_go_in_few_submissions_and_are_collected(executor, relay):
    relay.hold = True
    futures = [executor.submit(square, i) for i in range(1000)]
    assert executor._sender.wait_sent(WAIT_S) == 0
    relay.release()
    assert [future.result(WAIT_S) for future in futures] == [i * i for i in range(1000)]
    assert len(relay.functions) == 1
    assert len({future.task_id for future in futures}) == 1000
    assert sum(len(writer.sets) for writer in relay.submissions.values()) == 1000


def test_map_is_in_order_with_chunks_too(executor, relay):
    assert list(executor.map(square, range(20))) == [i * i for i in range(20)]
    assert list(executor.map(lambda a, b: a + b, range(5), range(5), chunksize=2)) == [0, 2, 4, 6, 8]
    assert sorted(len(w.sets) for w in relay.submissions.values())[-1] <= 20
    with pytest.raises(ValueError):
        executor.map(square, [1], chunksize=0)


def test_map_times_out_and_cancels_the_rest(executor, relay):
    relay.hold = True
    results = executor.map(square, range(3), timeout=0.2)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    assert len(relay.cancelled) == 3


def test_map_cancels_the_rest_after_an_error(executor, relay):
    def picky(i):
        if i == 0:
            raise KeyError("zero")
        return i

    with pytest.raises(KeyError):
        list(executor.map(picky, range(3)))


def test_cancel_reaches_the_relay(executor, relay):
    relay.hold = True
    future = executor.submit(square, 1)
    assert future.cancel() is True
    assert future.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(WAIT_S)
    done, _open = concurrent.futures.wait([future], WAIT_S)
    assert done == {future}


def test_cancel_of_a_finished_task_is_false(executor, relay):
    future = executor.submit(square, 1)
    future.result(WAIT_S)
    assert future.cancel() is False and relay.cancelled == []


def test_a_running_future_is_cancelled_only_when_that_is_asked_for(executor, relay):
    relay.hold = True
    future = executor.submit(square, 1)
    assert executor._sender.wait_sent(WAIT_S) == 0
    relay.running(future.task_id)
    deadline = time.monotonic() + WAIT_S
    while not future.running():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert future.cancel() is False and relay.cancelled == []
    assert future.cancel(running=True) is True


def test_a_relay_that_does_not_answer_is_waited_for(executor, relay):
    relay.deaf = 2
    assert executor.submit(square, 3).result(WAIT_S) == 9


def test_what_the_relay_does_not_answer_holds_up_no_other(executor, relay):
    relay.stuck = True
    executor.label = "stuck"
    waits = executor.submit(square, 3)
    executor.label = "other"
    assert executor.submit(square, 4).result(WAIT_S) == 16
    assert not waits.done()
    relay.stuck = False
    assert waits.result(WAIT_S) == 9


def test_a_refused_submission_has_the_reason_of_the_refusal(executor):
    """Also when the relay says first that it knows no such submission."""
    executor.label = "refused"
    with pytest.raises(farcall.FarcallError, match="the disk is full"):
        executor.submit(square, 3).result(WAIT_S)


def test_error_of_the_relay_goes_into_the_future(client):
    with farcall.Executor("nowhere", client=client) as executor:
        with pytest.raises(farcall.NotFound, match="no endpoint 'nowhere'"):
            executor.submit(square, 1).result(WAIT_S)


def test_settings_are_those_of_the_moment_of_submit(executor, relay):
    relay.hold = True
    executor.label, executor.walltime_s = "first", 1.5
    executor.submit(square, 1)
    executor.label, executor.resource_specification = "second", {"num_nodes": 2, "ranks_per_node": 4}
    executor.submit(square, 2)
    assert executor._sender.wait_sent(WAIT_S) == 0
    relay.release()
    headers = {writer.header["label"]: writer.header for writer in relay.submissions.values()}
    assert headers["first"]["walltime_ms"] == 1500 and headers["first"]["resources"] == {}
    assert headers["second"]["resources"] == {"nodes": 2, "ranks": 8}
    assert headers["first"]["group"] == executor.task_group_id


def test_unknown_resource_is_refused_with_a_suggestion(executor):
    with pytest.raises(farcall.InvalidRequest, match="no key 'num_node'; did you mean 'num_nodes'"):
        executor.resource_specification = {"num_node": 2}
    assert executor.resource_specification is None


def test_shutdown_waits_and_refuses_more(client):
    executor = farcall.Executor("here", client=client)
    future = executor.submit(square, 5)
    executor.shutdown()
    assert future.result(0) == 25
    with pytest.raises(RuntimeError):
        executor.submit(square, 1)
    executor.shutdown()


def test_shutdown_cancels_what_has_not_run(client, relay):
    relay.hold = True
    executor = farcall.Executor("here", client=client)
    futures = [executor.submit(square, i) for i in range(5)]
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)


def test_no_endpoint(client):
    with farcall.Executor(client=client) as executor:
        with pytest.raises(farcall.InvalidRequest, match="no endpoint"):
            executor.submit(square, 1)


def test_reload_tasks_of_a_group(executor, client, relay):
    futures = [executor.submit(square, i) for i in range(5)]
    concurrent.futures.wait(futures, WAIT_S)
    with farcall.Executor("here", client=client) as other:
        again = other.reload_tasks(executor.task_group_id)
        assert sorted(future.result(WAIT_S) for future in again) == [0, 1, 4, 9, 16]


def test_reloaded_futures_and_the_first_ones_both_end(executor, relay):
    relay.hold = True
    first = [executor.submit(square, i) for i in range(3)]
    assert executor._sender.wait_sent(WAIT_S) == 0
    again = executor.reload_tasks()
    first[0].cancel()
    relay.release()
    assert sorted(future.task_id for future in again) == sorted(future.task_id for future in first)
    concurrent.futures.wait(first + again, WAIT_S)
    assert [future.cancelled() for future in again] == [True, False, False]
    assert [future.result(WAIT_S) for future in again[1:]] == [1, 4]
    assert [future.result(WAIT_S) for future in first[1:]] == [1, 4]


def test_source_serializer_needs_no_cloudpickle(client, relay):
    with farcall.Executor("here", client=client, code_serializer="source", serializer="json") as executor:
        assert executor.submit(square, 4).result(WAIT_S) == 16
    assert [kind for kind, *_rest in relay.functions.values()] == ["python"]


def test_what_cannot_be_sent_is_said_at_submit(executor):
    with pytest.raises(farcall.SerializationError, match="arguments cannot be sent"):
        executor.submit(square, threading.Lock())


def test_asyncio_can_wait_for_it(executor):
    import asyncio

    async def main():
        return await asyncio.wrap_future(executor.submit(square, 6))

    assert asyncio.run(main()) == 36


# --- Client ------------------------------------------------------------------------------------


def test_client_run_get_result_and_again(client):
    function = client.register_function(square)
    assert function == client.register_function(square)
    task = client.run(8, endpoint_id="here", function_id=function)
    assert client.get_result(task, timeout=WAIT_S) == 64
    assert client.get_result(task) == 64
    assert client.get_task(task)["status"] == "success"


def test_client_pending_and_cancelled(client, relay):
    relay.hold = True
    task = client.run(8, endpoint_id="here", function_id=client.register_function(square))
    with pytest.raises(farcall.TaskPending) as caught:
        client.get_result(task)
    assert caught.value.status == "pending"
    with pytest.raises(farcall.TaskPending):
        client.get_result(task, timeout=0.05)
    assert client.cancel(task) == {"cancelled": 1, "requested": 0, "finished": 0}
    with pytest.raises(farcall.TaskCancelled):
        client.get_result(task, timeout=WAIT_S)


def test_client_batch(client):
    ok, bad = client.register_function(square), client.register_function(fails)
    batch = client.create_batch(task_group_id="sweep")
    batch.add(ok, (2,))
    batch.add(bad, kwargs={"x": 1})
    batch.add(ok, args=(3,))
    with pytest.raises(TypeError, match="args: expected tuple, got: int"):
        batch.add(ok, 5)
    answer = client.batch_run("here", batch)
    assert answer["task_group_id"] == "sweep" and len(batch) == 3
    tasks = answer["tasks"][ok] + answer["tasks"][bad]
    assert client.wait(tasks, WAIT_S) == (tasks, [])
    results = client.get_batch_result(tasks)
    assert [results[task].get("result") for task in tasks[:2]] == [4, 9]
    assert isinstance(results[tasks[2]]["exception"], OwnError)
    with pytest.raises(farcall.InvalidRequest):
        client.batch_run("here", client.create_batch())


def test_closing_the_client_ends_futures(client, relay):
    relay.hold = True
    future = client.future(client.run(8, endpoint_id="here", function_id=client.register_function(square)))
    client.close()
    with pytest.raises(farcall.FarcallError, match="the task goes on"):
        future.result(WAIT_S)


def test_end_of_the_program_hands_everything_over(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            sys.path.insert(0, %r)
            import fake_relay, farcall, farcall.client
            class Relay(fake_relay.FakeRelay):
                def close(self):
                    print(sum(len(w.sets) for w in self.submissions.values()), flush=True)
                    super().close()
            farcall.client._NativeClient = Relay
            executor = farcall.Executor("here")
            for i in range(500):
                executor.submit(pow, i, 2)
            """
            % str(Path(__file__).parent)
        )
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "500\n", "")


def test_batches_can_be_sent_again(client, relay):
    ok, other = client.register_function(square), client.register_function(fails)

    def batch(request_id=None):
        made = client.create_batch(request_id=request_id)
        for i in range(3):
            made.add(ok, (i,))
        made.add(other, (1,))
        return made

    assert not client.create_batch() and batch()
    first = batch()
    answer = client.batch_run("here", first)
    again = client.batch_run("here", batch(first.request_id))
    assert again["tasks"] == answer["tasks"] and answer["request_id"] == first.request_id
    assert len(relay.submissions) == 2 and len(set(answer["tasks"][ok] + answer["tasks"][other])) == 4
    with pytest.raises(farcall.InvalidRequest, match="is no request id"):
        client.create_batch(request_id="yesterday")


def test_dicts_changed_in_place_count_and_each_task_keeps_its_own(executor, relay):
    executor.resource_specification = {"cores": 2}
    executor.submit(square, 1).result(WAIT_S)
    executor.resource_specification["cores"] = 3
    executor.submit(square, 1).result(WAIT_S)
    assert [writer.header["resources"] for writer in relay.submissions.values()] == [{"cores": 2}, {"cores": 3}]


def test_what_globus_compute_takes_is_taken(client):
    with pytest.warns(UserWarning, match="user_endpoint_config is not used"):
        executor = farcall.Executor("here", client, None, None, {"queue": "debug"}, "label", 10, 443, 4, 16, None, None)
    assert (executor.label, executor.batch_size, executor.amqp_port) == ("label", 10, 443)
    with pytest.raises(TypeError, match="unexpected keyword argument 'funcx_client'"):
        farcall.Executor("here", client, funcx_client=1)
    with pytest.raises(TypeError, match="JSON-serializable"):
        executor.user_endpoint_config = {"queue": object()}
    executor.shutdown()


def test_priority_of_a_resource_specification(client, relay):
    with farcall.Executor("here", client=client, resource_specification={"priority": 3}, priority=9) as executor:
        executor.submit(square, 1).result(WAIT_S)
        with pytest.raises(farcall.InvalidRequest, match="priority must be a whole number, got 'high'"):
            executor.resource_specification = {"priority": "high"}
    assert [writer.header["priority"] for writer in relay.submissions.values()] == [3]


def test_batch_size_bounds_submissions(client, relay):
    relay.hold = True
    with farcall.Executor("here", client=client, batch_size=3) as executor:
        futures = [executor.submit(square, i) for i in range(10)]
        assert executor._sender.wait_sent(WAIT_S) == 0 and executor.task_count_submitted == 10
        relay.release()
        assert [future.result(WAIT_S) for future in futures] == [i * i for i in range(10)]
    assert max(len(writer.sets) for writer in relay.submissions.values()) <= 3


def test_shell_functions_keep_what_they_are_when_called_by_id(client, relay):
    function = client.register_function(farcall.ShellFunction("echo {x} {files}", walltime=3, return_dict=True))
    client._shell.clear()  # as another process would find it
    with farcall.Executor("here", client=client) as executor:
        relay.hold = True
        future = executor.submit_to_registered_function(function, kwargs={"x": "a b", "files": farcall.Raw("*.dat")})
        assert executor._sender.wait_sent(WAIT_S) == 0
        assert future._farcall_reading.return_dict
        (writer,) = relay.submissions.values()
        assert writer.sets == [b'J{"kwargs":{"x":"a b","files":"*.dat"},"raw":["files"],"walltime_s":3}']
        assert "FARCALL_CLIENT_PYTHON" not in writer.header["environment"]
        executor.shutdown(cancel_futures=True)


def test_an_executor_that_nobody_holds_goes_away(client):
    import gc
    import weakref

    executor = farcall.Executor("here", client=client)
    future = executor.submit(square, 2)
    thread, reference = executor._sender.thread, weakref.ref(executor)
    del executor
    gc.collect()
    assert reference() is None and future.result(WAIT_S) == 4
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_shutdown_without_waiting_closes_its_own_client_in_the_end(client, relay, monkeypatch):
    executor = farcall.Executor("here")
    executor.client._native.hold = True
    future = executor.submit(square, 2)
    executor.shutdown(wait=False)
    executor.client._native.release()
    assert future.result(WAIT_S) == 4
    executor._sender.thread.join(WAIT_S)
    assert executor.client._native.closed and executor.client._native.collected_indices


def test_nothing_is_kept_of_arguments_functions_and_results(executor):
    import gc
    import weakref

    point = Point(1)
    points = [weakref.ref(point)]
    executor.submit(point.__eq__, point).exception(WAIT_S)
    del point
    for value in executor.map(Point, range(5)):
        points.append(weakref.ref(value))
        del value
    deadline = time.monotonic() + WAIT_S
    while any(one() is not None for one in points):
        assert time.monotonic() < deadline
        gc.collect()


def test_cancel_does_not_wait_in_a_coroutine(executor, relay, monkeypatch):
    import asyncio

    monkeypatch.setattr("farcall.results.concurrent.futures.wait", lambda *_a: pytest.fail("a coroutine was made to wait"))

    async def main():
        relay.hold = True
        future = executor.submit(square, 1)
        assert executor._sender.wait_sent(WAIT_S) == 0
        wrapped = asyncio.wrap_future(future)
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        return future.task_id

    task = asyncio.run(main())
    assert relay.cancelled == [task]


def test_after_the_interpreter_began_to_end_nothing_is_taken(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import atexit, sys
            @atexit.register
            def last():
                try:
                    executor.submit(id, None)
                except RuntimeError as error:
                    print(error)
            sys.path.insert(0, %r)
            import fake_relay, farcall, farcall.client
            farcall.client._NativeClient = fake_relay.FakeRelay
            executor = farcall.Executor("here")
            """
            % str(Path(__file__).parent)
        )
    )
    done = subprocess.run([sys.executable, "-B", str(script)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("cannot schedule new futures after interpreter shutdown\n", "")


@pytest.mark.parametrize("failure_class, kind", farcall.errors.FAILURES.items())
def test_every_failure_class_has_its_type_with_the_facts(failure_class, kind):
    import json
    import pickle

    facts = {"type": "X", "message": "it is over", "class": failure_class, "host": "n7", "signal": 9, "limit": "4 GiB", "job_id": "17", "attempt": 2}
    text = json.dumps(facts).encode()
    data = b"E" + len(text).to_bytes(4, "little") + text
    error = farcall.serialization.deserialize_failure(data, task_id="t", failure_class=failure_class, exit_code=3, started_ms=5, ended_ms=6)
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert type(one) is kind and isinstance(one, farcall.TaskExecutionFailed)
        assert (one.host, one.signal, one.limit, one.job_id, one.attempt) == ("n7", 9, "4 GiB", "17", 2)
        assert (one.task_id, one.failure_class, one.exit_code, one.started_ms, one.ended_ms) == ("t", failure_class, 3, 5, 6)
        assert "it is over" in str(one)
