"""Hostile tasks: each gets an error of the right class with the facts, and the next task on that slot works."""

import json
import os

import pytest

from conftest import wait_for


@pytest.fixture
def slot(site, monkeypatch):
    """An endpoint with one slot, so that the next task surely comes to the same one."""
    site.start_relay()
    site.endpoint("here", **{"engine.max_workers_per_node": 1, "engine.max_processes": 300, "engine.worker_recycle_after": 4})
    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    return site


def test_hostile_functions(slot):
    from farcall import Executor, MemoryExceeded, TaskExecutionFailed, TimeExceeded, WorkerCrashed

    def leave():
        import os

        os._exit(7)

    def segfault():
        import ctypes

        ctypes.string_at(0)

    def eat():
        blocks = []
        while True:
            blocks.append(bytearray(16 << 20))

    def ten_gigabytes():
        return len(b"x" * (10 << 30))

    def fork_bomb():
        import os
        import time

        end = time.monotonic() + 30  # should the limit fail, the machine is not lost
        while time.monotonic() < end:
            if os.fork() == 0:
                time.sleep(0.05)
        time.sleep(1000)

    def endless():
        while True:
            pass

    def close_stdout():
        import os
        import sys

        print("x" * (1 << 20))
        sys.stdout.close()
        os.close(1)
        return "closed"

    def next_one():
        print("still here")
        return 42

    with Executor("here", retry={"crash": 0}) as executor:
        def error_of(function):
            error = executor.submit(function).exception(120)
            assert executor.submit(next_one).result(120) == 42, function.__name__
            return error

        error = error_of(leave)
        assert isinstance(error, WorkerCrashed) and "exited with code 7" in str(error)
        error = error_of(segfault)
        assert isinstance(error, WorkerCrashed) and "signal 11" in str(error)
        executor.resource_specification = {"memory_mib": 300}
        error = error_of(eat)
        assert isinstance(error, MemoryExceeded)
        assert "more than its limit of 300 MiB" in str(error) and error.details["limit"] == "memory 300 MiB"
        assert int(error.details["used"].split()[0]) > 300
        error = error_of(ten_gigabytes)
        assert isinstance(error, MemoryExceeded) and "more than its limit of 300 MiB" in str(error)
        executor.resource_specification = None
        error = error_of(fork_bomb)
        assert type(error) is TaskExecutionFailed and "more than its limit of 300" in str(error)
        assert error.remote_type == "ProcessLimitExceeded" and error.details["limit"] == "300 processes"
        executor.resource_specification = {"max_processes": 20}
        error = error_of(fork_bomb)
        assert type(error) is TaskExecutionFailed and "more than its limit of 20," in str(error)
        executor.resource_specification = None
        executor.walltime_s = 1
        error = error_of(endless)
        assert isinstance(error, TimeExceeded) and "walltime of 1 s" in str(error)
        executor.walltime_s = None
        assert executor.submit(close_stdout).result(120) == "closed"
        assert executor.submit(next_one).result(120) == 42


def test_hostile_commands(slot):
    run = slot.farcall("run", "-e", "here", "--memory", "100", "--", "python3", "-c", "x = bytearray(500 << 20); import time; time.sleep(60)", ok=False)
    assert run.returncode != 0 and "more than its limit of 100 MiB" in run.stderr
    run = slot.farcall("run", "-e", "here", "--max-processes", "40", "--", "bash", "-c", "b() { sleep 0.02; [ $SECONDS -lt 30 ] || exit; b & b & }; b & sleep 1000", ok=False)
    assert run.returncode != 0 and "more than its limit of 40" in run.stderr and "--max-processes" in run.stderr
    # Infinite output; what it wrote before the walltime does not fill the disk, and its end comes back.
    run = slot.farcall("run", "-e", "here", "--no-stream", "--walltime", "3", "--", "bash", "-c", "yes | tail -f -c +1", ok=False)
    assert run.returncode != 0 and "walltime" in run.stderr
    assert slot.farcall("run", "-e", "here", "--", "echo", "fine").stdout == "fine\n"


def test_nothing_that_a_task_started_outlives_it(slot, tmp_path):
    from conftest import is_gone
    from farcall import Executor

    def daemon(path):
        import os
        import subprocess
        import time

        subprocess.Popen(["env", "-i", "setsid", "/bin/sh", "-c", "echo $$ > %s.tmp; mv %s.tmp %s; exec /bin/sleep 1000" % (path, path, path)])
        while not os.path.exists(path):
            time.sleep(0.01)
        return int(open(path).read())

    with Executor("here") as executor:
        pid = executor.submit(daemon, str(tmp_path / "a")).result(60)
    assert is_gone(pid)
    file = tmp_path / "b"
    slot.farcall("run", "-e", "here", "--", "bash", "-c",
                 f"env -i setsid /bin/sh -c 'echo $$ > {file}; exec /bin/sleep 1000' & while [ ! -s {file} ]; do sleep 0.01; done")
    wait_for(lambda: is_gone(int(file.read_text())), "the daemon of a command to be ended")


def test_workers_are_recycled(slot):
    from farcall import Executor

    def pid():
        import os

        return os.getpid()

    with Executor("here") as executor:
        pids = [executor.submit(pid).result(60) for _ in range(12)]
    assert len(set(pids)) == 3


def test_directory_environment_and_sandbox(slot, tmp_path):
    assert slot.farcall("run", "-e", "here", "--cwd", tmp_path, "--env", "X=a b", "--", "bash", "-c", 'pwd; echo "$X"').stdout == f"{tmp_path}\na b\n"
    function = tmp_path / "f.py"
    function.write_text("import os\ndef where():\n    return os.getcwd()\n")
    assert slot.json("call", "-e", "here", "--cwd", str(tmp_path), f"{function}:where")["result"] == str(tmp_path)
    assert "sandboxes" in slot.json("call", "-e", "here", "--sandbox", f"{function}:where")["result"]
    from farcall import Executor, ShellFunction

    def where():
        import os

        return os.getcwd()

    with Executor("here", working_directory=str(tmp_path)) as executor:
        assert executor.submit(where).result(60) == str(tmp_path)
        assert executor.submit(ShellFunction("pwd")).result(60).stdout == f"{tmp_path}\n"
        executor.working_directory = None
        assert executor.submit(where).result(60) != str(tmp_path)
    run = slot.farcall("call", "-e", "here", "--cwd", "/no/such", f"{function}:where", ok=False)
    assert run.returncode == 1 and "/no/such" in run.stderr


def test_what_is_preloaded_is_there_in_every_worker(site, monkeypatch):
    from farcall import Executor

    site.start_relay()
    site.endpoint("here", **{"engine.max_workers_per_node": 2, "engine.worker_recycle_after": 1, "engine.preload": "[colorsys, no_such_module]"})
    monkeypatch.setenv("FARCALL_HOME", str(site.home))

    def loaded():
        import sys

        return "colorsys" in sys.modules

    with Executor("here") as executor:
        assert all(executor.submit(loaded).result(60) for _ in range(4))


def test_tasks_are_bound_to_processors_where_the_endpoint_says_so(site, monkeypatch, tmp_path):
    import farcall

    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        pytest.skip("one processor")
    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    site.start_relay()
    site.endpoint("here", **{"engine.max_workers_per_node": 2, "engine.cpu_affinity": "alternating"})

    def bound(directory=None, mine=0):
        """Of two that run at once, if there is a directory: they wait for one another."""
        import os
        import time

        if directory is not None:
            open(os.path.join(directory, str(mine)), "w").close()
            while len(os.listdir(directory)) < 2:
                time.sleep(0.01)
        return sorted(os.sched_getaffinity(0))

    with farcall.Executor("here") as executor:
        pair = [executor.submit(bound, str(tmp_path), i) for i in range(2)]
        assert sorted(one.result(60) for one in pair) == [usable[0::2], usable[1::2]]
        executor.resource_specification = {"cores": 2}
        assert executor.submit(bound).result(60) == usable
        executor.resource_specification = {}
        assert executor.submit(bound).result(60) in (usable[0::2], usable[1::2])
        command = farcall.ShellFunction("/usr/bin/python3 -c 'import os; print(sorted(os.sched_getaffinity(0)))'")
        assert json.loads(executor.submit(command).result(60).stdout) in (usable[0::2], usable[1::2])
        executor.resource_specification = {"cores": 2}
        assert json.loads(executor.submit(command).result(60).stdout) == usable
