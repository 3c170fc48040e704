"""What bench/compare runs: each part is one function that returns nested figures."""

import json
import os
import pathlib
import shutil
import statistics
import subprocess

BENCH = pathlib.Path(__file__).resolve().parents[1]
ROOT = BENCH.parent


class Failed(Exception):
    pass


class Runner:
    """Runs the benchmarks of one build and reads their JSON. ``commands``: all that were run."""

    def __init__(self, build, quick):
        self.build, self.quick = build, quick
        self.programs = build / "bin"
        self.commands = []

    def size(self, full, quick):
        return quick if self.quick else full

    def run(self, command, limit_s=600, environment=None):
        words = [str(word) for word in command]
        self.commands.append(" ".join(words).replace(str(ROOT) + "/", "").replace(str(self.build), "build"))
        env = {**os.environ, "PYTHONPATH": str(self.build / "python"), **(environment or {})}
        try:
            done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise Failed("%s did not end within %d s" % (self.commands[-1], limit_s)) from None
        if done.returncode != 0:
            raise Failed("%s ended with code %d: %s" % (self.commands[-1], done.returncode, done.stderr.strip()[-400:]))
        # What a cluster says as it starts comes before.
        text = done.stdout
        return json.loads(text[text.index("{") :]) if "{" in text else None

    def python(self, script, *words, **more):
        return self.run(["/usr/bin/python3", "-B", BENCH / "python" / script, *words], **more)

    def executor(self, *words):
        return self.python("executor.py", "--programs", self.programs, "--json", *words)

    def peer(self, name, tasks):
        return self.python("peers.py", name, "--tasks", tasks)

    def bench(self, *words):
        return self.run([self.programs / "farcall-bench", "--json", *words])

    def limits(self, *words):
        return self.run([self.programs / "farcall-bench-limits", *words])


def median(rounds, rate):
    """The round whose rate is the middle one."""
    return sorted(rounds, key=rate)[len(rounds) // 2]


def beside(rounds, ours, theirs, rate):
    """Each round has both, one after the other, so that their ratio is of one and the same hour."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    ratios = [rate(us) / them["tasks_per_s"] for us, them in pairs if them]
    return {
        "farcall": median([us for us, _them in pairs], rate),
        "peer": median([them for _us, them in pairs], lambda each: each["tasks_per_s"]) if ratios else None,
        "ratio": round(statistics.median(ratios), 3) if ratios else None,
        "ratios": [round(each, 3) for each in ratios],
    }


def executor_rate(result):
    return result["many"]["tasks_per_s"]


def calls(run):
    tasks = run.size(10000, 3000)
    found = beside(
        run.size(3, 1),
        lambda: run.executor("--tasks", tasks, "--one-at-a-time", run.size(1000, 200)),
        lambda: run.peer("process_pool", tasks),
        executor_rate,
    )
    found["mpi4py"] = run.peer("mpi4py", tasks)
    return found


def client(run):
    return run.bench("--tasks", run.size(50000, 5000), "--one-at-a-time", run.size(2000, 300))


def native(run):
    return run.bench("--kind", "native", "--tasks", run.size(200000, 20000), "--warm-up", 5000, "--one-at-a-time", run.size(1000, 200))


def shell(run):
    tasks = run.size(2000, 500)
    words = ("--shell", "--tasks", tasks, "--warm-up", 200, "--one-at-a-time", 0)
    found = beside(run.size(3, 1), lambda: run.executor(*words), lambda: run.peer("posix_spawn", tasks), executor_rate)
    found["xargs"] = run.peer("xargs", tasks)
    return found


def payloads(run):
    tasks, large = run.size(10000, 2000), run.size(400, 60)
    return {
        "nop": run.executor("--tasks", tasks, "--one-at-a-time", 0),
        "10 KB": run.executor("--tasks", tasks, "--one-at-a-time", 0, "--payload", 10000),
        "1 MB": run.executor("--tasks", large, "--warm-up", 20, "--one-at-a-time", 0, "--payload", 1000000),
        "process_pool_mb": run.peer("process_pool_mb", large),
        "curve_hop_mb": run.limits("echo", large, 4, 1000000),
    }


def data(run):
    def of(mib, count):
        return run.python("data.py", "--programs", run.programs, "--json", "--mib", mib, "--count", count)

    return {"1 MiB": of(1, run.size(60, 10)), "100 MiB": of(100, run.size(4, 1))}


def mpi(run):
    words = ("--json", "--tasks", run.size(1000, 100), "--launches", run.size(5, 2))
    return run.run(["/usr/bin/python3", "-B", BENCH / "mpi_overhead.py", *words], environment={"FARCALL_BUILD": str(run.build)})


def lengths(run):
    return run.python("lengths.py", "--programs", run.programs, "--json", "--seconds", run.size(1.5, 0.4), "--sleeps", run.size(1000, 200))


def startup(run):
    return run.python("startup.py", "--programs", run.programs, "--json", "--rounds", run.size(3, 1), "--idle", run.size(10, 3))


def startup_slurm(run):
    if shutil.which("slurmctld") is None:
        return None
    cluster = [ROOT / "tests/support/with_slurm_cluster", "--nodes", "1", "--"]
    script = ["/usr/bin/python3", "-B", BENCH / "python/startup.py", "--programs", run.programs, "--json"]
    return run.run(cluster + script + ["--provider", "slurm", "--rounds", run.size(3, 1), "--idle", "0"])


def core(run):
    most = run.size(1000000, 100000)
    queued = {tasks: run.bench("--core", "--tasks", tasks, "--pilots", 1000) for tasks in (1000, 10000, 100000, 1000000) if tasks <= most}
    pilots = {count: run.bench("--core", "--tasks", 100000, "--pilots", count) for count in (1, 10, 100, 1000)}
    return {"by_queued": queued, "by_pilots": pilots}


def pilots(run):
    words = ("--simulated-pilots", run.size(1000, 200), "--workers", 128, "--one-at-a-time", 0)
    return run.bench(*words, "--warm-up", run.size(50000, 5000), "--tasks", run.size(400000, 40000))


def map_(run):
    return run.bench("--acknowledge", "--tasks", run.size(1000000, 100000))


def limits(run):
    few, many = run.size(20000, 4000), run.size(200000, 20000)
    return {
        "curve_one": run.limits("echo", few, 1),
        "curve_window": run.limits("echo", many, 100),
        "curve_packed": run.limits("oneway", 20 * many, 64),
        "python_one": run.limits("python", few, 1),
        "python_window": run.limits("python", 10 * many, 1000),
        "sqlite": run.peer("sqlite", 0),
    }


PARTS = {
    "calls": (calls, "no-op calls through the Executor beside ProcessPoolExecutor and mpi4py.futures"),
    "client": (client, "no-op calls through the C++ client: round trips, bytes on each hop"),
    "native": (native, "native functions through the C++ client"),
    "shell": (shell, "/bin/true beside posix_spawn and xargs"),
    "payloads": (payloads, "10 KB and 1 MB there and back"),
    "data": (data, "values of 1 MiB and 100 MiB, beside a plain CURVE stream"),
    "mpi": (mpi, "MPI functions on warm ranks beside mpirun"),
    "lengths": (lengths, "how short tasks may be (METG); sleeps of 10 ms"),
    "startup": (startup, "from endpoint start to the first result; memory and CPU when idle"),
    "startup_slurm": (startup_slurm, "the same start on an idle Slurm cluster"),
    "core": (core, "the interchange's core alone"),
    "pilots": (pilots, "1,000 simulated pilots against one interchange"),
    "map": (map_, "1,000,000 inputs until they are durable"),
    "limits": (limits, "CURVE, SQLite and a Python child, with nothing of farcall"),
}
