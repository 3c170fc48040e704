"""C++ functions of a shared object, called from the command line and from Python."""

import json
import math
import os
import shutil
import subprocess

import pytest

from conftest import BUILD

LIBRARY = BUILD / "tests" / "testfunctions.so"


def test_from_the_command_line(here):
    assert here.farcall("call", "-e", "here", f"{LIBRARY}:sum", "[1, 2.5]").stdout == "3.5\n"
    function = here.farcall("function", "register", f"{LIBRARY}:add").stdout.strip()
    assert here.farcall("call", "-e", "here", function, "2", "40").stdout == "42\n"
    assert here.json("call", "-e", "here", f"{LIBRARY}:nan")["result"] == [None, None, 1.0]


def test_a_sweep_over_structs(here, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"length": n, "parts": n, "loads": [n, 0]}) + "\n" for n in range(20)))
    here.farcall("map", "-e", "here", f"{LIBRARY}:bend", rows, "-o", tmp_path / "out.jsonl")
    results = [json.loads(line)["result"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert results[3] == {"length": 1.5, "loads": [0.0, 3.0], "parts": 6} and len(results) == 20


def test_from_python(here):
    from farcall import Executor, NativeFunction

    integrate, bytes_, bend = (NativeFunction(LIBRARY, name) for name in ("integrate", "bytes", "bend"))
    with Executor("here") as executor:
        futures = [executor.submit(integrate, 0.0, math.pi, 1000 + i) for i in range(50)]
        assert all(future.result(60) == pytest.approx(2, abs=1e-5) for future in futures)
        assert executor.submit(bytes_, b"\x00\xff").result(60) == b"\xff\x00"
        assert executor.submit(bend, length=4, parts=1, loads=[]).result(60)["length"] == 2
        assert math.isnan(executor.submit(NativeFunction(LIBRARY, "nan")).result(60)[0])
        identity = executor.register_function(NativeFunction(LIBRARY, "add"))
        assert executor.submit_to_registered_function(identity, (1, 2)).result(60) == 3


def test_errors(here, tmp_path):
    from farcall import Executor, NativeFunction, NotFound, SerializationError, TaskExecutionFailed, WorkerCrashed

    run = here.farcall("call", "-e", "here", f"{LIBRARY}:ad", ok=False)
    assert run.returncode == 66 and "did you mean add?; it has: add, again" in run.stderr
    text = tmp_path / "lib.so"
    text.write_text("hello")
    run = here.farcall("function", "register", f"{text}:f", ok=False)
    assert run.returncode == 64 and "no ELF shared object: it has 5 bytes and begins with 'hello'" in run.stderr
    run = here.farcall("call", "-e", "here", f"{LIBRARY}:add", "1", "x", ok=False)
    assert run.returncode == 1 and 'argument 2 is a text, "x"; expected a whole number' in run.stderr
    with pytest.raises(NotFound):
        NativeFunction(LIBRARY, "none")
    with Executor("here") as executor:
        with pytest.raises(SerializationError, match="not <class 'object'>"):
            executor.submit(NativeFunction(LIBRARY, "add"), object(), 1)
        error = executor.submit(NativeFunction(LIBRARY, "throws"), "too hot").exception(60)
        assert type(error) is TaskExecutionFailed and "Unstable: too hot" in str(error)
        error = executor.submit(NativeFunction(LIBRARY, "crash")).exception(60)
        assert isinstance(error, WorkerCrashed) and "signal 11" in str(error) and "about to crash" in str(error)
        assert executor.submit(NativeFunction(LIBRARY, "add"), 1, 1).result(60) == 2


def test_large_arguments_and_results_are_blobs(here):
    from farcall import Executor, NativeFunction

    data = os.urandom(9 << 20)  # beyond what a message may have
    with Executor("here") as executor:
        bytes_, sum_ = (NativeFunction(LIBRARY, name) for name in ("bytes", "sum"))
        assert executor.submit(bytes_, data).result(120) == bytes(b ^ 0xFF for b in data)
        assert executor.submit(sum_, [0.5] * 200_000).result(120) == 100_000
        kept = list((here.home / "endpoints" / "here" / "results").glob("*.h5"))
        assert len(kept) == 1 and kept[0].stat().st_size > len(data)
        shutil.rmtree(kept[0].parent)
        error = executor.submit(bytes_, data).exception(120)
        assert "the result of bytes, 9437" in str(error) and "endpoints/here/results: No such file or directory" in str(error), error


def test_the_executor_of_cpp(here):
    done = subprocess.run([BUILD / "tests" / "executor_cpp"], env=here.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
