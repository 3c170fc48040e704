#!/usr/bin/python3
"""How short tasks may be: the length at which the workers are half busy (METG), and tasks that sleep 10 ms.

    PYTHONPATH=build/python bench/python/lengths.py --programs build/bin [--json]

A task counts to a number; how long that takes alone, on an idle machine, is its length. What workers
of a perfect system would need for all tasks, by what it took, is their efficiency.
"""

import argparse
import math
import time

from bench_site import Site, show


def count(steps):
    for _ in range(steps):
        pass


def steps_per_us():
    """Of this machine when nothing else runs: the best of several."""
    best = 0.0
    for _ in range(20):
        start = time.perf_counter()
        count(200000)
        best = max(best, 200000 / (time.perf_counter() - start) / 1e6)
    return best


def efficiency(executor, workers, length_us, speed, seconds):
    tasks = max(500, int(seconds * workers * 1e6 / (length_us + 100)))
    steps = round(length_us * speed)
    start = time.perf_counter()
    for future in [executor.submit(count, steps) for _ in range(tasks)]:
        future.result()
    return tasks * length_us / 1e6 / workers / (time.perf_counter() - start)


def half_busy_us(found):
    """Where the efficiency crosses one half, between the two lengths beside it, on logarithmic scales."""
    lengths = sorted(found)
    for shorter, longer in zip(lengths, lengths[1:]):
        low, high = found[shorter], found[longer]
        if low < 0.5 <= high:
            part = (math.log(0.5) - math.log(low)) / (math.log(high) - math.log(low))
            return round(math.exp(math.log(shorter) + part * (math.log(longer) - math.log(shorter))), 1)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True, help="folder of farcall and its servers")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="of work for each length")
    parser.add_argument("--sleeps", type=int, default=400, help="tasks of 10 ms")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with Site(options.programs, options.workers) as site:  # noqa: F841
        from farcall import Executor  # reads FARCALL_HOME

        speed = steps_per_us()
        with Executor("here") as executor:
            efficiency(executor, options.workers, 50, speed, options.seconds / 2)  # warm
            found, length = {}, 25
            while length <= 3200 and (not found or found[max(found)] < 0.6):
                found[length] = round(efficiency(executor, options.workers, length, speed, options.seconds), 3)
                length *= 2
            list(executor.map(time.sleep, [0.01] * 20))
            start = time.perf_counter()
            for future in [executor.submit(time.sleep, 0.01) for _ in range(options.sleeps)]:
                future.result()
            sleeps = options.sleeps / (time.perf_counter() - start)
    result = {
        "efficiency_by_length_us": found,
        "half_busy_us": half_busy_us(found),
        "sleeps_10ms_per_s": round(sleeps, 1),
        "sleeps_ideal_per_s": options.workers * 100,
    }
    show(result, options.json)


if __name__ == "__main__":
    main()
