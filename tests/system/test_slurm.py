"""The whole path on a real Slurm cluster of four nodes."""

import collections
import json
import os
import signal
import subprocess

import pytest
from conftest import wait_for

FUNCTION = """
import os, platform, time

def where(i, nap=0.01):
    time.sleep(nap)
    return [i * i, platform.node(), os.environ.get("SLURM_JOB_ID")]
"""


@pytest.fixture
def cluster(site, monkeypatch):
    site.start_relay()
    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    site.endpoint(
        "slurm", "slurm",
        **{
            "engine.provider.partition": "debug",
            "engine.provider.nodes_per_block": 2,
            "engine.provider.max_blocks": 2,
            "engine.provider.exclusive": "false",
            "engine.provider.walltime": "00:10:00",
            "engine.max_workers_per_node": 2,
            "engine.heartbeat_period": 1,
            "engine.heartbeat_threshold": 10,
        },
    )
    return site


def squeue(*options):
    return subprocess.run(["squeue", "-h", "-o", "%i|%j|%T|%N", *options], check=True, capture_output=True, text=True).stdout.splitlines()


def submit(site, tmp_path, count, group, nap=0.01):
    module = tmp_path / "where.py"
    module.write_text(FUNCTION)
    inputs = tmp_path / "in.jsonl"
    inputs.write_text("".join(json.dumps({"i": i, "nap": nap}) + "\n" for i in range(count)))
    site.farcall("submit", "-e", "slurm", "--group", group, "--inputs", inputs, f"{module}:where")


def results(site, group, tmp_path):
    output = tmp_path / f"{group}.jsonl"
    site.farcall("group", "results", group, "--wait", "-o", output, timeout=300)
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_2000_calls_and_200_commands_on_blocks_of_two_nodes(cluster, tmp_path):
    submit(cluster, tmp_path, 2000, "calls")
    cluster.farcall("submit", "-e", "slurm", "--group", "commands", "--count", "200", "--", "sh", "-c", "echo $(hostname) $((6*7))")
    names = wait_for(lambda: [line.split("|")[1] for line in squeue("-t", "R")], "a job to run")
    assert all(name.startswith("fc-slurm-") for name in names), names
    rows = results(cluster, "calls", tmp_path)
    assert [row["state"] for row in rows] == ["succeeded"] * 2000
    assert sorted(row["result"][0] for row in rows) == [i * i for i in range(2000)]
    nodes_of = collections.defaultdict(set)
    for row in rows:
        nodes_of[row["result"][2]].add(row["result"][1])
    assert any(len(nodes) == 2 for nodes in nodes_of.values()), nodes_of
    assert all(job is not None for job in nodes_of)
    commands = results(cluster, "commands", tmp_path)
    assert len(commands) == 200
    for row in commands:
        host, answer = row["result"]["stdout"].split()
        assert answer == "42" and host in {"n1", "n2", "n3", "n4"} and row["result"]["returncode"] == 0
    cluster.farcall("endpoint", "stop", "slurm")
    wait_for(lambda: not squeue(), "no job to be left")


def test_scancel_in_the_middle(cluster, tmp_path):
    submit(cluster, tmp_path, 500, "cut", nap=0.05)
    job = wait_for(lambda: [line.split("|")[0] for line in squeue("-t", "R")], "a job to run")[0]
    wait_for(lambda: any(t["state"] == "succeeded" for t in cluster.json("task", "list", "--group", "cut", "--limit", "500")["tasks"]), "a result")
    subprocess.run(["scancel", job], check=True)
    rows = results(cluster, "cut", tmp_path)
    assert sorted(row["result"][0] for row in rows) == [i * i for i in range(500)]
    assert len({row["index"] for row in rows}) == 500


def test_kill_of_a_pilot_in_the_middle(cluster, tmp_path):
    submit(cluster, tmp_path, 500, "killed", nap=0.05)
    done = lambda: cluster.json("task", "list", "--group", "killed", "--state", "succeeded", "--limit", "500")["tasks"]  # noqa: E731
    wait_for(done, "a result")
    pilots = cluster.pilots()
    assert pilots and len(done()) < 500
    os.kill(pilots[0], signal.SIGKILL)
    rows = results(cluster, "killed", tmp_path)
    assert sorted(row["result"][0] for row in rows) == [i * i for i in range(500)]
    assert sorted(row["index"] for row in rows) == list(range(500))
    assert len(done()) == 500


GATED = """
import os, time

def work(i, directory):
    with open(os.path.join(directory, "ran"), "a") as log:
        log.write(f"{i}\\n")
    while not os.path.exists(os.path.join(directory, "go")):
        time.sleep(0.02)
    open(os.path.join(directory, f"ended-{i}"), "w").close()
    return i * i
"""


def test_results_of_a_job_that_ends_while_no_interchange_runs(cluster):
    shared = cluster.home / "marks"
    shared.mkdir()
    module = shared / "gated.py"
    module.write_text(GATED)
    inputs = shared / "in.jsonl"
    inputs.write_text("".join(json.dumps({"i": i, "directory": str(shared)}) + "\n" for i in range(4)))
    cluster.farcall("submit", "-e", "slurm", "--group", "left", "--inputs", inputs, f"{module}:work")
    ran = lambda: (shared / "ran").read_text().split() if (shared / "ran").exists() else []  # noqa: E731
    wait_for(lambda: len(ran()) == 4, "all to run")
    cluster.kill("endpoints/slurm/interchange.pid")
    (shared / "go").touch()
    wait_for(lambda: len(list(shared.glob("ended-*"))) == 4, "all to have ended")
    subprocess.run(["scancel", "--me"], check=True)
    wait_for(lambda: not squeue(), "the jobs to be gone", 90)
    cluster.farcall("endpoint", "start", "slurm")
    rows = results(cluster, "left", shared)
    assert sorted(row["result"] for row in rows) == [0, 1, 4, 9]
    assert sorted(ran()) == ["0", "1", "2", "3"]  # none ran twice


def test_mpirun_as_a_shell_task(cluster):
    # On the task's own node: the job's step is the pilots', so mpirun must not ask Slurm for another.
    run = cluster.farcall("run", "-e", "slurm", "--env", "OMPI_ALLOW_RUN_AS_ROOT=1", "--env", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                          "--", "mpirun", "--mca", "plm", "isolated", "--mca", "ras", "^slurm", "--oversubscribe", "-np", "2", "sh", "-c", "echo rank $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE")
    assert sorted(run.stdout.split("\n"))[-2:] == ["rank 0 of 2", "rank 1 of 2"], run.stdout + run.stderr


def test_a_partition_that_does_not_exist(site):
    site.start_relay()
    site.endpoint("wrong", "slurm", **{"engine.provider.partition": "nosuch", "engine.provider.init_blocks": 1, "engine.provider.max_blocks": 1})
    task = site.json("submit", "-e", "wrong", "--", "true")
    text = json.dumps(task)
    assert "submission" in text or "task" in text

    def said():
        status = site.farcall("endpoint", "status", "wrong").stdout
        return "invalid partition specified: nosuch" in status or "Invalid partition name specified" in status

    wait_for(said, "the scheduler's own words in the status")
    tasks = site.json("task", "list")["tasks"]
    explain = site.farcall("task", "explain", tasks[0]["task_id"]).stdout
    assert "partition" in explain, explain


def test_configure_finds_slurm_and_the_script_can_be_shown_and_tried(site):
    answer = site.json("endpoint", "configure", "found")
    assert answer["provider"] == "slurm" and "slurm" in answer["scheduler"].lower()
    config = (site.home / "endpoints/found/config.yaml").read_text()
    assert "type: SlurmProvider" in config and "partition: debug" in config and "# Here are:" in config
    script = site.farcall("endpoint", "script", "found").stdout
    assert script.startswith("#!/bin/bash\n#SBATCH --job-name=fc-found-example\n#SBATCH --nodes=1\n")
    assert " to start at " in site.farcall("endpoint", "script", "found", "--test").stdout
    assert not squeue()
    for key, value, words in (("partition", "nosuch", "partition"), ("scheduler_options", "#SBATCH --constraint=nosuch", "feature")):
        site.farcall("endpoint", "configure", "found", "--replace", "--set", f"engine.provider.{key}={value}")
        refused = site.farcall("endpoint", "script", "found", "--test", ok=False)
        assert refused.returncode != 0 and words in refused.stderr, refused.stderr
