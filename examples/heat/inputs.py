"""Writes the 64 cases of the sweep, a JSON object a line: python3 inputs.py > inputs.jsonl

Eight diffusivities times eight sources: seven heaters round the middle of the plate, and first the
eigenmode, which is left to cool and whose solution is known.
"""

import json
import math

DIFFUSIVITIES = [round(0.01 * 1.6**i, 6) for i in range(8)]
PLACES = 8


def cases():
    for diffusivity in DIFFUSIVITIES:
        yield {"diffusivity": diffusivity, "kind": "eigenmode"}
        for i in range(PLACES - 1):
            angle = 2 * math.pi * i / (PLACES - 1)
            yield {
                "diffusivity": diffusivity,
                "source_x": round(0.5 + 0.25 * math.cos(angle), 6),
                "source_y": round(0.5 + 0.25 * math.sin(angle), 6),
                "power": 4.0,
            }


if __name__ == "__main__":
    for case in cases():
        print(json.dumps(case))
