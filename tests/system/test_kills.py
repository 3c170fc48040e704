"""Processes killed with -9 at the worst moment: nothing is lost, nothing is recorded twice."""

import json
import os
import re
import signal

import pytest
from conftest import is_gone, wait_for

MARKER = """
import os, time

def work(i, directory, nap=0.02):
    with open(os.path.join(directory, "ran"), "a") as log:
        log.write(f"{i}\\n")
    time.sleep(nap)
    return i * i
"""


def write_inputs(tmp_path, count, nap):
    module = tmp_path / "work.py"
    module.write_text(MARKER)
    inputs = tmp_path / "in.jsonl"
    inputs.write_text("".join(json.dumps({"i": i, "directory": str(tmp_path), "nap": nap}) + "\n" for i in range(count)))
    return module, inputs


def ran(tmp_path):
    try:
        return [int(line) for line in (tmp_path / "ran").read_text().splitlines()]
    except FileNotFoundError:
        return []


# Ends only when it may, and leaves a mark at its start and at its end.
GATED = """
import os, time

def work(i, directory):
    with open(os.path.join(directory, "ran"), "a") as log:
        log.write(f"{i}\\n")
    while not os.path.exists(os.path.join(directory, "go")):
        time.sleep(0.02)
    open(os.path.join(directory, f"ended-{i}"), "w").close()
    return i * i
"""


def submit(site, tmp_path, count, group, nap=0.02):
    module, inputs = write_inputs(tmp_path, count, nap)
    site.farcall("submit", "-e", "here", "--group", group, "--inputs", inputs, f"{module}:work")


def results(site, group, tmp_path, timeout=120):
    output = tmp_path / "results.jsonl"
    site.farcall("group", "results", group, "--wait", "-o", output, timeout=timeout)
    return [json.loads(line) for line in output.read_text().splitlines()]


def check(rows, count):
    assert len(rows) == count
    assert {row["state"] for row in rows} == {"succeeded"}
    assert sorted(row["result"] for row in rows) == [i * i for i in range(count)]


def test_fire_and_forget_through_two_kills(here, tmp_path):
    submit(here, tmp_path, 100, "forget", nap=0.05)
    wait_for(lambda: len(ran(tmp_path)) > 5, "the first tasks to run")
    address = here.relay_address()
    here.kill("relay/relay.pid")
    here.kill("endpoints/here/interchange.pid")
    here.start_relay(address)
    here.farcall("endpoint", "start", "here")
    check(results(here, "forget", tmp_path), 100)
    # Pilots outlive their interchange: what ran was adopted and not run again.
    assert sorted(ran(tmp_path)) == list(range(100))


def test_nothing_acknowledged_is_lost_with_no_interchange_running(here, tmp_path):
    here.farcall("endpoint", "stop", "here")
    submit(here, tmp_path, 50, "waiting")
    here.kill("relay/relay.pid")
    here.start_relay(here.relay_address())
    here.farcall("endpoint", "start", "here")
    check(results(here, "waiting", tmp_path), 50)


def test_a_drain_is_not_forgotten(here, tmp_path):
    here.farcall("endpoint", "drain", "here")
    here.kill("endpoints/here/interchange.pid")
    here.farcall("endpoint", "start", "here")
    submit(here, tmp_path, 3, "drained")
    task = here.json("task", "list", "--group", "drained")["tasks"][0]["task_id"]
    wait_for(lambda: "the endpoint is drained" in here.farcall("task", "explain", task).stdout, "explain to say that it is drained")
    assert not here.pilots() and not ran(tmp_path)
    here.farcall("endpoint", "resume", "here")
    check(results(here, "drained", tmp_path), 3)


def test_a_pilot_killed_in_the_middle(here, tmp_path):
    submit(here, tmp_path, 500, "killed", nap=0.01)
    wait_for(lambda: len(ran(tmp_path)) > 50, "some tasks to run")
    (pilot,) = here.pilots()
    os.kill(pilot, signal.SIGKILL)
    check(results(here, "killed", tmp_path), 500)
    # Each once: what the relay has recorded is one outcome a task, whatever ran twice.
    listed = here.json("task", "list", "--group", "killed", "--limit", "1000")["tasks"]
    assert len(listed) == 500 and {task["state"] for task in listed} == {"succeeded"}


def left_files(site):
    """Those that are complete: one that is still being written has a longer name, and dies with its pilot."""
    found = (site.home / "endpoints/here/blocks").glob("*/results-*")
    return [file for file in found if re.fullmatch(r"results-[0-9a-f-]+-\d+", file.name)]


def end_tasks_without_interchange(site, tmp_path, count):
    """`count` tasks run on the one pilot; they end after the interchange was killed. The pilot's pid."""
    module = tmp_path / "gated.py"
    module.write_text(GATED)
    inputs = tmp_path / "in.jsonl"
    inputs.write_text("".join(json.dumps({"i": i, "directory": str(tmp_path)}) + "\n" for i in range(count)))
    site.farcall("submit", "-e", "here", "--group", "left", "--inputs", inputs, f"{module}:work")
    status = lambda: site.json("endpoint", "status", "here").get("status") or {}  # noqa: E731
    # Half of them run and half lie ready on the node.
    wait_for(lambda: len(ran(tmp_path)) == count // 2 and status().get("queued") == 0, "all to be on the node")
    site.kill("endpoints/here/interchange.pid")
    (tmp_path / "go").touch()
    wait_for(lambda: len(list(tmp_path.glob("ended-*"))) == count, "all to have ended")
    (pilot,) = site.pilots()
    return pilot


def collect_what_was_left(site, tmp_path, count):
    site.farcall("endpoint", "start", "here")
    check(results(site, "left", tmp_path), count)
    assert sorted(ran(tmp_path)) == list(range(count))  # none ran twice
    wait_for(lambda: not left_files(site), "the files to be gone")


@pytest.fixture
def four(site):
    site.start_relay()
    site.endpoint("here", **{"engine.max_workers_per_node": 4, "engine.prefetch_capacity": 4})
    return site


def test_results_of_a_block_that_ends_while_no_interchange_runs(four, tmp_path):
    pilot = end_tasks_without_interchange(four, tmp_path, 8)
    os.kill(pilot, signal.SIGTERM)  # as the scheduler does at the end of the allocation
    wait_for(lambda: is_gone(pilot), "the pilot to end")
    assert left_files(four)
    collect_what_was_left(four, tmp_path, 8)


def test_results_that_outlive_a_pilot_killed_while_no_interchange_runs(four, tmp_path):
    pilot = end_tasks_without_interchange(four, tmp_path, 8)
    values = lambda: {int(v) for file in left_files(four) for v in re.findall(rb"J(\d+)", file.read_bytes())}  # noqa: E731
    # Each is in a file some seconds after it came.
    wait_for(lambda: {i * i for i in range(8)} <= values(), "all results to be saved")
    os.kill(pilot, signal.SIGKILL)
    wait_for(lambda: is_gone(pilot), "the pilot to die")
    collect_what_was_left(four, tmp_path, 8)


def test_an_endpoint_that_was_stopped_is_offline_at_once(here):
    assert here.json("endpoint", "list")["endpoints"][0]["online"]
    here.farcall("endpoint", "stop", "here")
    # One look, no waiting: it said goodbye.
    assert not here.json("endpoint", "list")["endpoints"][0]["online"]


def test_a_worker_killed_under_its_task_is_replaced(here, tmp_path):
    from farcall import Executor

    def die_once(path):
        import os
        import signal as s

        if not os.path.exists(path):
            open(path, "w").close()
            os.kill(os.getpid(), s.SIGKILL)
        return "second attempt"

    with Executor("here") as executor:
        assert executor.submit(die_once, str(tmp_path / "mark")).result(60) == "second attempt"
        assert executor.submit(pow, 2, 10).result(60) == 1024
