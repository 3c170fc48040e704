#!/usr/bin/python3
"""What else this machine can do, one thing at a time, as JSON.

    bench/python/peers.py NAME [--tasks N]      NAME: process_pool, process_pool_mb, mpi4py, posix_spawn, xargs, sqlite

No farcall in it. What is not installed prints null.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

SPAWN_LOOP = r"""
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
extern char** environ;
/* argv[1] children in all, argv[2] at a time */
int main(int argc, char** argv) {
  (void)argc;
  int left = atoi(argv[1]), running = 0, most = atoi(argv[2]);
  char* child[] = {(char*)"/bin/true", 0};
  while (left > 0 || running > 0) {
    while (left > 0 && running < most) {
      pid_t pid;
      if (posix_spawn(&pid, child[0], 0, 0, child, environ) != 0) return 1;
      --left, ++running;
    }
    if (wait(0) > 0) --running;
  }
  return 0;
}
"""


def nop(value):
    return value


def of_pool(pool, tasks):
    list(pool.map(nop, range(100)))
    times = []
    for i in range(300):
        start = time.perf_counter()
        pool.submit(nop, i).result()
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    answer = {"p50_ms": round(times[150], 3), "p99_ms": round(times[297], 3)}
    answer["tasks_per_s"] = rate(tasks, lambda: [future.result() for future in [pool.submit(nop, i) for i in range(tasks)]])
    return answer


def cpu_s():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def process_pool(tasks):
    start = time.perf_counter()
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        pool.submit(pow, 1, 1).result()
        first_s = time.perf_counter() - start
        answer = of_pool(pool, tasks)
    answer["first_result_s"] = round(first_s, 3)
    # Children count once they have ended: the same again with more tasks tells what one costs.
    before = cpu_s()
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        [future.result() for future in [pool.submit(nop, i) for i in range(2 * tasks)]]
    answer["cpu_us"] = round((cpu_s() - before) / (2 * tasks) * 1e6, 1)
    return answer


def process_pool_mb(tasks):
    """There and back."""
    data = b"x" * 1000000
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        list(pool.map(nop, range(100)))
        return {"tasks_per_s": rate(tasks, lambda: [future.result() for future in [pool.submit(nop, data) for _ in range(tasks)]])}


def mpi4py(tasks):
    if shutil.which("mpirun") is None or subprocess.run([sys.executable, "-c", "import mpi4py"], capture_output=True).returncode:
        return None
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = ["mpirun", "--oversubscribe", "-n", "3", sys.executable, __file__, "mpi4py_ranks", "--tasks", str(tasks)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout) if done.returncode == 0 else None


def mpi4py_ranks(tasks):
    """On each rank; the first has the answer."""
    from mpi4py.futures import MPICommExecutor

    with MPICommExecutor() as pool:
        return of_pool(pool, tasks) if pool is not None else None


def rate(count, action):
    start = time.perf_counter()
    action()
    return round(count / (time.perf_counter() - start))


def xargs(tasks):
    if shutil.which("xargs") is None:
        return None
    lines = "x\n" * tasks
    return {"tasks_per_s": rate(tasks, lambda: subprocess.run(["xargs", "-P2", "-n1", "/bin/true"], input=lines, text=True, check=True))}


def posix_spawn(tasks):
    if shutil.which("cc") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, program = pathlib.Path(folder) / "loop.c", pathlib.Path(folder) / "loop"
        source.write_text(SPAWN_LOOP)
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)
        return {"tasks_per_s": rate(tasks, lambda: subprocess.run([program, str(tasks), "2"], check=True))}


def sqlite(tasks):
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(pathlib.Path(folder) / "raw.db", isolation_level=None)
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
            database.execute("PRAGMA " + pragma)
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
        times, number = [], iter(range(1, 10**9))

        def write(rows_a_commit, commits):
            for _ in range(commits):
                start = time.perf_counter()
                database.execute("BEGIN")
                database.executemany("INSERT INTO t VALUES (?, ?)", ((next(number), b"x" * 100) for _ in range(rows_a_commit)))
                database.execute("COMMIT")
                times.append((time.perf_counter() - start) * 1e6)

        write(1, 1000)
        times.sort()
        return {"one_row_p50_us": round(times[500], 1), "thousand_rows_per_s": rate(100000, lambda: write(1000, 100))}


PEERS = {each.__name__: each for each in (process_pool, process_pool_mb, mpi4py, mpi4py_ranks, posix_spawn, xargs, sqlite)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--tasks", type=int, default=10000)
    options = parser.parse_args()
    answer = PEERS[options.name](options.tasks)
    if answer is not None or options.name != "mpi4py_ranks":
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
