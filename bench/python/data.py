#!/usr/bin/python3
"""Large values through the whole path: MiB/s there and back, memory of each process.

    PYTHONPATH=build/python bench/python/data.py --programs build/bin [--mib 100] [--count 4] [--json]

Starts a relay and an endpoint of its own. Every value is written, synced and hashed on each hop, as
always. Beside it: what one core of this machine hashes, what its disk takes with a sync, and what a plain
ZeroMQ connection with CURVE (farcall-bench-limits) streams in messages of that size, which nobody keeps.
The figures with `by_curve` are shares of the latter.
"""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import tempfile
import time

from bench_site import Site, show

MIB = 1024 * 1024


def size_of(data):
    return len(data)


def made(size, seed):
    return bytes([seed]) * size


def rate(size, count, action):
    start = time.perf_counter()
    for i in range(count):
        action(i)
    return round(size * count / MIB / (time.perf_counter() - start), 1)


def machine(size):
    data = os.urandom(size)

    def write(_i):
        with tempfile.NamedTemporaryFile(dir=os.environ["FARCALL_HOME"]) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    return {"hash_mib_s": rate(size, 3, lambda _i: hashlib.blake2b(data, digest_size=32).digest()), "disk_mib_s": rate(size, 3, write)}


def curve_mib_s(programs, size, count):
    """One way, until the last byte is there."""
    words = [pathlib.Path(programs) / "farcall-bench-limits", "oneway", str(count), "1", str(size)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return round(json.loads(done.stdout)["per_s"] * size / MIB, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True, help="folder of farcall and its servers")
    parser.add_argument("--mib", type=float, default=100, help="of each value")
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    size = int(options.mib * MIB)
    with Site(options.programs, options.workers) as site:
        from farcall import Executor  # reads FARCALL_HOME

        result = {"mib": options.mib, "machine": machine(size), "curve_mib_s": curve_mib_s(options.programs, size, options.count)}
        with Executor("here") as executor:
            executor.submit(size_of, b"warm").result()
            values = [os.urandom(size) for _ in range(options.count)]
            result["arguments_mib_s"] = rate(size, options.count, lambda i: executor.submit(size_of, values[i]).result())
            shared = executor.client.put(values[0])
            result["shared_argument_tasks_s"] = round(1 / rate_of(lambda: executor.submit(size_of, shared).result(), 20), 1)
            result["results_mib_s"] = rate(size, options.count, lambda i: executor.submit(made, size, i).result())
            for what in ("arguments", "results"):
                result[what + "_by_curve"] = round(result[what + "_mib_s"] / result["curve_mib_s"], 3)
            result["peak_mib"] = {role: round(mib, 1) for role, (_user, _system, mib) in site.usage().items()}
    show(result, options.json)


def rate_of(action, count):
    """Seconds for each."""
    start = time.perf_counter()
    for _ in range(count):
        action()
    return (time.perf_counter() - start) / count


if __name__ == "__main__":
    main()
