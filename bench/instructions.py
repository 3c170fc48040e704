#!/usr/bin/env python3
"""Holds the hot paths to a number of instructions for each task.

    bench/instructions.py --program build/bin/farcall-bench-parts [--valgrind valgrind]

Each path is run twice under callgrind, once with more work: the difference is what the work costs, and
neither the start of the program nor the load of the machine is in it. A limit is what the path costs
with some room for another compiler. Whoever makes a path cheaper lowers its limit.
"""

import argparse
import re
import subprocess
import sys

TASKS_A_CALL = 256
FEW, MANY = 4, 12
LIMITS = {  # instructions a task
    "encode_results": 700,
    "decode_results": 1500,
    "encode_dispatch": 165,
    "decode_dispatch": 500,
    "place_and_complete": 8800,
}


def instructions(options, path, count):
    command = [options.valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [options.program, "--path", path, "--count", str(count)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found:
        sys.exit("%s ended with code %d:\n%s" % (" ".join(command), done.returncode, done.stderr))
    return int(found.group(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--valgrind", default="valgrind")
    options = parser.parse_args()
    too_many = []
    for path, limit in LIMITS.items():
        extra = instructions(options, path, MANY) - instructions(options, path, FEW)
        each = extra / (MANY - FEW) / TASKS_A_CALL
        print("%-20s %8.0f instructions a task, limit %d" % (path, each, limit))
        if each > limit:
            too_many.append("%s: %.0f instructions a task, at most %d are allowed" % (path, each, limit))
    if too_many:
        sys.exit("\n".join(too_many) + "\nlook for the cause with callgrind (docs/performance.md), or raise the limit and say why")


if __name__ == "__main__":
    main()
