"""What a new user does in the first hour, on one machine."""

import concurrent.futures
import json
import os
import stat
import subprocess


def test_run_gives_output_bytes_and_exit_code(here):
    run = here.farcall("run", "-e", "here", "--", "bash", "-c", "printf 'a\\377b\\n'; echo err >&2; exit 3", ok=False, text=False)
    assert run.stdout == b"a\xffb\n"
    assert run.stderr == b"err\n"
    assert run.returncode == 3


def test_call_and_map_keep_the_order(here, tmp_path):
    module = tmp_path / "calc.py"
    module.write_text("import math\n\ndef root(x, scale=1):\n    return scale * math.sqrt(x)\n")
    assert here.farcall("call", "-e", "here", f"{module}:root", "16").stdout.strip() == "4.0"
    inputs = tmp_path / "in.jsonl"
    inputs.write_text("".join(json.dumps({"x": i * i, "scale": 2}) + "\n" for i in range(500)))
    output = tmp_path / "out.jsonl"
    here.farcall("map", "-e", "here", f"{module}:root", inputs, "-o", output)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["result"] for row in rows] == [2.0 * i for i in range(500)]
    assert [row["index"] for row in rows] == list(range(500))


def test_executor_is_one_of_concurrent_futures(here):
    from farcall import Executor, ShellFunction

    def add(a, b=1):
        return a + b

    with Executor("here") as executor:
        futures = [executor.submit(add, i, b=10) for i in range(300)]
        assert sorted(f.result(60) for f in concurrent.futures.as_completed(futures, 60)) == [i + 10 for i in range(300)]
        assert list(executor.map(add, range(50), range(50), timeout=60)) == [2 * i for i in range(50)]
        assert executor.submit(os.getpid).result(60) != os.getpid()
        result = executor.submit(ShellFunction("echo {word} | tr a-z A-Z"), word="it's {x}").result(60)
        assert result.stdout == "IT'S {X}\n" and result.returncode == 0
    assert executor.submit.__self__ is executor


def test_exceptions_arrive_as_their_own_type(here):
    from farcall import Executor

    def divide(a, b):
        return a / b

    with Executor("here") as executor:
        error = executor.submit(divide, 1, 0).exception(60)
    assert isinstance(error, ZeroDivisionError)
    assert "in divide" in str(error.__cause__)


def test_secrets_are_ours_alone(here):
    for path in [here.home / "identity", here.home / "relay" / "key", here.home / "endpoints" / "here" / "key"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(here.home.stat().st_mode) == 0o700
    secret = json.loads((here.home / "identity").read_text())["secret_key"]
    for command in ("whoami", "endpoint status here", "relay status", "endpoint list"):
        shown = here.farcall(*command.split())
        assert secret not in shown.stdout + shown.stderr
    for words in subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True).stdout.splitlines():
        assert secret not in words


def test_two_homes_never_meet(here, tmp_path_factory):
    from conftest import Site

    other = Site(here.home / "other")
    other.start_relay()
    try:
        assert other.json("endpoint", "list")["endpoints"] == []
        missing = other.farcall("run", "-e", "here", "--", "true", ok=False)
        assert missing.returncode == 66 and "here" in missing.stderr
    finally:
        other.close()


def test_cancel_frees_the_worker(here, tmp_path):
    ids = here.json("submit", "-e", "here", "--group", "naps", "--count", "6", "--", "sleep", "1000")
    from conftest import wait_for

    wait_for(lambda: any(t["state"] == "running" for t in here.json("task", "list", "--group", "naps")["tasks"]), "a task to run")
    here.farcall("group", "cancel", "naps")
    wait_for(lambda: all(t["state"] == "cancelled" for t in here.json("task", "list", "--group", "naps")["tasks"]), "all to be cancelled")
    assert here.farcall("run", "-e", "here", "--", "echo", "free", timeout=60).stdout == "free\n"
    assert ids
