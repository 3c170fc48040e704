#!/usr/bin/python3 -B
"""How often a scheduler is asked while many tasks run on blocks that are there.

Runs tasks of a second on eight blocks of a Slurm cluster and prints how often sbatch, squeue and scancel were started,
and the shortest time between two squeue. Ends with 1 when two came sooner after each other than scheduler_interval.

usage: tests/support/with_slurm_cluster --nodes 4 -- bench/scheduler_calls.py [--minutes 10] [--tasks 10000]
"""

import argparse
import collections
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/system"))
from conftest import BUILD, Site, wait_for  # noqa: E402

BLOCKS, SLOTS, INTERVAL_S = 8, 2, 30
COMMANDS = ("sbatch", "squeue", "scancel", "sinfo", "sacct", "scontrol")


class Counted(Site):
    """A site whose scheduler commands write down when they are called."""

    def __init__(self, home):
        super().__init__(home)
        (self.home / "counted").mkdir()
        for name in COMMANDS:
            script = self.home / "counted" / name
            script.write_text(f'#!/bin/sh\necho "{name} $(date +%s.%N) $*" >>"{self.home}/calls"\nexec {shutil.which(name)} "$@"\n')
            script.chmod(0o700)

    def environment(self):
        environment = super().environment()
        return {**environment, "PATH": f"{self.home / 'counted'}:{environment['PATH']}"}

    def calls(self):
        path = self.home / "calls"
        calls = [line.split(maxsplit=2) for line in path.read_text().splitlines()] if path.exists() else []
        # A job whose sbatch gave no answer in time is looked for by its name.
        return [("squeue by name" if name == "squeue" and "--name" in rest else name, at) for name, at, *rest in ((*call[:2], *call[2:]) for call in calls)]


def running():
    return subprocess.run(["squeue", "-h", "-t", "R"], capture_output=True, text=True, check=True).stdout.splitlines()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=10, help="that the tasks take together (10)")
    options.add_argument("--tasks", type=int, default=10000, help="how many (10000)")
    given = options.parse_args()
    (BUILD / "sites").mkdir(exist_ok=True)
    site = Counted(tempfile.mkdtemp(dir=BUILD / "sites", prefix="b"))
    try:
        site.start_relay()
        site.endpoint("slurm", "slurm", **{
            "engine.provider.partition": "debug", "engine.provider.exclusive": "false", "engine.provider.walltime": "00:30:00",
            "engine.provider.init_blocks": BLOCKS, "engine.provider.min_blocks": BLOCKS, "engine.provider.max_blocks": BLOCKS,
            "engine.max_workers_per_node": SLOTS, "engine.scheduler_interval": INTERVAL_S})
        wait_for(lambda: len(running()) == BLOCKS, f"{BLOCKS} blocks to run", 120)
        naps = given.minutes * 60 * BLOCKS * SLOTS / given.tasks
        began = time.time()
        site.farcall("submit", "-e", "slurm", "--group", "bench", "--count", given.tasks, "--", "sleep", f"{naps:.3f}")
        site.farcall("group", "results", "bench", "--wait", "-o", site.home / "results.jsonl", timeout=given.minutes * 60 + 600)
        ended = time.time()
        while_tasks_ran = [(name, float(at)) for name, at in site.calls() if began <= float(at) <= ended]
        queries = [at for name, at in while_tasks_ran if name == "squeue"]
        gaps = [later - sooner for sooner, later in zip(queries, queries[1:])]
        site.farcall("endpoint", "stop", "slurm")
        rows = [json.loads(line) for line in (site.home / "results.jsonl").read_text().splitlines()]
        print(json.dumps({
            "tasks": len(rows), "failed": sum(row["state"] != "succeeded" for row in rows), "seconds": round(ended - began), "blocks": BLOCKS,
            "scheduler_interval_s": INTERVAL_S, "calls_while_tasks_ran": collections.Counter(name for name, _ in while_tasks_ran),
            "shortest_between_queries_s": round(min(gaps), 1) if gaps else None,
            "calls_in_all": collections.Counter(name for name, _ in site.calls())}, indent=2))
        return 1 if gaps and min(gaps) < INTERVAL_S - 1 else 0
    finally:
        site.close()
        shutil.rmtree(site.home, ignore_errors=True)


sys.exit(main())
