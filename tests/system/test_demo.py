"""scripts/demo from beginning to end, and the compiled solver of its example through an endpoint."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import h5py
import pytest
from conftest import BUILD, ROOT, show_logs, wait_for

HEAT = ROOT / "examples" / "heat"
sys.path.insert(0, str(HEAT))
import heat  # noqa: E402
import inputs  # noqa: E402

OF_THE_RUN = {"host", "seconds"}  # differ from one run to the next


@pytest.fixture
def build():
    """A build folder of its own with the programs of the real one: the demo writes into it."""
    (BUILD / "sites").mkdir(exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(dir=BUILD / "sites", prefix="d"))
    for name in ("bin", "lib", "python"):
        (folder / name).symlink_to(BUILD / name)
    yield folder
    left = processes_of(folder)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)


def processes_of(folder):
    """pids of what has the demo's folder in its command line or environment."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(folder / "demo") in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended
    return found


def demo(build, **options):
    words = [ROOT / "scripts" / "demo", "--no-build"]
    return subprocess.Popen(words, env={**os.environ, "FARCALL_BUILD": str(build)}, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, **options)


def serial():
    """What the solver gives for each case, one after the other in this process."""
    return [{key: value for key, value in heat.solve(**case).items() if key not in OF_THE_RUN} for case in inputs.cases()]


def test_the_demo(build):
    process = demo(build)
    out, _ = process.communicate(timeout=300)
    left = processes_of(build)
    if process.returncode != 0:
        show_logs(build / "demo" / "home")
    assert process.returncode == 0, out
    assert "\n64 of 64 cases right; " in out, out
    assert not left, "still running: %s" % left

    expected = serial()
    rows = [json.loads(line) for line in (build / "demo" / "results.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(64)) and {row["state"] for row in rows} == {"succeeded"}
    found = [{key: value for key, value in row["result"].items() if key not in OF_THE_RUN} for row in rows]
    assert found == expected
    # The table that is printed: a diffusivity a line, first the peak of the plate that cools.
    printed = {float(line.split()[0]): line.split()[1:] for line in out.splitlines() if line.split()[:1] and line.split()[0][:2] == "0."}
    for i, diffusivity in enumerate(inputs.DIFFUSIVITIES):
        mode, *heated = expected[8 * i : 8 * i + 8]
        cells = printed[round(diffusivity, 4)]
        assert cells[0] == "%.5f" % mode["peak"] and cells[3] == "%.5f" % max(one["peak"] for one in heated)
    picture = (build / "demo" / "heat.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n") and picture.rstrip(b"\0").endswith(b"IEND\xaeB`\x82")
    width, height = int.from_bytes(picture[16:20], "big"), int.from_bytes(picture[20:24], "big")
    assert width >= 600 and height >= 300, (width, height)
    with h5py.File(build / "demo" / "heat.h5") as file:
        assert set(file["tasks"]["state"]) == {b"succeeded"}
        assert sorted(file["results/peak"][:]) == sorted(one["peak"] for one in expected)


def test_a_demo_that_is_interrupted_leaves_nothing_running(build):
    process = demo(build, start_new_session=True)
    wait_for((build / "demo" / "inputs.jsonl").exists, "the sweep to begin")
    assert processes_of(build)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "demo: failed (130); logs: " in out, out
    assert not processes_of(build)


def test_the_compiled_solver_as_a_command(here):
    for case in list(inputs.cases())[::21]:
        options = [word for key, value in case.items() for word in ("--" + key.replace("_", "-"), str(value))]
        run = here.farcall("run", "-e", "here", "--", BUILD / "examples" / "heat", *options, "--json")
        compiled, python = json.loads(run.stdout), heat.solve(**case)
        assert set(compiled) == set(python)
        for key in set(python) - OF_THE_RUN - {"budget_residual", "error_max", "kind", "field"}:
            assert compiled[key] == pytest.approx(python[key], rel=1e-10), key
        assert [len(row) for row in compiled["field"]] == [32] * 32
        for ours, theirs in zip(compiled["field"], python["field"]):
            assert ours == pytest.approx(theirs, abs=2e-6)  # both are rounded to 6 digits
    wrong = here.farcall("run", "-e", "here", "--", BUILD / "examples" / "heat", "--diffusivity", "nan", ok=False)
    assert (wrong.returncode, wrong.stdout) == (64, "") and "diffusivity is nan, expected a positive number" in wrong.stderr
