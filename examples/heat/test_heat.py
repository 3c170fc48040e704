import json
import math
import os
import subprocess

import pytest
from check import problems_of
from heat import solve
from inputs import cases


def error(cells, steps):
    return solve(0.1, kind="eigenmode", cells=cells, steps=steps)["error_max"]


def test_second_order_against_the_exact_solution():
    coarse, fine = error(24, 16), error(48, 32)
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.1)


def test_heat_budget_closes():
    result = solve(0.2, 0.2, 0.7)
    assert result["heat_lost"] > 0.1 * result["heat_initial"]
    assert result["budget_residual"] < 1e-11


@pytest.mark.parametrize("case", list(cases())[::13], ids=str)
def test_the_compiled_solver_agrees(case):
    options = [text for key, value in case.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    run = subprocess.run([os.environ["HEAT_PROGRAM"], *options], check=True, capture_output=True, text=True)
    compiled, python = json.loads(run.stdout), solve(**case)
    for key in ("peak", "heat_initial", "heat_final", "heat_lost"):
        assert compiled[key] == pytest.approx(python[key], rel=1e-10)


def test_check_finds_what_is_wrong():
    rows = [{"state": "succeeded", "result": solve(**case)} for case in cases()]
    assert list(problems_of(rows)) == []
    rows[0]["result"]["error_max"] = 0.5
    rows[9]["state"] = "failed"
    rows[20]["result"]["budget_residual"] = math.nan
    text = "\n".join(problems_of(rows))
    assert "case 0 is 5.00e-01 off" in text and "case 9 ended as failed" in text and "case 20: nan of the heat" in text
    assert list(problems_of(rows[:5])) == ["5 results, expected 64"]
