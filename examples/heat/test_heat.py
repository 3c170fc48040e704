import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from check import problems_of
from heat import solve
from inputs import cases

HERE = Path(__file__).parent


def run_compiled(**case):
    options = [text for key, value in case.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    return subprocess.run([os.environ["HEAT_PROGRAM"], *options, "--json"], capture_output=True, text=True)


def solve_compiled(**case):
    run = run_compiled(**case)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def sweep():
    # Through JSON, as the results travel.
    return [
        json.loads(json.dumps({"index": i, "state": "succeeded", "result": solve(**case), "error": None}))
        for i, case in enumerate(cases())
    ]


@pytest.fixture
def rows(sweep):
    return copy.deepcopy(sweep)


@pytest.mark.parametrize("solver", [solve, solve_compiled])
@pytest.mark.parametrize("power", [0, 3])
def test_second_order_against_the_exact_solution(solver, power):
    errors = [
        solver(diffusivity=0.1, kind="eigenmode", power=power, cells=16 * 2**i, steps=8 * 2**i)["error_max"]
        for i in range(4)
    ]
    orders = [math.log2(coarse / fine) for coarse, fine in zip(errors, errors[1:])]
    assert all(1.9 <= order <= 2.1 for order in orders), (errors, orders)


def test_heat_budget_closes():
    result = solve(0.2, 0.2, 0.7, power=5)
    assert result["heat_lost"] > 0.1 * result["heat_initial"]
    assert result["heat_injected"] == pytest.approx(0.5 * result["heat_initial"])
    assert result["budget_residual"] < 1e-11


def test_the_field_has_the_source_where_it_was_put_on_any_grid():
    for cells in (50, 96):
        result = solve(0.001, 0.25, 0.7, cells=cells)
        field = result["field"]
        assert [len(row) for row in field] == [32] * 32
        row, column = max(((y, x) for y in range(32) for x in range(32)), key=lambda at: field[at[0]][at[1]])
        assert (column + 0.5) / 32 == pytest.approx(0.25, abs=1 / 32)
        assert (row + 0.5) / 32 == pytest.approx(0.7, abs=1 / 32)
        assert (result["centre_x"], result["centre_y"]) == pytest.approx((0.25, 0.7), abs=1e-3)


@pytest.mark.parametrize("case", list(cases())[::9], ids=str)
def test_the_compiled_solver_agrees(case):
    compiled, python = solve_compiled(**case), solve(**case)
    assert set(compiled) == set(python)
    assert compiled["budget_residual"] < 1e-11
    for key in set(python) - {"budget_residual", "field", "host", "seconds", "error_max", "kind"}:
        assert compiled[key] == pytest.approx(python[key], rel=1e-10), key
    assert compiled["kind"] == python["kind"]
    if "error_max" in python:
        assert compiled["error_max"] == pytest.approx(python["error_max"], abs=1e-12)
    for left, right in zip(compiled["field"], python["field"]):
        assert left == pytest.approx(right, abs=2e-6)  # both are rounded to 6 digits


@pytest.mark.parametrize(
    "wrong, text",
    [
        ({"diffusivity": "nan"}, "diffusivity is nan, expected a positive number"),
        ({"end": -1.0}, "end is -1"),
        ({"source_x": 1.5}, "source_x is 1.5, expected a place on the plate, 0 to 1"),
        ({"power": -2.0}, "power is -2"),
        ({"cells": 3}, "cells is 3, expected a whole number from 4 to 4096"),
        ({"steps": 2.5}, "steps is 2.5, expected a whole number from 1 to 1000000"),
        ({"kind": "point"}, "kind is 'point', expected 'gaussian' or 'eigenmode'"),
    ],
    ids=str,
)
def test_both_refuse_what_makes_no_sense(wrong, text):
    case = {"diffusivity": 0.1, **wrong}
    run = run_compiled(**case)
    assert (run.returncode, run.stdout) == (64, "") and text in run.stderr
    with pytest.raises(ValueError) as raised:
        solve(**{key: float(value) if value == "nan" else value for key, value in case.items()})
    assert text in str(raised.value)


def test_check_finds_what_is_wrong(rows):
    assert list(problems_of(rows)) == []
    rows[0]["result"]["error_max"] = 0.5
    rows[8]["result"]["peak"] += 0.001
    rows[9]["state"] = "failed"
    rows[20]["result"]["heat_lost"] = math.nan
    rows[30]["result"] = None
    rows[41], rows[42] = rows[42], rows[41]
    text = "\n".join(problems_of(rows))
    assert "case 0 is 5.00e-01 off" in text and "case 8 is 1.0" in text and "case 9 ended as failed" in text
    assert "case 20: nan of the heat" in text and "case 30 has no result" in text
    assert "line 42 has index 42, expected 41" in text and "case 41 has source_x" in text
    assert list(problems_of(rows[:5])) == ["5 results, expected 64"]


def test_check_finds_a_peak_that_does_not_fall(rows):
    rows[11]["result"]["peak"] = 2.0
    assert [problem[:40] for problem in problems_of(rows)] == ["place 3: the peak does not fall with the"]


def script(name, *arguments):
    return subprocess.run([sys.executable, HERE / name, *arguments], capture_output=True, text=True)


def test_the_scripts_from_end_to_end(rows, tmp_path):
    lines = script("inputs.py").stdout.splitlines()
    assert [json.loads(line) for line in lines] == list(cases())
    results, picture = tmp_path / "results.jsonl", tmp_path / "picture.png"
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    check = script("check.py", results)
    assert check.returncode == 0 and "64 of 64 cases right" in check.stdout, check.stderr
    drawn = script("picture.py", results, picture)
    assert drawn.returncode == 0 and picture.read_bytes().startswith(b"\x89PNG"), drawn.stderr

    results.write_text(results.read_text()[:-20])  # as a map that was killed leaves it
    for run in (script("check.py", results), script("picture.py", results, picture)):
        assert run.returncode == 1 and "results.jsonl:64: not JSON" in run.stderr
        assert "Traceback" not in run.stderr
    rows[7]["state"] = "failed"
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "63 of 64 cases succeeded" in script("picture.py", results, picture).stderr
    gone = script("check.py", tmp_path / "none.jsonl")
    assert gone.returncode == 1 and "none.jsonl cannot be read: No such file" in gone.stderr
