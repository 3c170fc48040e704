"""Checks the results of the sweep: python3 check.py results.jsonl

Every case is there and succeeded; the eigenmode agrees with its exact solution; no heat appears or
vanishes; more diffusivity means a lower peak. Ends with 1 and says what is wrong otherwise.
"""

import json
import sys

from inputs import cases

ERROR_MAX = 2e-3  # of the exact solution; the grid gives about 1e-4
RESIDUAL_MAX = 1e-10  # of the heat budget, which the scheme keeps to rounding


def read(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def problems_of(rows):
    expected = list(cases())
    if len(rows) != len(expected):
        yield f"{len(rows)} results, expected {len(expected)}"
        return
    peaks = {}
    for i, (row, case) in enumerate(zip(rows, expected)):
        if row["state"] != "succeeded":
            yield f"case {i} ended as {row['state']}: {row.get('error')}"
            continue
        result = row["result"]
        for key, value in case.items():
            if result[key] != value:
                yield f"case {i} has {key} = {result[key]}, expected {value}"
        if not result["budget_residual"] <= RESIDUAL_MAX:
            yield f"case {i}: {result['budget_residual']:.2e} of the heat is unaccounted for"
        if case.get("kind") == "eigenmode" and not result["error_max"] <= ERROR_MAX:
            yield f"case {i} is {result['error_max']:.2e} off the exact solution, the limit is {ERROR_MAX}"
        peaks.setdefault(i % 8, []).append(result["peak"])
    for place, values in peaks.items():
        if any(later >= earlier for earlier, later in zip(values, values[1:])):
            yield f"place {place}: the peak does not fall with the diffusivity: {values}"


def main(path):
    rows = read(path)
    problems = list(problems_of(rows))
    for problem in problems:
        print(f"check: {problem}", file=sys.stderr)
    if problems:
        return 1
    results = [row["result"] for row in rows]
    worst = max(result.get("error_max", 0) for result in results)
    residual = max(result["budget_residual"] for result in results)
    print(f"{len(rows)} of {len(rows)} cases right: at most {worst:.1e} off the exact solution, heat budget kept to {residual:.0e}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
