"""Processes killed with -9 at the worst moment: nothing is lost, nothing is recorded twice."""

import json
import os
import signal

from conftest import wait_for

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


def test_a_pilot_killed_in_the_middle(here, tmp_path):
    submit(here, tmp_path, 500, "killed", nap=0.01)
    wait_for(lambda: len(ran(tmp_path)) > 50, "some tasks to run")
    (pilot,) = here.pilots()
    os.kill(pilot, signal.SIGKILL)
    check(results(here, "killed", tmp_path), 500)
    # Each once: what the relay has recorded is one outcome a task, whatever ran twice.
    listed = here.json("task", "list", "--group", "killed", "--limit", "1000")["tasks"]
    assert len(listed) == 500 and {task["state"] for task in listed} == {"succeeded"}


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
