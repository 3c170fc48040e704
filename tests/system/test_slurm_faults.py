"""What goes wrong on a real cluster of four nodes: each case ends with all tasks done, one result each, no job left.

The slowest cases run with FARCALL_TEST_LONG only (scripts/test --long).
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest
from conftest import BUILD, is_gone, leaves_a_daemon_behind, wait_for

CLUSTER = os.environ.get("FARCALL_TEST_CLUSTER")
CLUSTER_DIR = pathlib.Path(os.environ.get("FARCALL_TEST_CLUSTER_DIR", "/nonexistent"))
ADDRESS = os.environ.get("FARCALL_TEST_ADDRESS")
slow = pytest.mark.skipif(not os.environ.get("FARCALL_TEST_LONG"), reason="minutes long: scripts/test --long")
nodes_of_their_own = pytest.mark.skipif(os.environ.get("FARCALL_TEST_MODE") != "namespaces", reason="needs nodes with namespaces of their own")


def run(*words, check=True):
    return subprocess.run([str(word) for word in words], check=check, capture_output=True, text=True).stdout


def cluster(*words):
    return run(CLUSTER, words[0], "--dir", CLUSTER_DIR, *words[1:])


def jobs(*options):
    return [line.split("|") for line in run("squeue", "-h", "-o", "%i|%T|%N|%r", *options).splitlines()]


def running():
    return [job for job in jobs("-t", "R") if job[1] == "RUNNING"]


class Slurm:
    """An endpoint on the cluster, with tasks that leave a mark each time they are started."""

    def __init__(self, site, marks):
        self.site, self.marks = site, marks

    def start(self, **settings):
        self.site.endpoint("slurm", "slurm", **{
            "engine.provider.partition": "debug", "engine.provider.exclusive": "false", "engine.provider.walltime": "00:10:00",
            "engine.provider.init_blocks": 0, "engine.provider.max_blocks": 4, "engine.max_workers_per_node": 2,
            "engine.heartbeat_period": 1, "engine.heartbeat_threshold": 10, "engine.scheduler_interval": 5, "engine.lookup_grace": 10,
            "engine.provider.cmd_timeout": 15, **settings})

    def submit(self, count, seconds, group="g"):
        command = f'echo "$FARCALL_TASK_ID $(hostname)" >> {self.marks}; sleep {seconds}; echo done'
        self.site.farcall("submit", "-e", "slurm", "--group", group, "--count", count, "--", "sh", "-c", command)

    def started(self):
        return self.marks.read_text().splitlines() if self.marks.exists() else []

    def status(self):
        return self.site.json("endpoint", "status", "slurm")["status"] or {}

    def explain(self, group="g"):
        tasks = self.site.json("task", "list", "--group", group, "--limit", "1000")["tasks"]
        waiting = [task for task in tasks if task["state"] not in ("succeeded", "failed")]
        return self.site.farcall("task", "explain", waiting[0]["task_id"]).stdout if waiting else ""

    def all_done(self, count, group="g"):
        output = self.marks.with_suffix(f".{group}.jsonl")
        self.site.farcall("group", "results", group, "--wait", "-o", output, timeout=400)
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert len(rows) == count and len({row["index"] for row in rows}) == count
        assert [row["result"]["stdout"] for row in rows] == ["done\n"] * count, [row for row in rows if row["state"] != "succeeded"][:3]

    def no_job_left(self):
        self.site.farcall("endpoint", "stop", "slurm")
        wait_for(lambda: not jobs(), "no job to be left")


@pytest.fixture
def slurm(site, tmp_path):
    site.start_relay(f"tcp://{ADDRESS}:0")
    # Seen by all nodes: they share the file system of this host.
    marks = site.home / "marks"
    yield Slurm(site, marks)
    run("scancel", "--user", "root", check=False)


def test_from_nothing_to_four_blocks_and_back(slurm):
    slurm.start(**{"engine.max_idletime": 4})
    assert not jobs()
    slurm.submit(60, 0.5)
    wait_for(lambda: len(running()) == 4, "four jobs to run")
    slurm.all_done(60)
    wait_for(lambda: not jobs(), "all blocks to be given back", 90)
    status = slurm.status()
    assert status["paused"] is None and status["scheduler"]["calls_per_hour"] > 0
    slurm.no_job_left()


def test_partition_down_and_job_held(slurm):
    run("scontrol", "update", "PartitionName=debug", "State=DOWN")
    try:
        slurm.start(**{"engine.provider.max_blocks": 1})
        slurm.submit(4, 0.1)
        (job,) = wait_for(lambda: jobs("-t", "PD"), "a job to wait")
        wait_for(lambda: "PartitionDown" in slurm.explain(), "the scheduler's reason in explain")
        run("scontrol", "hold", job[0])
    finally:
        run("scontrol", "update", "PartitionName=debug", "State=UP")
    wait_for(lambda: "JobHeld" in slurm.explain(), "the hold in explain")
    run("scontrol", "release", job[0])
    slurm.all_done(4)
    slurm.no_job_left()


def test_an_account_that_may_not(slurm):
    run("scontrol", "update", "PartitionName=debug", "AllowAccounts=chem")
    try:
        slurm.start(**{"engine.provider.account": "physics", "engine.provider.max_blocks": 1})
        slurm.submit(2, 0.1)
        wait_for(lambda: "account" in slurm.explain().lower(), "the scheduler's own words in explain")
        assert not running()
    finally:
        run("scontrol", "update", "PartitionName=debug", "AllowAccounts=ALL")
    slurm.site.farcall("endpoint", "resume", "slurm")
    slurm.all_done(2)
    slurm.no_job_left()


def test_cancelled_by_hand_and_requeued(slurm):
    slurm.start(**{"engine.provider.max_blocks": 2})
    slurm.submit(40, 1)
    first = wait_for(lambda: len(running()) == 2 and running(), "two jobs to run")
    wait_for(lambda: len(slurm.started()) >= 4, "tasks to run on both")
    run("scancel", first[0][0])
    run("scontrol", "update", f"JobId={first[1][0]}", "Requeue=1")
    run("scontrol", "requeue", first[1][0])
    slurm.all_done(40)
    slurm.no_job_left()


def test_preempted(slurm):
    slurm.start(**{"engine.provider.max_blocks": 4, "engine.provider.cores_per_node": 4})
    slurm.submit(24, 1)
    wait_for(lambda: len(running()) == 4, "four jobs to run")
    wait_for(lambda: len(slurm.started()) >= 2, "tasks to run")
    urgent = run("sbatch", "--parsable", "-p", "urgent", "-N4", "-n16", "-o", "/dev/null", "--wrap", "sleep 3").strip()
    wait_for(lambda: [job for job in jobs("-t", "all") if job[1] in ("PREEMPTED", "CANCELLED")], "a job of ours to be preempted")
    wait_for(lambda: [job for job in jobs("-t", "all") if job[0] == urgent and job[1] == "COMPLETED"], "the urgent job to end")
    slurm.all_done(24)
    slurm.no_job_left()


def is_back(node):
    wait_for(lambda: "idle" in run("sinfo", "-h", "-n", f"n{node}", "-o", "%T"), "the node to be back", 120)


@nodes_of_their_own
def test_its_node_killed(slurm):
    slurm.start(**{"engine.provider.nodes_per_block": 2, "engine.provider.max_blocks": 1})
    slurm.submit(24, 1)
    job = wait_for(running, "a job to run")[0]
    wait_for(lambda: len({line.split()[1] for line in slurm.started()}) == 2, "tasks on both of its nodes")
    node = slurm.started()[-1].split()[1][1:]
    cluster("kill-node", node)
    try:
        slurm.all_done(24)  # one node's death does not end the block
        assert job[0] in [other[0] for other in jobs()] or len(slurm.started()) > 24
    finally:
        cluster("start-node", node)
    slurm.no_job_left()
    is_back(node)


def cut(node, seconds):
    link = f"fcv{ADDRESS.split('.')[2]}n{node}"
    run("ip", "link", "set", link, "down")
    time.sleep(seconds)  # this long a cut is the case itself
    run("ip", "link", "set", link, "up")


@nodes_of_their_own
@pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=slow)])
def test_a_node_cut_off_for_a_while(slurm, seconds):
    # Each block on a node of its own.
    slurm.start(**{"engine.provider.max_blocks": 2, "engine.provider.cores_per_node": 4, "engine.prefetch_capacity": 0})
    slurm.submit(24, 2)
    wait_for(lambda: len({line.split()[1] for line in slurm.started()}) == 2, "tasks on two nodes")
    node = slurm.started()[-1].split()[1][1:]
    cut(node, seconds)
    slurm.all_done(24)
    slurm.no_job_left()
    is_back(node)
    wait_for(lambda: not slurm.site.pilots(), "the old copy to end as well", 120)


def controller():
    status = run(CLUSTER, "status", "--dir", CLUSTER_DIR, check=False)  # 1: not all nodes answer
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("controller")))


def start_controller(*options):
    subprocess.run(["slurmctld", *options, "-f", CLUSTER_DIR / "slurm.conf"], check=True, start_new_session=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: run("sinfo", "-h", "-o", "%P", check=False), "the controller to answer")


def stop_controller(how):
    pid = controller()
    os.kill(pid, how)
    wait_for(lambda: is_gone(pid), "the controller to be gone")


def test_controller_stopped_and_frozen(slurm):
    slurm.start(**{"engine.provider.max_blocks": 2, "engine.provider.min_blocks": 1})
    slurm.submit(16, 1)
    wait_for(lambda: len(slurm.started()) >= 2, "tasks to run")
    stop_controller(signal.SIGTERM)
    try:
        slurm.all_done(16)  # pilots need no controller
        wait_for(lambda: slurm.status()["scheduler"]["unanswered_s"] > 0, "the silence in the status", 90)
        assert not [block for block in slurm.status()["blocks"] if block["state"] == "ended"], slurm.status()["blocks"]
    finally:
        start_controller()
    wait_for(lambda: slurm.status()["scheduler"]["unanswered_s"] == 0, "an answer", 180)
    slurm.submit(8, 1, "frozen")
    cluster("pause")
    try:
        slurm.all_done(8, "frozen")
    finally:
        cluster("resume")
    slurm.no_job_left()


def test_controller_lost_with_its_state(slurm):
    slurm.start(**{"engine.provider.max_blocks": 1, "engine.heartbeat_threshold": 5})
    slurm.submit(20, 1)
    wait_for(lambda: len(slurm.started()) >= 4, "tasks to run")
    stop_controller(signal.SIGKILL)
    shutil.rmtree(CLUSTER_DIR / "state")
    (CLUSTER_DIR / "state").mkdir()
    start_controller("-c")
    slurm.all_done(20)
    slurm.no_job_left()


def test_what_a_task_leaves_behind_ends_with_it(slurm):
    slurm.start(**{"engine.provider.max_blocks": 1})
    leaves_a_daemon_behind(slurm.site, "slurm")
    slurm.no_job_left()


@slow
def test_a_warning_before_the_end_lets_end_what_runs(slurm):
    slurm.start(**{"engine.provider.walltime": "00:02:00", "engine.provider.warn_before": 60, "engine.provider.max_blocks": 1})
    slurm.submit(1, 90)
    outputs = slurm.site.home / "endpoints/slurm/blocks"
    wait_for(lambda: any("received USR1" in path.read_text() for path in outputs.glob("*/job.out")), "Slurm's warning to reach the pilot", 150)
    slurm.all_done(1)
    assert len(slurm.started()) == 1
    slurm.no_job_left()


@slow
def test_timed_out(slurm):
    slurm.start(**{"engine.provider.walltime": "00:01:00", "engine.provider.max_blocks": 1})
    slurm.submit(60, 4)
    slurm.all_done(60)
    assert len(slurm.started()) <= 62  # what was cut off ran twice, nothing else
    slurm.no_job_left()


def interchanges(slurm):
    """pids of this site's interchanges, also of those in a namespace of processes of their own."""
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"farcall-interchange") and any(str(slurm.site.home).encode() in word for word in words):
            yield int(entry.name)


def login_elsewhere(slurm):
    """Starts the interchange on node 4, as on another login host that shares the home directory."""
    folder = slurm.site.home / "endpoints/slurm"
    words = [CLUSTER, "exec", "4", "--dir", CLUSTER_DIR, "--", BUILD / "bin/farcall-interchange", "--directory", folder,
             "--log", folder / "interchange.log", "--take-over"]
    with open(folder / "interchange.out", "a") as out:
        subprocess.Popen([str(word) for word in words], env=slurm.site.environment(), stdout=out, stderr=out)


@nodes_of_their_own
@pytest.mark.parametrize("away_s, elsewhere", [
    pytest.param(0, False, id="started at once"), pytest.param(30, False, id="started 30 s later", marks=slow),
    pytest.param(0, True, id="on another login host")])
def test_interchange_killed_with_200_tasks_running(slurm, away_s, elsewhere):
    slurm.start(**{"engine.max_workers_per_node": 50, "engine.provider.nodes_per_block": 4, "engine.provider.max_blocks": 1,
                   "engine.heartbeat_threshold": 120, "engine.prefetch_capacity": 0})
    slurm.submit(200, 40)
    wait_for(lambda: len(slurm.started()) == 200, "200 tasks to run", 120)
    assert len({line.split()[1] for line in slurm.started()}) == 4
    slurm.site.kill("endpoints/slurm/interchange.pid")
    time.sleep(away_s)  # so long an absence is the case itself
    if elsewhere:
        login_elsewhere(slurm)
    else:
        slurm.site.farcall("endpoint", "start", "slurm")
    slurm.all_done(200)
    assert len(slurm.started()) == 200 and len({line.split()[0] for line in slurm.started()}) == 200
    if not elsewhere:
        return slurm.no_job_left()
    # It is stopped where it runs: `farcall endpoint stop` says so and does nothing from here.
    (pid,) = interchanges(slurm)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: is_gone(pid), "the interchange on the other host to stop")
    assert "does not run" in slurm.site.farcall("endpoint", "stop", "slurm").stdout
    wait_for(lambda: not jobs(), "no job to be left")
