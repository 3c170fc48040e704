"""farcall.Client and shell functions on a real relay and endpoint."""

import os
import signal
import subprocess
import sys
import time
import uuid

import pytest

from conftest import is_gone, wait_for

WAIT_S = 120


@pytest.fixture(name="client")
def _client(five_workers):
    import farcall

    with farcall.Client() as client:
        yield client


def append(path, text):
    with open(path, "a") as file:
        file.write(text)
    return text


def divide(a, b):
    return a / b


def test_a_batch_that_is_sent_again_runs_once(client, tmp_path):
    import farcall

    function = client.register_function(append)

    def batch(request_id=None, more=0):
        made = client.create_batch(request_id=request_id, task_group_id="again")
        for number in range(3 + more):
            made.add(function, (str(tmp_path / "written"), "%d\n" % number))
        return made

    first = batch()
    ids = client.batch_run("here", first)["tasks"][function]
    client.wait(ids, WAIT_S)
    with farcall.Client() as another_day:
        again = another_day.create_batch(request_id=first.request_id, task_group_id="again")
        for number in range(3):
            again.add(function, (str(tmp_path / "written"), "%d\n" % number))
        answer = another_day.batch_run("here", again)
        assert answer["tasks"][function] == ids and answer["request_id"] == first.request_id
        assert [another_day.get_result(task) for task in ids] == ["0\n", "1\n", "2\n"]
    assert sorted((tmp_path / "written").read_text().split()) == ["0", "1", "2"]
    with pytest.raises(farcall.FarcallError, match="have been sent before with other arguments or cut otherwise: choose a new id"):
        client.batch_run("here", batch(first.request_id, more=1))


def test_listing_with_filters_and_pages(client):
    import farcall

    group = str(uuid.uuid4())
    function = client.register_function(divide)
    batch = client.create_batch(task_group_id=group, label="mixed")
    for number in range(25):
        batch.add(function, (number, number % 5))
    ids = client.batch_run("here", batch)["tasks"][function]
    assert client.wait(ids, WAIT_S) == (ids, [])

    every = list(client.list_tasks(group=group, page_size=7))
    assert sorted(task["task_id"] for task in every) == sorted(ids)
    failed = {task["task_id"] for task in client.list_tasks(state="failed", group=group, page_size=2)}
    assert failed == set(ids[::5])
    assert len(list(client.list_tasks(group=group, endpoint="here", limit=10, page_size=4))) == 10
    rest = list(client.list_tasks(group=group, after=every[9]["task_id"], page_size=3))
    assert [task["task_id"] for task in rest] == [task["task_id"] for task in every[10:]]
    (submission,) = client.submissions(group=group)
    assert (submission["succeeded"], submission["failed"], submission["label"]) == (20, 5, "mixed")
    with pytest.raises(farcall.InvalidRequest, match='there is no state "lost"'):
        list(client.list_tasks(state="lost"))

    results = client.get_batch_result(ids)
    assert list(results) == ids and not any(entry["pending"] for entry in results.values())
    for number, task in enumerate(ids):
        if number % 5:
            assert results[task]["result"] == number / (number % 5) and results[task]["status"] == "success"
        else:
            assert isinstance(results[task]["exception"], ZeroDivisionError) and results[task]["status"] == "failed"
    with pytest.raises(ZeroDivisionError):
        client.get_task(ids[0])
    assert client.get_task(ids[1])["details"]["host"]


def test_pending_tasks_say_so(client):
    import farcall

    task = client.run(3600, endpoint_id="here", function_id=client.register_function(time.sleep))
    with pytest.raises(farcall.TaskPending) as caught:
        client.get_result(task)
    assert caught.value.task_id == task and caught.value.status in ("pending", "delivered", "running")
    assert client.get_task(task)["pending"] is True
    wait_for(lambda: client.get_task(task)["status"] == "running", "the task to run")
    assert client.cancel_task(task) == {"cancelled": 0, "requested": 1, "finished": 0}
    assert client.wait([task], WAIT_S) == ([task], [])
    with pytest.raises(farcall.TaskCancelled):
        client.get_result(task)


def test_endpoints_and_functions(client, five_workers):
    import farcall

    status = client.get_endpoint_status("here")
    assert status["status"] == "online" and status["details"]["slots"]["total"] == 5
    metadata = client.get_endpoint_metadata(status["details"]["endpoint_id"])
    assert metadata["name"] == "here" and metadata["hostname"] == os.uname().nodename
    assert [entry["uuid"] for entry in client.get_endpoints(role="owner")] == [metadata["uuid"]]

    function = client.register_function(divide, description="a by b", metadata={"project": "x"})
    shown = client.get_function(function)
    assert (shown["name"], shown["kind"]) == ("divide", "python-pickle") and shown["function_id"] == function
    client.delete_function(function)
    with pytest.raises(farcall.NotFound):
        client.get_function(function)
    report = client.get_result(client.get_worker_hardware_details("here"), timeout=WAIT_S)
    assert "CPU" in report["cpu"] and report["node"] == os.uname().nodename
    with farcall.Executor("here", client=client) as executor:
        assert executor.get_worker_hardware_details(timeout=WAIT_S)["node"] == os.uname().nodename
        assert not executor.outputs
        executor.outputs = ["*.dat"]
        assert executor.outputs == ["*.dat"]
        with pytest.raises(TypeError):
            farcall.Executor("here", client=client, colour="red")
    with pytest.warns(UserWarning, match=r"Client\(\) does not know colour: ignored"):
        farcall.Client(colour="red").close()
    with pytest.raises(farcall.NotFound):
        client.delete_endpoint("none")


def test_tasks_are_found_again_in_another_process(client, five_workers):
    import farcall

    with farcall.Executor("here", client=client) as executor:
        for word in ("a b", "c"):
            executor.submit(farcall.ShellFunction("echo {word}", return_dict=True), word=word)
        executor.submit(divide, 1, 0)
    script = (
        "import farcall, sys\nwith farcall.Executor('here') as e:\n"
        "    fs = e.reload_tasks(sys.argv[1])\n    print([f.exception() or f.result()['stdout'] for f in fs])\n"
    )
    command = [sys.executable, "-c", script, executor.task_group_id]
    run = subprocess.run(command, env=five_workers.environment(), capture_output=True, text=True, timeout=WAIT_S)
    assert run.stdout == "['a b\\n', 'c\\n', ZeroDivisionError('division by zero')]\n", run.stderr


def test_shell_values_are_quoted_unless_raw_and_braces_survive(client, tmp_path):
    import farcall

    for name in ("one.dat", "two.dat"):
        (tmp_path / name).write_text("x y\n")
    with farcall.Executor("here", client=client) as executor:

        def run(cmd, **kwargs):
            return executor.submit(farcall.ShellFunction(cmd), **kwargs).result(WAIT_S)

        assert run("echo {x}", x="a; echo INJECTED").stdout == "a; echo INJECTED\n"
        assert run("echo {x}", x="it's $HOME `id`").stdout == "it's $HOME `id`\n"
        assert run("cat {files} | awk '{print $2}'", files=farcall.Raw(f"{tmp_path}/*.dat")).stdout == "y\ny\n"
        assert run("echo ${HOME} {{x}} {y}", x=1).stdout.split()[1:] == ["{x}", "{y}"]
        result = run("echo out; echo err >&2; exit 3")
        assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 3)
        assert result.exception_name == "subprocess.CalledProcessError" and result.cmd == "echo out; echo err >&2; exit 3"


def test_the_process_group_dies_with_the_walltime(client, tmp_path):
    import farcall

    function = farcall.ShellFunction("sleep 3600 & echo $! > {file}; (trap '' TERM; sleep 3600) & echo $! >> {file}; wait", walltime=1)
    with farcall.Executor("here", client=client) as executor:
        result = executor.submit(function, file=str(tmp_path / "pids")).result(WAIT_S)
    assert (result.returncode, result.exception_name) == (124, "subprocess.TimeoutExpired")
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    wait_for(lambda: all(is_gone(pid) for pid in pids), "what the command started to die")


def test_a_client_that_dies_after_submitting_loses_nothing(client, five_workers):
    script = (
        "import farcall, os, sys\ne = farcall.Executor('here', task_group_id=sys.argv[1])\n"
        "fs = [e.submit(pow, i, 2) for i in range(100)]\nassert e._sender.wait_sent(60) == 0\nos.kill(os.getpid(), 9)\n"
    )
    import farcall

    group = str(uuid.uuid4())
    run = subprocess.run([sys.executable, "-c", script, group], env=five_workers.environment(), timeout=WAIT_S)
    assert run.returncode == -signal.SIGKILL
    with farcall.Executor("here", client=client) as executor:
        assert [future.result(WAIT_S) for future in executor.reload_tasks(group)] == [i * i for i in range(100)]
