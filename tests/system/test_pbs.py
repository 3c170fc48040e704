"""The whole path on the PBS look-alike of three nodes, whose server keeps history or not, goes down, freezes and loses nodes."""

import collections
import json
import os
import pathlib
import subprocess

import pytest
from conftest import leaves_a_daemon_behind, wait_for

FUNCTION = """
import os, platform, time

def where(i, directory, nap=0.01, nodes=1):
    path = os.path.join(directory, "ran")
    with open(path, "a") as log:
        log.write(f"{i} {platform.node()}\\n")
    while len({line.split()[1] for line in open(path) if line.endswith("\\n")}) < nodes:
        time.sleep(0.05)  # until so many take part
    time.sleep(nap)
    return [i * i, platform.node(), os.environ.get("PBS_JOBID")]
"""


class Pbs:
    def __init__(self):
        self.script, self.directory = os.environ["FARCALL_TEST_PBS"], os.environ["FARCALL_TEST_PBS_DIR"]

    def admin(self, what, *words):
        return subprocess.run([self.script, what, self.directory, *words], check=True, capture_output=True, text=True).stdout

    def jobs(self, states="QHRE"):
        return subprocess.run(["qselect", "-s", states], check=True, capture_output=True, text=True).stdout.split()

    def names(self):
        """Of all jobs there ever were, from the server's own book."""
        return [job["name"] for job in json.loads((pathlib.Path(self.directory) / "jobs.json").read_text())["jobs"].values()]

    def processes(self):
        return self.admin("processes").split()


@pytest.fixture(params=["history", "no history"])
def pbs(request):
    made = Pbs()
    made.admin("history", "on" if request.param == "history" else "off")
    yield made
    made.admin("server", "thaw")
    wait_for(lambda: not made.jobs(), "no job to be left")
    wait_for(lambda: not made.processes(), "no process of a job to be left")
    names = made.names()
    assert len(set(names)) == len(names), f"two jobs for one intent: {names}"


@pytest.fixture
def start(site, monkeypatch):
    site.start_relay()
    monkeypatch.setenv("FARCALL_HOME", str(site.home))

    def configure(pbs, **settings):
        site.endpoint("pbs", "pbs", **{
            "engine.provider.nodes_per_block": 3, "engine.provider.max_blocks": 1, "engine.provider.walltime": "00:10:00",
            "engine.provider.cmd_timeout": 3, "engine.max_workers_per_node": 2, "engine.heartbeat_period": 1,
            "engine.heartbeat_threshold": 5, **settings})
        return site

    yield configure
    site.farcall("endpoint", "stop", "pbs", ok=False)


def submit(site, tmp_path, count, nap=0.01, nodes=1):
    module = tmp_path / "where.py"
    module.write_text(FUNCTION)
    inputs = tmp_path / "in.jsonl"
    inputs.write_text("".join(json.dumps({"i": i, "directory": str(tmp_path), "nap": nap, "nodes": nodes}) + "\n" for i in range(count)))
    site.farcall("submit", "-e", "pbs", "--group", "all", "--inputs", inputs, f"{module}:where")


def ran(tmp_path):
    try:
        return [int(line.split()[0]) for line in (tmp_path / "ran").read_text().splitlines()]
    except FileNotFoundError:
        return []


def results(site, tmp_path, count):
    output = tmp_path / "results.jsonl"
    site.farcall("group", "results", "all", "--wait", "-o", output, timeout=300)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["state"] for row in rows] == ["succeeded"] * count
    assert sorted(row["result"][0] for row in rows) == [i * i for i in range(count)]
    return rows


def test_calls_run_once_on_every_node_of_a_block(start, pbs, tmp_path):
    site = start(pbs)
    submit(site, tmp_path, 300, nodes=3)
    rows = results(site, tmp_path, 300)
    nodes = collections.Counter(row["result"][1] for row in rows)
    assert set(nodes) == {"pbsn1", "pbsn2", "pbsn3"}, nodes
    assert len({row["result"][2] for row in rows}) == 1
    assert sorted(ran(tmp_path)) == list(range(300)), "each ran once"
    site.farcall("endpoint", "stop", "pbs")


def test_a_server_that_goes_down_ends_nothing(start, pbs, tmp_path):
    site = start(pbs)
    submit(site, tmp_path, 200, nap=0.05)
    wait_for(lambda: len(ran(tmp_path)) > 10, "the first tasks to run")
    pbs.admin("server", "kill")
    results(site, tmp_path, 200)
    assert sorted(ran(tmp_path)) == list(range(200)), "each ran once"
    pbs.admin("server", "start")
    site.farcall("endpoint", "stop", "pbs")


def test_a_server_that_freezes_while_it_is_asked_for_a_job(start, pbs, tmp_path):
    site = start(pbs)
    pbs.admin("server", "freeze")
    submit(site, tmp_path, 50)

    def said():
        return "no answer" in site.farcall("endpoint", "status", "pbs").stdout

    wait_for(said, "the status to say that the server does not answer")
    pbs.admin("server", "thaw")
    results(site, tmp_path, 50)
    assert sorted(ran(tmp_path)) == list(range(50)), "each ran once"
    site.farcall("endpoint", "stop", "pbs")


def test_a_node_that_is_lost_takes_only_its_own_tasks(start, pbs, tmp_path):
    site = start(pbs)
    submit(site, tmp_path, 200, nap=0.1, nodes=3)
    wait_for(lambda: len(ran(tmp_path)) > 30, "the first tasks to run on three nodes")
    pbs.admin("node", "2", "kill")
    try:
        rows = results(site, tmp_path, 200)
        assert {row["result"][1] for row in rows} >= {"pbsn1", "pbsn3"}
        assert len({row["result"][2] for row in rows}) == 1, "the block lived on"
        again = len(ran(tmp_path)) - 200
        assert 0 <= again <= 8, f"{again} tasks ran again: more than one node holds"
        site.farcall("endpoint", "stop", "pbs")
        wait_for(lambda: not pbs.jobs(), "the job to end")
    finally:
        pbs.admin("mom", "2", "start")


def test_a_queue_that_does_not_exist(start, pbs, site):
    start(pbs, **{"engine.provider.queue": "nosuch"})
    site.json("submit", "-e", "pbs", "--", "true")
    wait_for(lambda: "Unknown queue" in site.farcall("endpoint", "status", "pbs").stdout, "PBS's own words in the status")


def test_configure_finds_pbs_and_the_script_can_be_shown_and_tried(pbs, site):
    answer = site.json("endpoint", "configure", "found")
    assert answer["provider"] == "pbspro" and answer["scheduler"] == "PBS 23.06.06"
    config = (site.home / "endpoints/found/config.yaml").read_text()
    assert "type: PBSProProvider" in config and "# Here are:" in config
    assert "#   short (0 jobs, at most 00:10:00)" in config and "closedq" not in config
    script = site.farcall("endpoint", "script", "found").stdout
    assert script.startswith("#!/bin/bash\n#PBS -N fc-found-example\n#PBS -l select=1:ncpus=1\n")
    said = site.farcall("endpoint", "script", "found", "--test").stdout
    assert said.startswith("qsub took it as job ") and said.endswith("held, which was deleted again\n")
    assert not pbs.jobs()
    site.farcall("endpoint", "configure", "found", "--replace", "--set", "engine.provider.queue=nosuch")
    refused = site.farcall("endpoint", "script", "found", "--test", ok=False)
    assert refused.returncode != 0 and "Unknown queue" in refused.stderr


def test_a_node_where_nothing_starts_gets_no_pilot_of_the_next_block(start, pbs, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$(hostname)" != pbsn2 ] || exit 1\nexec /usr/bin/python3 "$@"\n')
    python.chmod(0o700)
    site = start(pbs, **{"engine.python": python, "engine.max_idletime": 1})
    submit(site, tmp_path, 60)
    rows = results(site, tmp_path, 60)
    assert {row["result"][1] for row in rows} == {"pbsn1", "pbsn3"}

    def status():
        return site.json("endpoint", "status", "pbs")["status"]

    (bad,) = status()["bad_nodes"]
    assert bad["node"] == "pbsn2"
    blocks = site.home / "endpoints/pbs/blocks"
    first = set(blocks.glob("*/job.out"))
    wait_for(lambda: not pbs.jobs(), "the block to be given back")
    module = tmp_path / "where.py"
    site.farcall("call", "-e", "pbs", f"{module}:where", json.dumps(100), json.dumps(str(tmp_path)))
    # By what it wrote and not by its state: it may have been given back by now.
    (second,) = set(blocks.glob("*/job.out")) - first
    said = second.read_text()
    assert "no pilot is started on pbsn2: tasks could not be started there" in said
    assert "on pbsn2, rank" not in said and "on pbsn1, rank 0" in said and "on pbsn3, rank 1" in said
    site.farcall("endpoint", "stop", "pbs")


def test_what_a_task_leaves_behind_ends_with_it(start, pbs):
    site = start(pbs)
    leaves_a_daemon_behind(site, "pbs")


@pytest.mark.parametrize("pbs", ["no history"], indirect=True)
def test_mpi_over_the_nodes_of_a_job(pbs, start):
    """Programs and functions; mpirun's daemons are started by the pilots, and not by a tm that Open MPI was built without."""
    import farcall

    init = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1"
    start(pbs, **{"engine.provider.worker_init": init})

    def hosts(comm):
        import platform

        return [comm.allreduce(1), comm.allgather(platform.node())]

    program = "python3 -c 'from mpi4py import MPI; import platform; print(sorted(MPI.COMM_WORLD.allgather(platform.node())))'"
    with farcall.Executor("pbs") as executor:
        executor.resource_specification = {"num_nodes": 3, "ranks_per_node": 2}
        lines = executor.submit(farcall.MPIFunction(program)).result(120).stdout.splitlines()
        assert len(lines) == 6 and len(set(lines)) == 1, lines
        nodes = sorted(node for node in ("pbsn1", "pbsn2", "pbsn3") for _ in range(2))
        assert lines[0] == str(nodes)
        count, names = executor.submit(farcall.mpi(hosts)).result(120)
        assert count == 6 and sorted(names) == nodes
