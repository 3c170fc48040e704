#!/usr/bin/python3 -B
"""How much of short blocks is used, and how often the scheduler is asked.

Feeds tasks of 30 s to blocks of two minutes on a Slurm cluster and prints the share of the core-seconds of all jobs
in which no task ran to its end, the tasks that were started more than once, and the scheduler calls. What a task slept is
what the task itself measured; an attempt that was cut off counts as waste.

Exit code 1: a task was lost or failed.

usage: tests/support/with_slurm_cluster --nodes 4 -- bench/short_blocks.py [--minutes 10] [--task-seconds 30]
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/system"))
from conftest import BUILD, Site  # noqa: E402

SLOTS = 2  # of a node


def seconds(text):
    """[D-][HH:]MM:SS"""
    days, _, rest = text.rpartition("-")
    total = 0
    for part in rest.split(":"):
        total = total * 60 + int(part)
    return total + 86400 * int(days or 0)


def watch(site, count, held):
    """Follows the jobs until all tasks have ended; how long each job has run is kept in `held`."""
    while True:
        lines = subprocess.run(["squeue", "-h", "-t", "all", "-o", "%i %M %D"], capture_output=True, text=True, check=True).stdout
        for job, elapsed, nodes in (line.split() for line in lines.splitlines()):
            held[job] = max(held.get(job, 0), seconds(elapsed) * int(nodes) * SLOTS)
        counts = site.json("group", "status", "bench")
        if sum(counts.get(state, 0) for state in ("succeeded", "failed", "cancelled")) >= count:
            return counts
        time.sleep(1)


def read(marks):
    """The task of each start, and the seconds that each task slept the first time that it came to its end."""
    started, slept = [], {}
    for line in marks.read_text().splitlines():
        what, task, *times = line.split()
        if what == "began":
            started.append(task)
        else:
            ended, began = map(float, times)
            slept.setdefault(task, ended - began)
    return started, slept


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=10, help="of work for all slots (10)")
    options.add_argument("--task-seconds", type=float, default=30, help="of each task (30)")
    given = options.parse_args()
    (BUILD / "sites").mkdir(exist_ok=True)
    site = Site(tempfile.mkdtemp(dir=BUILD / "sites", prefix="b"))
    count = int(given.minutes * 60 / given.task_seconds * 4 * SLOTS)
    held = {}
    try:
        site.start_relay()
        site.endpoint("slurm", "slurm", **{
            "engine.provider.partition": "debug", "engine.provider.exclusive": "false", "engine.provider.walltime": "00:02:00",
            "engine.provider.init_blocks": 0, "engine.provider.max_blocks": 4, "engine.max_workers_per_node": SLOTS,
            "engine.prefetch_capacity": 0})
        marks = site.home / "marks"
        began = time.time()
        site.farcall("submit", "-e", "slurm", "--group", "bench", "--count", count, "--walltime", f"{given.task_seconds + 1:g}s",
                     "--", "sh", "-c", f"echo began $FARCALL_TASK_ID >> {marks}; a=$(date +%s.%N); sleep {given.task_seconds - 0.2:g}; "
                     f"echo ended $FARCALL_TASK_ID $(date +%s.%N) $a >> {marks}")
        counts = watch(site, count, held)
        status = site.json("endpoint", "status", "slurm")["status"]
        started, slept = read(marks)
        site.farcall("endpoint", "stop", "slurm")
        worked, total = sum(slept.values()), sum(held.values())
        lost = count - len(slept)
        print(json.dumps({
            "tasks": count, "succeeded": counts.get("succeeded", 0), "failed": counts.get("failed", 0), "cancelled": counts.get("cancelled", 0),
            "never_ended": lost, "started_again": len(started) - len(set(started)), "seconds": round(time.time() - began), "jobs": len(held),
            "core_seconds_held": round(total), "core_seconds_worked": round(worked), "wasted_percent": round(100 * (1 - worked / total), 2),
            "scheduler_calls": status["scheduler"]["calls_per_hour"]}, indent=2))
        return 1 if lost or counts.get("succeeded", 0) != count else 0
    finally:
        site.close()
        shutil.rmtree(site.home, ignore_errors=True)


sys.exit(main())
