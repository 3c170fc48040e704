"""Draws all fields of the sweep in one picture: python3 picture.py results.jsonl picture.png"""

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm

from check import read
from inputs import PLACES, cases


def label_of(result):
    if result["kind"] == "eigenmode":
        return "cooling,\nno heater"
    return f"heater at\n({result['source_x']:.2f}, {result['source_y']:.2f})"


def draw(results, path):
    columns = len(results) // PLACES
    figure, axes = plt.subplots(PLACES, columns, figsize=(10.6, 10.4), sharex=True, sharey=True)
    figure.subplots_adjust(left=0.125, right=0.885, top=0.905, bottom=0.065, wspace=0.07, hspace=0.07)
    # The square root of the temperature: weak fields would be black next to strong ones.
    norm = PowerNorm(0.5, vmin=0, vmax=max(np.max(result["field"]) for result in results))
    for axis, result in zip(axes.T.flat, results):
        # The scheme may undershoot 0 by a hair where the start is steep.
        image = axis.imshow(np.maximum(result["field"], 0), origin="lower", extent=(0, 1, 0, 1), cmap="inferno",
                            norm=norm, interpolation="bilinear", aspect="auto")
        axis.set_xticks([0.25, 0.75])
        axis.set_yticks([0.25, 0.75])
        axis.tick_params(labelsize=7, length=2)
    for column in range(columns):
        axes[0, column].set_title(f"D = {results[PLACES * column]['diffusivity']:.3f}", fontsize=9)
        axes[-1, column].set_xlabel("x", fontsize=8, labelpad=1)
    for row in range(PLACES):
        axes[row, 0].set_ylabel("y", fontsize=8, labelpad=1)
        axes[row, 0].text(-0.68, 0.5, label_of(results[row]), transform=axes[row, 0].transAxes, fontsize=8.5,
                          ha="center", va="center", rotation=90)
    bar = figure.colorbar(image, cax=figure.add_axes((0.905, 0.25, 0.018, 0.47)))
    bar.set_label(f"temperature at t = {results[0]['end']:g}", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(f"Heat on a plate with cold edges: {len(results)} runs", fontsize=13, y=0.972)
    figure.text(0.5, 0.936, "diffusivity D grows to the right", fontsize=9.5, ha="center")
    figure.savefig(path, dpi=110)


def main(source, path):
    rows = read(source)
    wanted = len(list(cases()))
    good = [row["result"] for row in rows if row["state"] == "succeeded"]
    if len(good) != wanted or len(rows) != wanted:
        return f"{source}: {len(good)} of {wanted} cases succeeded; check.py says what is wrong with the others"
    draw(good, path)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
