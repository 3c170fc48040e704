"""Writes the 64 cases of the sweep, a JSON object a line: python3 inputs.py > inputs.jsonl

Eight diffusivities times eight places of the source; the eigenmode, whose solution is known, takes
the place of the first source.
"""

import json
import math

DIFFUSIVITIES = [0.01 * 1.6**i for i in range(8)]


def cases():
    for diffusivity in DIFFUSIVITIES:
        yield {"diffusivity": diffusivity, "kind": "eigenmode"}
        for i in range(7):
            angle = 2 * math.pi * i / 7
            yield {
                "diffusivity": diffusivity,
                "source_x": round(0.5 + 0.25 * math.cos(angle), 6),
                "source_y": round(0.5 + 0.25 * math.sin(angle), 6),
            }


if __name__ == "__main__":
    for case in cases():
        print(json.dumps(case))
