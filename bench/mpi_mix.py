#!/usr/bin/python3 -B
"""Serial, two-rank and full-width tasks in one queue on a Slurm cluster: how well the nodes are used.

Submits 200 serial tasks, 40 of two ranks and 8 that take every core of the block, in a seeded order, each with its walltime.
Prints the share of the block's core-seconds in which tasks ran, beside the best that any order could do (each full-width task has
to empty the nodes first), and how long full-width tasks waited for anything but the work ahead of them.

usage: tests/support/with_slurm_cluster --nodes 4 -- bench/mpi_mix.py [--seed 1] [--seconds 4]
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/system"))
from conftest import BUILD, Site, wait_for  # noqa: E402

NODES, SLOTS = 4, 2


def plan(seed, mean_s):
    """(ranks, seconds) of each task in the order of the queue; 0 ranks: serial."""
    chance = random.Random(seed)
    widths = [0] * 200 + [2] * 40 + [NODES * SLOTS] * 8
    chance.shuffle(widths)
    return [(ranks, round(chance.uniform(0.5, 1.5) * mean_s, 2)) for ranks in widths]


def submit(site, marks, tasks):
    for number, (ranks, seconds) in enumerate(tasks):
        # Rank 0 says when it begins and ends; every rank holds its core.
        script = f"[ ${{OMPI_COMM_WORLD_RANK:-0}} = 0 ] && date +%s.%N > {marks}/{number}.began; sleep {seconds}; " \
                 f"[ ${{OMPI_COMM_WORLD_RANK:-0}} = 0 ] && date +%s.%N > {marks}/{number}.ended; true"
        wide = ["--ranks", ranks] if ranks else []
        site.farcall("submit", "-e", "slurm", "-g", "mix", "--walltime", f"{seconds * 2 + 8:g}", *wide, "--", "sh", "-c", script)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4, help="of a task, at the mean (4)")
    given = parser.parse_args()
    (BUILD / "sites").mkdir(exist_ok=True)
    site = Site(tempfile.mkdtemp(dir=BUILD / "sites", prefix="b"))
    tasks = plan(given.seed, given.seconds)
    try:
        site.start_relay()
        site.endpoint("slurm", "slurm", **{
            "engine.provider.partition": "debug", "engine.provider.nodes_per_block": NODES, "engine.provider.init_blocks": 1,
            "engine.provider.max_blocks": 1, "engine.provider.exclusive": "true", "engine.provider.walltime": "01:00:00",
            "engine.provider.worker_init": "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
            "engine.max_workers_per_node": SLOTS})
        wait_for(lambda: (site.json("endpoint", "status", "slurm")["status"] or {}).get("pilots") == NODES, "the pilots", 120)
        marks = site.home / "marks"
        marks.mkdir()
        submit(site, marks, tasks)
        site.farcall("group", "results", "mix", "--wait", "-o", site.home / "mix.jsonl", timeout=3600)
        rows = [json.loads(line) for line in (site.home / "mix.jsonl").read_text().splitlines()]
        stamp = [[float((marks / f"{number}.{what}").read_text()) for what in ("began", "ended")] for number in range(len(tasks))]
        first, last = min(began for began, _ in stamp), max(ended for _, ended in stamp)
        work = sum(max(1, ranks) * seconds for ranks, seconds in tasks)
        late, ahead = [], first
        for (ranks, seconds), (began, ended) in zip(tasks, stamp):
            if ranks == NODES * SLOTS:
                late.append(began - ahead)
            ahead = max(ahead, ended)
        print(json.dumps({
            "tasks": len(tasks), "succeeded": sum(row["state"] == "succeeded" for row in rows), "seconds": round(last - first, 1),
            "bound_seconds": round(work / (NODES * SLOTS), 1), "used_percent": round(100 * work / ((last - first) * NODES * SLOTS), 1),
            "full_width_begins_after_the_work_ahead_s": [round(value, 1) for value in late]}, indent=2))
    finally:
        site.close()
        shutil.rmtree(site.home, ignore_errors=True)


main()
