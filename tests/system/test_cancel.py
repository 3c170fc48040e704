"""Cancelling from Python: what runs, what is queued, and what is still on its way."""

import concurrent.futures
import os
import pathlib
import time

import pytest

from conftest import a_site, is_gone, wait_for

WAIT_S = 120
RUNNING, QUEUED = 100, 900


@pytest.fixture(name="wide", scope="module")
def _wide(request):
    """An endpoint with a hundred workers."""
    with a_site(lambda: request.session.testsfailed) as site, pytest.MonkeyPatch.context() as patch:
        site.start_relay()
        site.endpoint("here", **{"engine.max_workers_per_node": RUNNING})
        patch.setenv("FARCALL_HOME", str(site.home))
        yield site


def sleeper(directory):
    """Leaves its process ids behind: its own and a child's."""
    import os
    import subprocess
    import time

    child = subprocess.Popen(["sleep", "3600"])
    with open(os.path.join(directory, "%d.tmp" % os.getpid()), "w") as file:
        file.write("%d %d" % (os.getpid(), child.pid))
    os.rename(file.name, file.name[:-4])
    time.sleep(3600)


def test_a_thousand_sleeping_tasks(wide, tmp_path):
    import farcall

    with farcall.Client() as client:
        with farcall.Executor("here", client=client) as executor:
            futures = [executor.submit(sleeper, str(tmp_path)) for _ in range(RUNNING + QUEUED)]
            begun = lambda: [path for path in tmp_path.iterdir() if path.suffix != ".tmp"]  # noqa: E731
            wait_for(lambda: len(begun()) == RUNNING, "a hundred tasks to run", WAIT_S)
            wait_for(lambda: sum(future.running() for future in futures) == RUNNING, "all of them to be known as running", WAIT_S)
            states = [task["state"] for task in client.list_tasks(group=executor.task_group_id)]
            assert states.count("running") == RUNNING and len(states) == RUNNING + QUEUED
            pids = [int(pid) for path in begun() for pid in path.read_text().split()]
            assert len(pids) == 2 * RUNNING

            ids = [future.task_id for future in futures]
            begin = time.monotonic()
            counts = client.cancel(ids)
            said = time.monotonic() - begin
            assert sum(counts.values()) == RUNNING + QUEUED and counts["finished"] == 0
            concurrent.futures.wait(futures, WAIT_S)
            assert all(future.cancelled() for future in futures)
            known = time.monotonic() - begin
            wait_for(lambda: all(map(is_gone, pids)), "the processes of the tasks to end")
            ended = time.monotonic() - begin
            slots = lambda: client.get_endpoint_status("here")["details"]["slots"]  # noqa: E731
            wait_for(lambda: slots() == {"total": RUNNING, "busy": 0}, "every worker to be free")
            free = time.monotonic() - begin
            # Every worker is free again: as many tasks as there are workers run at the same time.
            meeting = tmp_path / "meeting"
            meeting.mkdir()
            assert list(executor.map(meet, [str(meeting)] * RUNNING, [RUNNING] * RUNNING)) == [RUNNING] * RUNNING
            print("after the cancel began: answered %.2f s, known to all futures %.2f s, no process left %.2f s, every worker free %.2f s, "
                  "as many tasks as before run at once %.2f s" % (said, known, ended, free, time.monotonic() - begin))
        assert len(begun()) == RUNNING + 1, "a task that was queued has run"
        states = [task["state"] for task in client.list_tasks(group=executor.task_group_id, state="cancelled", page_size=100)]
        assert len(states) == RUNNING + QUEUED


def meet(directory, count):
    """Ends when so many of them run at once."""
    import os
    import time

    open(os.path.join(directory, str(os.getpid())), "w").close()
    deadline = time.monotonic() + 100
    while len(os.listdir(directory)) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return len(os.listdir(directory))


def test_cancel_leaves_a_task_that_runs_alone_unless_asked(wide):
    import farcall

    with farcall.Executor("here") as executor:
        future = executor.submit(time.sleep, 3600)
        wait_for(future.running, "the task to run", WAIT_S)
        assert future.cancel() is False and not future.done()
        assert future.cancel(running=True) or wait_for(future.cancelled, "the cancel")
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(0)


def test_what_is_queued_at_the_endpoint_or_for_one_that_is_away_is_cancelled_for_sure(site, monkeypatch):
    import farcall

    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    site.start_relay()
    site.endpoint("one", **{"engine.max_workers_per_node": 1})
    with farcall.Executor("one") as executor:
        first = executor.submit(time.sleep, 3600)
        wait_for(first.running, "the first task to run")
        queued = executor.submit(os.getpid)
        assert queued.cancel() is True and queued.cancelled()
        site.farcall("endpoint", "stop", "one")
        away = executor.submit(os.getpid)
        assert away.cancel() is True
        assert executor.client.cancel([first.task_id], force=True)["cancelled"] == 1
        assert pathlib.Path(site.home).exists() and wait_for(first.cancelled, "a forced cancel")
