"""What a task says and prints while it runs reaches those who wait."""

import os
import pty
import select
import subprocess

import pytest

from conftest import BUILD, wait_for

FUNCTION = """
import os, sys, time, farcall
def f(gate):
    print("printed")
    farcall.progress(3, 10, "meshing")
    while not os.path.exists(gate): time.sleep(0.02)
    return 1
"""


@pytest.fixture
def function(here, tmp_path):
    (tmp_path / "f.py").write_text(FUNCTION)
    return f"{tmp_path / 'f.py'}:f"


def start(site, *words, **options):
    return subprocess.Popen([BUILD / "bin" / "farcall", *words], env=site.environment(), text=True, **options)


def test_in_the_status_of_a_task(here, function, tmp_path):
    gate = tmp_path / "gate"
    task = here.farcall("submit", "-e", "here", function, gate).stdout.strip()
    said = wait_for(lambda: here.json("task", "status", task)["progress"], "progress in the status")
    assert said == {"done": 3, "total": 10, "note": "meshing"}
    assert "progress  3/10 (30%)  meshing" in here.farcall("task", "status", task).stdout
    gate.touch()
    here.farcall("task", "wait", task)
    assert here.json("task", "status", task)["progress"] is None


def test_in_the_bar_of_a_sweep(here, function, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f'["{tmp_path / "gate"}"]\n')
    terminal, its_end = pty.openpty()
    sweep = start(here, "map", "-e", "here", function, rows, "-o", tmp_path / "out.jsonl", stderr=its_end)
    os.close(its_end)
    shown = b""

    def is_shown():  # the function cannot end before it is told to
        nonlocal shown
        if select.select([terminal], [], [], 0)[0]:
            shown += os.read(terminal, 4096)
        return b"task 0: 3/10 meshing" in shown

    wait_for(is_shown, "progress in the bar")
    assert b" 30%  " in shown
    (tmp_path / "gate").touch()
    assert sweep.wait(60) == 0
    os.close(terminal)


def test_output_of_a_command_is_shown_while_it_runs(here, tmp_path):
    gate = tmp_path / "gate"
    script = f"echo first; while [ ! -e {gate} ]; do sleep 0.05; done; echo second; echo third >&2"
    run = start(here, "run", "-e", "here", "--", "bash", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # The command cannot end before it is told to: what is read now was streamed.
    assert run.stdout.readline() == "first\n"
    gate.touch()
    assert run.communicate(timeout=60) == ("second\n", "third\n") and run.returncode == 0


def test_long_output_arrives_whole_or_says_what_is_missing(here):
    run = here.farcall("run", "-e", "here", "--", "seq", "200000")
    numbers = [int(line) for line in run.stdout.splitlines() if line.isdigit()]
    assert numbers[-1] == 200000
    assert len(run.stdout) == len("".join("%d\n" % n for n in range(1, 200001))) or "bytes of output are not shown here" in run.stderr


def test_output_of_a_function_is_shown_when_asked_for(here, function, tmp_path):
    gate = tmp_path / "gate"
    call = start(here, "call", "-e", "here", "--stream", function, gate, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert call.stderr.readline() == "printed\n"
    gate.touch()
    assert call.communicate(timeout=60)[0] == "1\n"


def test_in_python(here, tmp_path):
    from farcall import Executor, NativeFunction, Progress, progress

    gate = tmp_path / "gate"

    def f(gate):
        import os
        import time

        progress(1, 2, "half")
        while not os.path.exists(gate):
            time.sleep(0.02)

    progress(1)  # at home it does nothing
    with Executor("here") as executor:
        future = executor.submit(f, str(gate))
        wait_for(lambda: future.progress == Progress(1, 2, "half"), "progress at the future")
        gate.touch()
        assert future.result(60) is None
        steps = executor.submit(NativeFunction(BUILD / "tests" / "testfunctions.so", "steps"), 5)
        assert steps.result(60) == 5
        assert steps.progress == Progress(5, 5, "step 5")
