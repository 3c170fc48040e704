#!/usr/bin/python3
"""From `farcall endpoint start` to the first result, and what an endpoint costs that has nothing to do.

    PYTHONPATH=build/python bench/python/startup.py --programs build/bin [--json]
    PYTHONPATH=build/python tests/support/with_slurm_cluster --nodes 1 -- bench/python/startup.py --programs build/bin --provider slurm

With Slurm the same is done with a job of nothing: what a job takes to start is no cost of farcall.
"""

import argparse
import os
import pathlib
import subprocess
import tempfile
import time

from bench_site import Site, show

SERVERS = ("relay", "interchange", "pilot")
SLURM = {"engine.provider.partition": "debug", "engine.provider.exclusive": "false", "engine.provider.walltime": "00:10:00"}


def nop():
    return None


def job_start_s():
    """Of a job that does nothing: from sbatch to its first command."""
    with tempfile.TemporaryDirectory(dir=os.getcwd()) as folder:
        mark = pathlib.Path(folder) / "started"
        start = time.time()
        command = ["sbatch", "--partition=debug", "--output=/dev/null", "--wrap", "srun date +%%s.%%N > %s.new && mv %s.new %s" % (mark, mark, mark)]
        subprocess.run(command, check=True, capture_output=True)
        while not mark.exists():
            time.sleep(0.01)
        return float(mark.read_text()) - start


def cpu_s(pids):
    """Seconds that all threads have run; finer than the ticks of stat."""
    total = 0
    for pid in pids:
        for thread in pathlib.Path("/proc/%d/task" % pid).iterdir():
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def memory_mib(pids, field):
    total = 0
    for pid in pids:
        lines = pathlib.Path("/proc/%d/smaps_rollup" % pid).read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith(field + ":"))
    return round(total / 1024, 1)


def idle(site, seconds):
    by_role = site.pids()
    servers = [pid for role in SERVERS for pid in by_role.get(role, [])]
    before, start = cpu_s(servers), time.perf_counter()
    time.sleep(seconds)
    took = time.perf_counter() - start
    share = (cpu_s(servers) - before) / took
    answer = {"seconds": round(took, 1), "cpu_percent": round(share * 100, 3)}
    for name, pids in [("servers", servers), *sorted(by_role.items())]:
        if name != "client":
            answer[name] = {"resident_mib": memory_mib(pids, "Rss"), "own_share_mib": memory_mib(pids, "Pss")}
    return answer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True, help="folder of farcall and its servers")
    parser.add_argument("--provider", choices=("local", "slurm"), default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=float, default=10, help="seconds; 0: not measured")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = {"provider": options.provider, "first_result_s": []}
    # Job scripts and credentials have to be where the nodes see them.
    shared = {"shared": os.getcwd(), "settings": SLURM} if options.provider == "slurm" else {}
    if options.provider == "slurm":
        result["job_start_s"] = sorted(round(job_start_s(), 3) for _ in range(options.rounds))
    for number in range(options.rounds):
        with Site(options.programs, options.workers, provider=options.provider, start=False, **shared) as site:
            from farcall import Client, Executor

            client = Client()
            start = time.perf_counter()
            site.run("endpoint", "start", "here")
            with Executor("here", client=client) as executor:
                executor.submit(nop).result()
                result["first_result_s"].append(round(time.perf_counter() - start, 3))
            if options.idle and number == options.rounds - 1:
                time.sleep(3)
                result["idle"] = idle(site, options.idle)
            client.close()
    result["first_result_s"].sort()
    if options.provider == "slurm":
        middle = options.rounds // 2
        result["beyond_job_start_s"] = round(result["first_result_s"][middle] - result["job_start_s"][middle], 3)
    show(result, options.json)


if __name__ == "__main__":
    main()
