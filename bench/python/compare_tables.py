"""What bench/compare prints: the figures beside those of others, and what falls short of its aim."""

# Measured on another machine of 2 cores (Debian 12), medians of several runs: tasks/s, CPU µs a task,
# round trip, start to first result, idle memory. ProcessPoolExecutor tells the two machines apart.
OTHERS = [
    ("Globus Compute's engine alone", "1,133", "1,426", "1.60 ms", "7.7 s", "268 MiB"),
    ("Parsl HTEX, its defaults", "1,154", "1,459", "1.63 ms", "6.7 s", "217 MiB"),
    ("Parsl HTEX, best found", "2,882", "672", "1.05 ms", "6.9 s", "219 MiB"),
    ("mpi4py.futures", "5,625", "127", "0.31 ms", "0.40 s", "55 MiB"),
    ("ProcessPoolExecutor", "12,682", "102", "0.19 ms", "0.05 s", "15 MiB"),
]
THERE = {"process_pool": 12682, "parsl": 1154, "parsl_mb": 61, "hyperqueue": 1169, "posix_spawn": 3248, "xargs": 2038}
BOUNDS = [  # there; how to find it in the figures of the part "limits"
    ("CURVE over TCP, 256 B, echo, window 100", "299,000/s", ("curve_window", "per_s"), "{:,.0f}/s"),
    ("CURVE over TCP, 256 B, one at a time", "p50 92 µs", ("curve_one", "p50_us"), "p50 {:.0f} µs"),
    ("64 messages packed in a frame, one way, CURVE", "2,260,000/s", ("curve_packed", "per_s"), "{:,.0f}/s"),
    ("SQLite WAL FULL, 1 row a commit", "p50 153 µs", ("sqlite", "one_row_p50_us"), "p50 {:.0f} µs"),
    ("SQLite WAL FULL, 1,000 rows a commit", "203,000 rows/s", ("sqlite", "thousand_rows_per_s"), "{:,.0f} rows/s"),
    ("a Python child over a socket, in a window", "486,000/s", ("python_window", "per_s"), "{:,.0f}/s"),
    ("a Python child over a socket, one at a time", "41 µs", ("python_one", "p50_us"), "{:.0f} µs"),
]


def get(figures, *path):
    """None where something on the way is missing."""
    for name in path:
        figures = figures.get(name) if isinstance(figures, dict) else None
    return figures


def shown(value, form="{:,.0f}"):
    return "-" if value is None else form.format(value)


def divided(one, other):
    return one / other if one is not None and other else None


class Table:
    def __init__(self, title, head, rows):
        self.title, self.head = title, head
        self.rows = [tuple(str(cell) for cell in row) for row in rows]

    def markdown(self):
        lines = ["| " + " | ".join(row) + " |" for row in [self.head, ["---"] * len(self.head), *self.rows]]
        return "\n".join(["### " + self.title, "", *lines, ""])

    def text(self):
        widths = [max(len(row[i]) for row in [self.head, *self.rows]) for i in range(len(self.head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [self.head, *self.rows]]
        return "\n".join([self.title, "-" * len(self.title), *lines, ""])


def first_table(found):
    executor, pool, mpi = get(found, "calls", "farcall"), get(found, "calls", "peer"), get(found, "calls", "mpi4py")
    first_s = get(found, "startup", "first_result_s")
    idle = [get(found, "startup", "idle", role, "resident_mib") for role in ("servers", "workers")]
    rows = [("there: " + other[0], *other[1:]) for other in OTHERS]
    for name, each in (("mpi4py.futures", mpi), ("ProcessPoolExecutor", pool)):
        cells = shown(get(each, "tasks_per_s")), shown(get(each, "cpu_us")), shown(get(each, "p50_ms"), "{:.2f} ms")
        rows.append(("here: " + name, *cells, shown(get(each, "first_result_s"), "{:.2f} s"), "-"))
    one, many = get(executor, "one_at_a_time"), get(executor, "many")
    cells = shown(get(many, "tasks_per_s")), shown(get(many, "processes", "all", "cpu_us")), shown(get(one, "p50_ms"), "{:.2f} ms")
    rows.append(("here: farcall Executor", *cells, shown(first_s and first_s[len(first_s) // 2], "{:.2f} s"), "%s MiB, %s MiB of it workers" % (shown(sum(idle)), shown(idle[1])) if None not in idle else "-"))
    head = ("no-op Python calls, 2 workers", "tasks/s", "CPU µs/task", "round trip p50", "start to first result", "idle memory")
    return Table("No-op Python calls", head, rows)


def shell_table(found):
    shell = found.get("shell")
    ours = get(shell, "farcall", "many", "tasks_per_s")
    rows = [("farcall", "-", shown(ours), "1.00")]
    for name, there, here in (
        ("posix_spawn in C", THERE["posix_spawn"], get(shell, "peer", "tasks_per_s")),
        ("xargs -P2", THERE["xargs"], get(shell, "xargs", "tasks_per_s")),
    ):
        rows.append((name, shown(there), shown(here), shown(divided(ours, here), "{:.2f}")))
    rows.append(("HyperQueue 0.15", shown(THERE["hyperqueue"]), "-", shown(divided(ours, THERE["hyperqueue"]), "{:.2f}")))
    rows += [("Parsl bash_app", "499", "-", shown(divided(ours, 499), "{:.2f}")), ("GNU parallel", "382", "-", shown(divided(ours, 382), "{:.2f}"))]
    return Table("/bin/true, two at a time", ("", "there, a second", "here, a second", "farcall by it"), rows)


def bounds_table(found):
    rows = [(name, there, shown(get(found, "limits", *path), form)) for name, there, path, form in BOUNDS]
    hop, pool = get(found, "payloads", "curve_hop_mb", "per_s"), get(found, "payloads", "process_pool_mb", "tasks_per_s")
    rows.append(("1 MB there and back, ProcessPool / one CURVE hop", "588 / 470 a second", "%s / %s a second" % (shown(pool), shown(hop))))
    return Table("What bounds a path", ("", "there", "here"), rows)


def runs_of(found):
    """(name, figures of processes and so on) of everything that went through the whole of farcall."""
    named = [
        ("no-op, Executor", get(found, "calls", "farcall", "many")),
        ("no-op, Executor, one at a time", get(found, "calls", "farcall", "one_at_a_time")),
        ("no-op, C++ client", get(found, "client", "many")),
        ("no-op, C++ client, one at a time", get(found, "client", "one_at_a_time")),
        ("native, C++ client", get(found, "native", "many")),
        ("/bin/true, Executor", get(found, "shell", "farcall", "many")),
        ("10 KB, Executor", get(found, "payloads", "10 KB", "many")),
        ("1 MB, Executor", get(found, "payloads", "1 MB", "many")),
        ("1,000 simulated pilots, C++ client", get(found, "pilots", "many")),
    ]
    return [(name, figures) for name, figures in named if figures]


def cost_tables(found):
    roles = ("client", "relay", "interchange", "pilot", "workers", "simulated pilots")
    cpu, memory, trips, hops = [], [], [], []
    for name, run in runs_of(found):
        by = run["processes"]
        used = [shown(by[role]["user_us"] + by[role]["system_us"]) if role in by else "-" for role in roles]
        cpu.append((name, shown(run.get("tasks_per_s")), shown(by["all"]["cpu_us"]), *used))
        memory.append((name, *[shown(get(by, role, "peak_mib")) for role in roles]))
        if "p50_ms" in run:
            trips.append((name, *[shown(run.get(key), "{:.2f}") for key in ("p50_ms", "p99_ms", "p999_ms")]))
        if "bytes_per_task" in run:
            hops.append((name, *[shown(run["bytes_per_task"].get(hop)) for hop in ("client-relay", "relay-interchange", "interchange-pilot")]))
    return [
        Table("CPU µs a task, by process", ("", "tasks/s", "all", *roles), cpu),
        Table("Peak memory in MiB, by process", ("", *roles), memory),
        Table("Round trips in ms", ("", "p50", "p99", "p99.9"), trips),
        Table("Bytes a task on each hop, both ways", ("", "client-relay", "relay-interchange", "interchange-pilot"), hops),
    ]


def flat_table(found):
    rows = []
    for what, by in (("queued, 1,000 pilots", get(found, "core", "by_queued")), ("pilots, 100,000 queued", get(found, "core", "by_pilots"))):
        for count, each in (by or {}).items():
            rows.append(("%s %s" % ("{:,}".format(int(count)), what), shown(each["cpu_us"], "{:.2f}"), shown(each["tasks_per_cpu_s"]), shown(each["bytes_per_queued_task"])))
    return Table("The interchange's core alone", ("", "CPU µs a task", "tasks a second", "bytes a queued task"), rows)


def data_table(found):
    rows = []
    for size, run in (found.get("data") or {}).items():
        machine = [shown(get(run, "machine", what)) for what in ("hash_mib_s", "disk_mib_s")]
        for what in ("arguments", "results"):
            rows.append(("%s of %s" % (what, size), shown(run[what + "_mib_s"], "{:,.1f}"), shown(run["curve_mib_s"]), shown(run[what + "_by_curve"], "{:.3f}"), *machine))
    head = ("one after the other, through the whole path", "MiB/s", "plain CURVE stream, MiB/s", "share of it", "one core hashes, MiB/s", "the disk takes with a sync, MiB/s")
    return Table("Large values", head, rows)


def mpi_table(found):
    mpi = found.get("mpi")
    ways = (
        ("messages to the ranks of a pool and back", get(mpi, "pool")),
        ("from submit to result", get(mpi, "endpoint", "overhead")),
        ("mpirun of the same function", get(mpi, "mpirun")),
    )
    rows = [(name, shown(way["p50_ms"], "{:.2f}"), shown(way["p90_ms"], "{:.2f}")) for name, way in ways if way]
    if mpi:
        rows.append(("each of many at once", shown(get(mpi, "endpoint", "each_of_many_ms"), "{:.2f}"), "-"))
    return Table("An MPI function on four ranks: ms beyond its own time", ("", "p50", "p90"), rows)


def spread(by):
    """How much dearer the dearest is than the cheapest, in percent."""
    costs = [each["cpu_us"] for each in (by or {}).values()]
    return (max(costs) / min(costs) - 1) * 100 if costs else None


def aims(found):
    """(what, aim, bound, measured, form): at least `bound` where it is positive, else at most its opposite."""
    many, one = get(found, "calls", "farcall", "many"), get(found, "client", "one_at_a_time")
    pool, rate = get(found, "calls", "peer", "tasks_per_s"), get(many, "tasks_per_s")
    # A machine that is slower than the one where Parsl was measured would slow Parsl down as well.
    parsl = divided(pool, THERE["process_pool"] / THERE["parsl"])
    megabyte, hop = get(found, "payloads", "1 MB", "many", "tasks_per_s"), get(found, "payloads", "curve_hop_mb", "per_s")
    shell = get(found, "shell", "farcall", "many", "tasks_per_s")
    first_s = get(found, "startup", "first_result_s")
    million = max(get(found, "core", "by_queued") or {"": None}, key=lambda count: int(count or 0))
    big = get(found, "core", "by_queued", million)
    return [
        ("Executor, by ProcessPoolExecutor in the same run", ">= 2", 2, get(found, "calls", "ratio"), "{:.2f}"),
        ("Executor, by Parsl's defaults (as this machine would run them)", ">= 20", 20, divided(rate, parsl), "{:.1f}"),
        ("Executor, tasks/s", "30,000", 30000, rate, "{:,.0f}"),
        ("Executor, CPU µs a task, all processes", "<= 60", -60, get(many, "processes", "all", "cpu_us"), "{:.0f}"),
        ("C++ client and native functions, tasks/s", ">= 60,000", 60000, get(found, "native", "many", "tasks_per_s"), "{:,.0f}"),
        ("one at a time, p50 ms", "< 0.9", -0.9, get(one, "p50_ms"), "{:.2f}"),
        ("one at a time, p99 ms", "< 2", -2, get(one, "p99_ms"), "{:.2f}"),
        ("shell, by posix_spawn in the same run", ">= 0.75", 0.75, get(found, "shell", "ratio"), "{:.2f}"),
        ("shell, by HyperQueue there", ">= 2", 2, divided(shell, THERE["hyperqueue"]), "{:.2f}"),
        ("1 MB there and back, by Parsl there", ">= 2", 2, divided(megabyte, THERE["parsl_mb"]), "{:.2f}"),
        ("1 MB there and back, by three CURVE hops here", ">= 0.6", 0.6, divided(megabyte, divided(hop, 3)), "{:.2f}"),
        ("10 KB, by the no-op rate", ">= 0.7", 0.7, divided(get(found, "payloads", "10 KB", "many", "tasks_per_s"), get(found, "payloads", "nop", "many", "tasks_per_s")), "{:.2f}"),
        ("METG of Python calls, µs", "< 100", -100, get(found, "lengths", "half_busy_us"), "{:.0f}"),
        ("sleeps of 10 ms, a second (200 at best)", ">= 195", 195, get(found, "lengths", "sleeps_10ms_per_s"), "{:.1f}"),
        ("endpoint start to first result, local, s", "< 1", -1, first_s and first_s[len(first_s) // 2], "{:.2f}"),
        ("the same on Slurm, beyond the job's own start, s", "< 1", -1, get(found, "startup_slurm", "beyond_job_start_s"), "{:.2f}"),
        ("relay, interchange and pilot idle, MiB", "< 60", -60, get(found, "startup", "idle", "servers", "resident_mib"), "{:.0f}"),
        ("the same, CPU in percent", "< 0.1", -0.1, get(found, "startup", "idle", "cpu_percent"), "{:.2f}"),
        ("core alone, tasks a second", ">= 150,000", 150000, get(big, "tasks_per_cpu_s"), "{:,.0f}"),
        ("core alone, CPU µs a task", "< 7", -7, get(big, "cpu_us"), "{:.2f}"),
        ("core alone, dearer by with 1,000 to 1,000,000 queued, %", "<= 20", -20, spread(get(found, "core", "by_queued")), "{:.0f}"),
        ("core alone, dearer by with 1 to 1,000 pilots, %", "<= 20", -20, spread(get(found, "core", "by_pilots")), "{:.0f}"),
        ("interchange memory, bytes a queued task", "<= 600", -600, get(big, "bytes_per_queued_task"), "{:.0f}"),
        ("1,000 pilots x 128 slots over real sockets, tasks/s", ">= 20,000", 20000, get(found, "pilots", "many", "tasks_per_s"), "{:,.0f}"),
        ("map of 1,000,000 inputs, s until acknowledged", "< 5", -5, get(found, "map", "acknowledged_s"), "{:.2f}"),
        ("the client's memory meanwhile, MiB", "< 300", -300, get(found, "map", "client_peak_mib"), "{:.0f}"),
    ]


def verdict(bound, value):
    if value is None:
        return "not measured"
    if bound > 0:
        return "reached" if value >= bound else "short by %.0f %%" % ((1 - value / bound) * 100)
    return "reached" if value <= -bound else "over by %.0f %%" % ((value / -bound - 1) * 100)


def aims_table(found):
    rows = [(what, aim, shown(value, form), verdict(bound, value)) for what, aim, bound, value, form in aims(found)]
    return Table("Aims", ("", "aim", "here", ""), rows)


def tables(found):
    return [first_table(found), shell_table(found), bounds_table(found), aims_table(found), data_table(found), mpi_table(found), *cost_tables(found), flat_table(found)]
