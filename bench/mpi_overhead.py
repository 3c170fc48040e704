#!/usr/bin/python3 -B
"""What an MPI function costs beyond its own time, beside a launch of the same function with mpirun.

Prints p50, p90 of three ways to run a four-rank allreduce, in milliseconds:
  pool      messages to the ranks of a pool and back, as a pilot sends them, less the time that the function took
  endpoint  submit to result through relay, interchange and pilot, one task after the other; and each of a thousand at once
  mpirun    mpirun of a program that does the same

usage: FARCALL_BUILD=build bench/mpi_overhead.py [--tasks 1000] [--ranks 4] [--launches 5]
"""

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(os.environ.get("FARCALL_BUILD", ROOT / "build")).resolve()
RUNNERS = BUILD / "lib" / "farcall" / "runners"
sys.path[:0] = [str(ROOT / "bench/python"), str(BUILD / "python"), str(RUNNERS)]
os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_mpi_yield_when_idle="1")

import farcall  # noqa: E402
from bench_site import Site, table  # noqa: E402
from farcall_channel import Channel  # noqa: E402

# The slowest rank's time in the function, in milliseconds.
SOURCE = """
import time

def total(comm, x):
    from mpi4py import MPI
    began = time.perf_counter()
    comm.allreduce(x + comm.Get_rank())
    return comm.allreduce(1e3 * (time.perf_counter() - began), MPI.MAX)
"""
PROGRAM = SOURCE + "\nfrom mpi4py import MPI\ntotal(MPI.COMM_WORLD, 1)\n"


def quantiles(values_ms):
    values = sorted(values_ms)
    return {"p50_ms": round(statistics.median(values), 3), "p90_ms": round(values[len(values) * 9 // 10], 3)}


def timed(call):
    began = time.perf_counter()
    answer = call()
    return 1e3 * (time.perf_counter() - began), answer


def receive(channel):
    while True:
        message = channel.buffered()
        if message is not None:
            return message
        if not channel.read():
            sys.exit("the pool has ended")


def pool(tasks, ranks):
    """A pool with the bench in the pilot's place."""
    with tempfile.TemporaryDirectory(prefix="farcall-bench-") as directory:
        path = os.path.join(directory, "pool")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        words = ["mpirun", "--oversubscribe", "-np", str(ranks + 1), "/usr/bin/python3", str(RUNNERS / "farcall_mpi_worker.py")]
        job = subprocess.Popen(words, env={**os.environ, "FARCALL_POOL": "1", "FARCALL_POOL_SOCKET": path, "FARCALL_POOL_TOKEN": "t"})
        channel = Channel(listener.accept()[0])
        receive(channel)
        body = json.dumps({"entry": "total", "source": SOURCE}).encode()
        channel.send({"op": "function", "id": "1", "name": "total", "meta": {"code": "python"}}, body)
        nothing = [[] for _ in range(ranks)]
        overhead = []
        for number in range(tasks + 10):
            run = {"op": "run", "key": str(number), "task": "t", "attempt": 1, "function": "1", "ranks": list(range(1, ranks + 1)),
                   "cores": nothing, "gpus": nothing, "env": {}, "result": "root", "tag": number}
            took_ms, (header, data) = timed(lambda: (channel.send(run, b'J{"args": [1]}'), receive(channel))[1])
            if header["state"] != "succeeded":
                sys.exit(bytes(data).decode())
            if number >= 10:  # the first ones load the function
                overhead.append(took_ms - json.loads(bytes(data)[1:]))
        channel.socket.close()
        listener.close()
        job.wait()
        return quantiles(overhead)


def endpoint(tasks, ranks):
    space = {}
    exec(SOURCE, space)
    total = farcall.mpi(space["total"])
    with Site(BUILD / "bin", ranks), farcall.Executor("here") as executor:
        executor.resource_specification = {"num_ranks": ranks}
        for _ in range(5):
            executor.submit(total, 1).result(120)
        single = [timed(lambda: executor.submit(total, 1).result(60)) for _ in range(100)]
        all_ms, _answers = timed(lambda: [future.result(600) for future in [executor.submit(total, 1) for _ in range(tasks)]])
        return {"overhead": quantiles([took_ms - function_ms for took_ms, function_ms in single]), "each_of_many_ms": round(all_ms / tasks, 3)}


def launches(count, ranks):
    words = ["mpirun", "--oversubscribe", "-np", str(ranks), "/usr/bin/python3", "-c", PROGRAM]
    return quantiles([timed(lambda: subprocess.run(words, check=True, capture_output=True))[0] for _ in range(count)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--launches", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = {"pool": pool(given.tasks, given.ranks), "endpoint": endpoint(given.tasks, given.ranks), "mpirun": launches(given.launches, given.ranks)}
    found["mpirun_by_pool"] = round(found["mpirun"]["p50_ms"] / found["pool"]["p50_ms"], 1)
    print(json.dumps(found)) if given.json else table(found)


main()
