"""Draws all fields of the sweep in one picture: python3 picture.py results.jsonl picture.png"""

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from check import read


def draw(rows, path):
    results = [row["result"] for row in rows]
    figure, axes = plt.subplots(8, 8, figsize=(9.5, 10), sharex=True, sharey=True)
    figure.subplots_adjust(left=0.09, right=0.87, top=0.91, bottom=0.06, wspace=0.06, hspace=0.06)
    for axis, result in zip(axes.T.flat, results):
        image = axis.imshow(
            np.maximum(result["field"], 0), origin="lower", extent=(0, 1, 0, 1), cmap="inferno", vmin=0, vmax=1
        )
        axis.set_xticks([0, 1])
        axis.set_yticks([0, 1])
        axis.tick_params(labelsize=6, length=2)
    for column in range(8):
        axes[0, column].set_title(f"D = {results[8 * column]['diffusivity']:.3f}", fontsize=8)
    for row in range(8):
        where = results[row]
        label = "eigenmode" if where["kind"] == "eigenmode" else f"({where['source_x']:.2f}, {where['source_y']:.2f})"
        axes[row, 0].set_ylabel(label, fontsize=8)
    bar = figure.colorbar(image, cax=figure.add_axes((0.9, 0.25, 0.02, 0.5)))
    bar.set_label("temperature at t = 0.1", fontsize=9)
    figure.suptitle("Heat on a cooled plate: 64 runs, diffusivity D across, place of the source down", fontsize=11)
    figure.supxlabel("x", fontsize=9)
    figure.supylabel("place of the source (x, y)", fontsize=9)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    draw(read(sys.argv[1]), sys.argv[2])
