#!/usr/bin/env python3
"""Futures made, waited for and cancelled, in rounds: does memory stay flat?

    bench/python/futures_leak.py -e here [--rounds 10] [--count 10000] [--json]

Each round has a new Executor over the same client. Half of its futures are waited for, the other half sleep and
are cancelled, a hundred of them one by one. Measured after each round, in MiB of resident memory: this process, and on
the worker's node the worker, the template it was forked from and the pilot (a worker that is cancelled is replaced,
so its memory starts again). Objects are live TaskFutures and threads of this process. Exit code 1 when the later half of
the rounds has more than the earlier by over 5 % (and 2 MiB): something leaks.
"""

import argparse
import concurrent.futures
import gc
import json
import sys
import threading
import time

import farcall

COLUMNS = ("round", "seconds", "client", "worker", "template", "pilot", "futures", "threads")
MEMORY = ("client", "template", "pilot")


def resident_mib(pid="self"):
    """Of one process, 0 when it cannot be read."""
    try:
        with open("/proc/%s/status" % pid) as file:
            return next((int(line.split()[1]) / 1024.0 for line in file if line.startswith("VmRSS")), 0.0)
    except OSError:
        return 0.0


def memory_of_the_node():
    """Runs on the worker."""

    def status(pid):
        with open("/proc/%s/status" % pid) as file:
            return dict(line.split(":", 1) for line in file)

    found, pid = {}, "self"
    for name in ("worker", "template", "pilot"):
        fields = status(pid)
        found[name] = int(fields["VmRSS"].split()[0]) / 1024.0
        pid = fields["PPid"].strip()
    return found


def one_round(client, endpoint, count):
    """Makes, waits for and cancels `count` futures; raises when one ends as it should not."""
    with farcall.Executor(endpoint, client=client, label="futures_leak") as executor:
        waited = [executor.submit(pow, number, 2) for number in range(count // 2)]
        done, left = concurrent.futures.wait(waited, timeout=600)
        assert not left and [future.result() for future in waited] == [number**2 for number in range(count // 2)]
    executor = farcall.Executor(endpoint, client=client, label="futures_leak")
    sleeping = [executor.submit(time.sleep, 3600) for _ in range(count - count // 2)]
    for future in sleeping[-100:]:
        assert future.cancel(running=True), future
    deadline = time.monotonic() + 120
    while not all(future.done() for future in sleeping):
        client.cancel([future.task_id for future in sleeping if future.task_id and not future.done()])
        concurrent.futures.wait(sleeping, timeout=10)
        assert time.monotonic() < deadline, "%d futures are not cancelled" % sum(not future.done() for future in sleeping)
    executor.shutdown()
    assert all(future.cancelled() for future in sleeping)


def measure(client, endpoint):
    """What there is when a round is over."""
    with farcall.Executor(endpoint, client=client) as executor:
        row = executor.submit(memory_of_the_node).result(120)
    del executor
    gc.collect()
    row["client"] = resident_mib()
    row["futures"] = sum(isinstance(one, farcall.TaskFuture) for one in gc.get_objects())
    row["threads"] = threading.active_count()
    return row


def growth(rows, column):
    """From the earlier rounds to the later ones, the first left out: (MiB, share)."""
    values = [row[column] for row in rows[1:]]
    half = len(values) // 2
    before, after = max(values[:half]), max(values[half:])
    return after - before, (after - before) / before if before else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--endpoint", required=True, help="name or id; a local one, of few workers")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--count", type=int, default=10000, help="futures in a round")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    chosen = parser.parse_args()
    if chosen.rounds < 5 or chosen.count < 200:
        parser.error("at least 5 rounds of 200 futures are needed to tell anything")
    rows = []
    with farcall.Client() as client:
        if not chosen.json:
            print(" ".join("%9s" % column for column in COLUMNS), flush=True)
        for number in range(1, chosen.rounds + 1):
            begin = time.monotonic()
            one_round(client, chosen.endpoint, chosen.count)
            seconds = time.monotonic() - begin
            rows.append(dict(measure(client, chosen.endpoint), round=number, seconds=seconds))
            if not chosen.json:
                print(" ".join("%9.1f" % rows[-1][c] if isinstance(rows[-1][c], float) else "%9d" % rows[-1][c] for c in COLUMNS), flush=True)
    grown = {column: growth(rows, column) for column in MEMORY}
    leaks = [column for column, (mib, share) in grown.items() if mib > 2 and share > 0.05]
    if chosen.json:
        print(json.dumps({"rounds": rows, "grown_mib": {column: mib for column, (mib, _share) in grown.items()}, "leaks": leaks}))
    else:
        for column, (mib, share) in grown.items():
            print("%s: %+.1f MiB (%+.1f %%) from the earlier to the later rounds" % (column, mib, 100 * share))
        print("leaks: %s" % (", ".join(leaks) or "none"))
    return 1 if leaks else 0


if __name__ == "__main__":
    sys.exit(main())
