"""Results in one file: what h5py and h5dump see is what the Executor returned."""

import csv
import json
import math
import os
import random
import subprocess
import sys

import h5py
import numpy
from conftest import ROOT

HEAT = ROOT / "examples" / "heat"


def simulate(n, scale):
    """A field, its sum, and a name; every third one is larger."""
    import numpy as np

    size = 5 if n % 3 == 2 else 4
    return {"field": scale * np.arange(n, n + size, dtype="f4"), "sum": np.float64(n) / 3, "name": "ü%d" % n, "raw": b"\0x" * n}


def test_campaign_of_the_executor_has_its_values_and_its_source(here, tmp_path):
    from farcall import Executor

    out = tmp_path / "out.h5"
    with Executor("here", task_group_id="fields") as executor:
        first = [executor.submit(simulate, n, scale=numpy.float32(0.5)).result(60) for n in range(4)]
        here.farcall("group", "results", "fields", "-o", out)
        inode = out.stat().st_ino
        second = [executor.submit(simulate, n, scale=1.5).result(60) for n in range(4, 10)]
        failing = executor.submit(simulate, "text", scale=1)
        assert isinstance(failing.exception(60), TypeError)
    run = here.farcall("group", "results", "fields", "-o", out, ok=False)
    assert run.returncode == 1 and "7 new results (1 failed) added to the 4 in" in run.stdout
    assert out.stat().st_ino != inode
    assert "0 new results (0 failed) added to the 11 in" in here.farcall("group", "results", "fields", "-o", out).stdout

    with h5py.File(out) as file:
        tasks = file["tasks"][:]
        assert [state.decode() for state in tasks["state"]] == ["succeeded"] * 10 + ["failed"]
        assert tasks["error"][10].decode().startswith("TypeError: ")
        assert tasks["arg_scale"].tolist() == [0.5] * 4 + [1.5] * 6 + [1.0]
        assert tasks["arg_0"][:10].tolist() == list(range(10)) and tasks["arg_0_text"][10] == b"text"
        for n, expected in enumerate(first + second):
            row = file["by_task"][tasks["task_id"][n].decode()]["result"]
            stacked = len(expected["field"]) == 4
            found = file["results/field"][n] if stacked else row["field"][:]
            assert found.dtype == expected["field"].dtype and (found == expected["field"]).all()
            assert file["results/sum"][n] == expected["sum"] and file["results/name"].asstr()[n] == expected["name"]
            assert row["raw"][:].tobytes() == expected["raw"] if n else True
        assert file["missing/results/field"][:].tolist() == [2, 5, 8, 10]
        assert (tasks["started_ms"][:10] <= tasks["ended_ms"][:10]).all() and (tasks["submitted_ms"] > 0).all()
        (function,) = file["functions"].values()
        assert "every third one is larger" in function["source"].asstr()[()]
        assert function.attrs["python_version"] == sys.version.split()[0]
        assert {entry.attrs["endpoint_name"] for entry in file["submissions"].values()} == {"here"}
    header = subprocess.run(["h5dump", "-H", out], capture_output=True, text=True, check=True).stdout
    assert 'DATASET "tasks"' in header and 'DATASET "field"' in header and "arg_scale" in header


def test_heat_sweep_in_one_file_equals_the_executor(here, tmp_path):
    sys.path.insert(0, str(HEAT))
    import heat
    import inputs
    from farcall import Executor

    cases = [dict(case, cells=24, steps=8) for case in inputs.cases()]
    rows, out = tmp_path / "inputs.jsonl", tmp_path / "heat.h5"
    rows.write_text("".join(json.dumps(case) + "\n" for case in cases))
    here.farcall("map", "-e", "here", f"{HEAT / 'heat.py'}:solve", rows, "-o", out)
    with Executor("here") as executor:
        expected = [future.result(60) for future in [executor.submit(heat.solve, **case) for case in cases]]
    with h5py.File(out) as file:
        tasks = file["tasks"][:]
        assert tasks["index"].tolist() == list(range(64)) and set(tasks["state"]) == {b"succeeded"}
        assert tasks["arg_diffusivity"].tolist() == [case["diffusivity"] for case in cases]
        for key in set(expected[0]) - {"seconds", "host", "kind", "error_max"}:
            found = file["results"][key][:]
            assert numpy.array_equal(found, numpy.array([value[key] for value in expected])), key
        assert list(file["results/kind"].asstr()[:]) == [value["kind"] for value in expected]
        errors = file["results/error_max"][:]
        wanted = [value.get("error_max", math.nan) for value in expected]
        assert numpy.array_equal(errors, numpy.array(wanted), equal_nan=True)
        lacking = [i for i, value in enumerate(expected) if "error_max" not in value]
        assert file["missing/results/error_max"][:].tolist() == lacking
        (function,) = file["functions"].values()
        assert function["source"].asstr()[()] == (HEAT / "heat.py").read_text()
    header = subprocess.run(["h5dump", "-H", out], capture_output=True, text=True, check=True).stdout
    fields = numpy.shape([value["field"] for value in expected])
    assert 'DATASET "field"' in header and "( %d, %d, %d )" % fields in header and 'DATASET "error_max"' in header
    again = here.farcall("map", "-e", "here", f"{HEAT / 'heat.py'}:solve", rows, "-o", out)
    assert "is complete" in again.stderr


def test_lines_are_added_to_and_never_lost(here, tmp_path):
    def ids(path):
        if path.suffix == ".csv":
            return [row["task_id"] for row in csv.DictReader(path.open())]
        return [json.loads(line)["task_id"] for line in path.read_text().splitlines()]

    here.farcall("submit", "-e", "here", "--group", "lines", "--count", "3", "--", "echo", "a, \"b\"")
    for name in ("out.jsonl", "out.csv"):
        out = tmp_path / name
        here.farcall("group", "results", "lines", "--wait", "-o", out)
        before, content = ids(out), out.read_text()
        assert len(before) == (3 if name == "out.jsonl" else 5)
        here.farcall("submit", "-e", "here", "--group", "lines", "--count", "2", "--", "echo", "c")
        answer = here.json("group", "results", "lines", "--wait", "-o", out)
        assert answer["added"] >= 2 and answer["results"] == len(ids(out)) == len(set(ids(out)))
        assert out.read_text().startswith(content), "what was there is untouched"
    foreign = tmp_path / "mine.jsonl"
    foreign.write_text('{"x": 1}\n')
    refused = here.farcall("group", "results", "lines", "-o", foreign, ok=False)
    assert refused.returncode == 73 and "mine.jsonl exists and is no result file with task ids (line 1)" in refused.stderr
    assert foreign.read_text() == '{"x": 1}\n'


def test_arrays_arrive_as_they_were_and_can_be_changed(here):
    from farcall import Executor

    def twice(a, b):
        assert a.flags.writeable
        a *= 2
        return {"a": a, "pair": (b, {"deep": [a[:, ::2]]})}

    a, b = numpy.random.default_rng(1).random((300, 200)), numpy.array(["x", "ü"])
    with Executor("here") as executor:
        got = executor.submit(twice, a, b=b).result(60)
    assert (got["a"] == 2 * a).all() and got["a"].flags.writeable
    assert (got["pair"][0] == b).all() and (got["pair"][1]["deep"][0] == 2 * a[:, ::2]).all()


def cube(shape, kind):
    """As many numbers as fit into the shape, each another, so that a wrong place shows."""
    import numpy

    return numpy.arange(numpy.prod(shape)).astype(kind).reshape(shape)


SHAPES = [((400_000,), "f8"), ((700, 500), ">i4"), ((80, 90, 70), "f4"), ((20, 30, 25, 40), "u4")]


def some_key(chance, shape):
    """Of a part: numbers and slices with steps and from the end."""
    key = []
    for size in shape[: chance.randint(1, len(shape))]:
        ends = sorted(chance.randint(-size - 2, size + 2) for _ in range(2))
        key.append(chance.randrange(-size, size) if chance.random() < 0.25 else slice(*ends, chance.choice([None, 1, 2, 7])))
    return tuple(key)


def test_random_parts_of_arrays_at_their_endpoint_equal_numpys(here):
    """Through relay, interchange and the HDF5 file. FARCALL_TEST_SEED=n: that seed."""
    from farcall import Executor

    seed = int(os.environ.get("FARCALL_TEST_SEED", random.randrange(1 << 30)))
    chance = random.Random(seed)
    with Executor("here", result="reference") as executor:
        futures = [executor.submit(cube, shape, kind) for shape, kind in SHAPES]
        for (shape, kind), future in zip(SHAPES, futures):
            ref, array = future.result(60), cube(shape, kind)
            assert ref.shape == shape and ref.dtype == array.dtype and ref.nbytes == array.nbytes
            for _ in range(6):
                key = some_key(chance, shape)
                found, expected = ref[key], array[key]
                assert numpy.shape(found) == expected.shape and numpy.array_equal(found, expected), (seed, shape, key)
