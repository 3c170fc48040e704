"""Checks the results of the sweep: python3 check.py results.jsonl

Every case is there, in order, and succeeded; the eigenmode agrees with its exact solution; no heat
appears or vanishes; more diffusivity means a lower peak. Prints a table and ends with 0, or says
what is wrong and ends with 1.
"""

import json
import math
import sys

from inputs import DIFFUSIVITIES, PLACES, cases

ERROR_MAX = 1e-4  # of the exact solution, whose peak is 1 at the start; the grid gives at most 3e-5
RESIDUAL_MAX = 1e-10  # of the heat budget, which the scheme keeps to rounding


def read(path):
    """The rows of a JSONL file; ends the program with the reason if that is not what it is."""
    rows = []
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                row = json.loads(line)
                if not isinstance(row, dict) or "state" not in row:
                    sys.exit(f"{path}:{number}: expected an object with a \"state\", as farcall map writes it")
                rows.append(row)
    except OSError as error:
        sys.exit(f"{path} cannot be read: {error.strerror}")
    except ValueError as error:
        sys.exit(f"{path}:{len(rows) + 1}: not JSON ({error}); was farcall map stopped? The same command resumes it")
    return rows


def residual_of(result):
    """From the four terms, not from what the solver says of itself."""
    came = result["heat_initial"] + result["heat_injected"]
    return abs(came - result["heat_lost"] - result["heat_final"]) / came


def error_of(result):
    """The larger of the solver's own and what its peak, which is at a grid point, differs by."""
    exact = math.exp(-2 * math.pi**2 * result["diffusivity"] * result["end"])
    own, peak = result["error_max"], abs(result["peak"] - exact)
    return own if own != own else max(own, peak)


def problems_of_case(i, row, case):
    if row.get("index", i) != i:
        yield f"line {i + 1} has index {row['index']}, expected {i}"
    if row["state"] != "succeeded":
        yield f"case {i} ended as {row['state']}: {row.get('error')}"
        return
    result = row["result"]
    for key, value in case.items():
        if result[key] != value:
            yield f"case {i} has {key} = {result[key]}, expected {value}"
    if not residual_of(result) <= RESIDUAL_MAX:
        yield f"case {i}: {residual_of(result):.2e} of the heat is unaccounted for, the limit is {RESIDUAL_MAX}"
    if case.get("kind") == "eigenmode" and not error_of(result) <= ERROR_MAX:
        yield f"case {i} is {error_of(result):.2e} off the exact solution, the limit is {ERROR_MAX}"


def problems_of(rows):
    expected = list(cases())
    if len(rows) != len(expected):
        yield f"{len(rows)} results, expected {len(expected)}"
        return
    peaks = {}
    for i, (row, case) in enumerate(zip(rows, expected)):
        try:
            yield from problems_of_case(i, row, case)
            if row["state"] == "succeeded":
                peaks.setdefault(i % PLACES, []).append(row["result"]["peak"])
        except (KeyError, TypeError) as error:
            yield f"case {i} has no result of heat.py: {type(error).__name__} {error}"
    for place, values in peaks.items():
        if not all(later < earlier for earlier, later in zip(values, values[1:])):
            yield f"place {place}: the peak does not fall with the diffusivity: {values}"


def table_of(rows):
    yield f"{'D':>9} {'peak, cooling':>14} {'exact':>9} {'error':>8} {'peak, heated':>13} {'heat lost':>10} {'residual':>9}"
    for i, diffusivity in enumerate(DIFFUSIVITIES):
        mode, *heated = [row["result"] for row in rows[PLACES * i : PLACES * (i + 1)]]
        exact = math.exp(-2 * math.pi**2 * diffusivity * mode["end"])
        lost = sum(r["heat_lost"] for r in heated) / sum(r["heat_initial"] + r["heat_injected"] for r in heated)
        yield (
            f"{diffusivity:9.4f} {mode['peak']:14.5f} {exact:9.5f} {error_of(mode):8.1e} "
            f"{max(r['peak'] for r in heated):13.5f} {lost:10.2%} {max(map(residual_of, [mode, *heated])):9.1e}"
        )


def main(path):
    rows = read(path)
    problems = list(problems_of(rows))
    for problem in problems:
        print(f"check: {problem}", file=sys.stderr)
    if problems:
        return 1
    results = [row["result"] for row in rows]
    print(*table_of(rows), sep="\n")
    hosts = ", ".join(sorted({result["host"] for result in results}))
    print(f"{len(rows)} of {len(rows)} cases right; {sum(r['seconds'] for r in results):.1f} s of work on {hosts}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
