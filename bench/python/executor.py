#!/usr/bin/python3
"""farcall's Executor, end to end: no-op tasks a second, round trips, CPU of each process.

    PYTHONPATH=build/python bench/python/executor.py --programs build/bin [--json]

Starts a relay and an endpoint of its own. Everything is durable and encrypted, as always.
"""

import argparse
import time

from bench_site import Site, cost, show


def nop(value):
    return value


def one_at_a_time(executor, site, count, function):
    before, times = site.usage(), []
    for _ in range(count):
        start = time.perf_counter()
        executor.submit(*function).result()
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    return {
        "tasks": count,
        "p50_ms": round(times[count // 2], 3),
        "p99_ms": round(times[int(count * 0.99)], 3),
        "p999_ms": round(times[int(count * 0.999)], 3),
        "processes": cost(before, site.usage(), count),
    }


def many(executor, site, count, function):
    before, start = site.usage(), time.perf_counter()
    futures = [executor.submit(*function) for _ in range(count)]
    submitted_s = time.perf_counter() - start
    for future in futures:
        future.result()
    took_s = time.perf_counter() - start
    return {
        "tasks": count,
        "submit_s": round(submitted_s, 3),
        "seconds": round(took_s, 3),
        "tasks_per_s": round(count / took_s),
        "processes": cost(before, site.usage(), count),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True, help="folder of farcall and its servers")
    parser.add_argument("--tasks", type=int, default=10000)
    parser.add_argument("--warm-up", type=int, default=1000)
    parser.add_argument("--one-at-a-time", type=int, default=300)
    parser.add_argument("--payload", type=int, default=0, help="bytes of each argument and result")
    parser.add_argument("--shell", action="store_true", help="/bin/true instead of a Python function")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with Site(options.programs, options.workers) as site:
        from farcall import Executor, ShellFunction  # reads FARCALL_HOME

        function = (ShellFunction("/bin/true"),) if options.shell else (nop, b"x" * options.payload or 1)

        start = time.perf_counter()
        with Executor("here") as executor:
            executor.submit(*function).result()
            result = {"workers": options.workers, "first_result_s": round(time.perf_counter() - start, 3)}
            many(executor, site, options.warm_up, function)
            if options.one_at_a_time:
                result["one_at_a_time"] = one_at_a_time(executor, site, options.one_at_a_time, function)
            result["many"] = many(executor, site, options.tasks, function)
    show(result, options.json)


if __name__ == "__main__":
    main()
