"""MPI programs over the nodes of a real Slurm cluster: four nodes with names, networks and /dev/shm of their own."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from conftest import BUILD, ROOT, wait_for
from mpi_reports import PROGRAM, assert_as_placed, report, rows_of
from test_mpi import AS_ROOT, JACOBI, SOLVERS, functions_with_files, run_with_files


INIT = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1"


@pytest.fixture
def cluster(site, monkeypatch):
    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    return start_endpoint(site, 4)


def start_endpoint(site, nodes, **more):
    """Each setting is one of the endpoint's."""
    site.start_relay()
    site.endpoint(
        "slurm", "slurm",
        **{
            "engine.provider.partition": "debug",
            "engine.provider.nodes_per_block": nodes,
            "engine.provider.init_blocks": 1,
            "engine.provider.max_blocks": 1,
            "engine.provider.exclusive": "true",
            "engine.provider.walltime": "00:10:00",
            "engine.provider.worker_init": INIT,
            "engine.max_workers_per_node": 2,
            "engine.available_accelerators": 2,
            "engine.heartbeat_period": 1,
            "engine.heartbeat_threshold": 10,
            **more,
        },
    )
    wait_for(lambda: (site.json("endpoint", "status", "slurm")["status"] or {}).get("pilots") == nodes, f"{nodes} pilots")
    return site


def solve(site, *options):
    run = site.farcall("run", "-e", "slurm", *options, "--", JACOBI, "32", "100")
    return json.loads(run.stdout)


def on_node(number, *command):
    words = [os.environ["FARCALL_TEST_CLUSTER"], "exec", str(number), "--dir", os.environ["FARCALL_TEST_CLUSTER_DIR"], "--"]
    return subprocess.run([*words, *command], capture_output=True, text=True)


def test_the_same_answer_over_one_to_four_nodes(cluster):
    serial = solve(cluster, "--ranks", 1)
    serial.pop("ranks")
    for ranks, nodes in ((2, 1), (2, 2), (4, 2), (4, 4), (8, 4)):
        where = ("--ranks", ranks, "--nodes", nodes)
        found = solve(cluster, *where)
        assert found.pop("ranks") == ranks
        assert found == serial, (ranks, nodes)
        for function in SOLVERS:
            found = json.loads(cluster.farcall("call", "-e", "slurm", *where, function, "32", "100").stdout)
            assert found.pop("ranks") == ranks
            assert found == pytest.approx(serial, rel=1e-12), (function, ranks, nodes)


def test_ranks_land_where_they_were_placed(cluster, tmp_path):
    import farcall

    script = BUILD / "sites" / f"report-{tmp_path.name}.py"
    script.write_text(PROGRAM)
    bound = []
    with farcall.Executor("slurm") as executor:
        for nodes, ranks in ((2, 4), (3, 6), (2, 2)):
            rows = rows_of(cluster.farcall("run", "-e", "slurm", "--ranks", ranks, "--nodes", nodes, "--gpus-per-rank", 1, "--", "python3", script).stdout)
            executor.resource_specification = {"num_ranks": ranks, "num_nodes": nodes, "gpus_per_rank": 1}
            warm = executor.submit(farcall.mpi(result="all")(report)).result(120)
            for found in (rows, warm):
                bound.append(assert_as_placed(found))
                assert len({row["host"] for row in found}) == nodes and all(row["devices"][0] for row in found), found
    script.unlink()
    few = cluster.farcall("run", "-e", "slurm", "--ranks", 3, "--", "hostname").stdout.split()
    assert len(set(few)) == 2, few
    if not all(bound):
        pytest.skip(f"hosts and devices are right; cores were not looked at: {os.cpu_count()} processors for 2 slots a node, so no rank is bound")


def test_files_are_there_for_ranks_of_two_nodes_and_come_back(cluster, tmp_path):
    run_with_files(cluster, "slurm", tmp_path, "--nodes", 2)
    assert not list((cluster.home / "endpoints" / "slurm" / "blocks").glob("*/sandboxes/*"))


def test_functions_on_two_nodes_have_files_and_leave_some(cluster, tmp_path):
    import farcall

    with farcall.Executor("slurm", outputs=["part.*"]) as executor:
        executor.resource_specification = {"num_ranks": 4, "num_nodes": 2}
        functions_with_files(executor, tmp_path)
    assert not list((cluster.home / "endpoints" / "slurm" / "blocks").glob("*/sandboxes/*"))


def test_what_only_the_first_node_sees_reaches_the_ranks_of_all(site, monkeypatch, tmp_path):
    import farcall
    import numpy

    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    start_endpoint(site, 2, **{"engine.provider.worker_init": INIT + " TMPDIR=/dev/shm"})
    blobs = site.home / "endpoints" / "slurm" / "blobs"

    def largest():
        found = on_node(1, "find", "/dev/shm", "-size", "+1000k").stdout + on_node(2, "find", "/dev/shm", "-size", "+1000k").stdout
        return [line for line in found.split() if "/blobs/" in line]

    def sums_of(padding):
        @farcall.mpi(result="all")
        def sums(comm, array, path):
            import platform

            return [platform.node(), float(array.sum()), len(open(path).read()), len(padding)]

        return sums

    (tmp_path / "in.txt").write_text("x" * 2_000_000)
    away = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        with farcall.Executor("slurm") as executor:
            executor.resource_specification = {"num_ranks": 4, "num_nodes": 2}
            for number in (1, 2):
                array = numpy.arange(300_000.0) + number
                rows = executor.submit(sums_of(os.urandom(300_000)), array, farcall.File(tmp_path / "in.txt")).result(120)
                assert len({row[0] for row in rows}) == 2 and {tuple(row[1:]) for row in rows} == {(array.sum(), 2_000_000, 300_000)}, rows
                assert bool(largest()) == (number == 2)
                # From here on no node sees the endpoint's blobs: its pilot fetches them to its own directory.
                if number == 1:
                    shutil.rmtree(blobs)
                    blobs.symlink_to(away)
    finally:
        shutil.rmtree(away)


def test_nodes_that_do_not_share_the_directory_of_files_say_what_to_set(site, tmp_path):
    start_endpoint(site, 2, **{"engine.working_dir": "/dev/shm"})  # each node has its own
    (tmp_path / "in.txt").write_text("17")
    run = site.farcall("run", "-e", "slurm", "--ranks", 2, "--nodes", 2, "--input", tmp_path / "in.txt", "--", "cat", "in.txt", ok=False)
    assert run.returncode != 0 and "set working_dir of the endpoint to a directory that all its nodes see" in run.stderr, run.stderr
    assert site.farcall("run", "-e", "slurm", "--ranks", 2, "--nodes", 1, "--input", tmp_path / "in.txt", "--", "cat", "in.txt").stdout == "1717"


def test_a_cancel_ends_the_ranks_on_every_node(cluster):
    task = cluster.json("submit", "-e", "slurm", "--ranks", 4, "--nodes", 4, "--", "sleep", "98765")["first_task_id"]

    def sleeping():
        return [n for n in range(1, 5) if on_node(n, "pgrep", "-f", "sleep 98765").stdout.strip()]

    wait_for(lambda: sleeping() == [1, 2, 3, 4], "a rank on each node")
    cluster.farcall("task", "cancel", task)
    wait_for(lambda: not sleeping(), "no rank to be left")
    for n in range(1, 5):
        wait_for(lambda n=n: "orted" not in on_node(n, "ps", "-eo", "args").stdout, f"no daemon to be left on n{n}")
        wait_for(lambda n=n: "farcall-" not in on_node(n, "ls", "/dev/shm").stdout, f"no shared memory to be left on n{n}")
    assert solve(cluster, "--ranks", 8, "--nodes", 4)["ranks"] == 8


def thermo(text):
    """The numbers of LAMMPS, line by line, without its times."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.split()[:1] == ["Step"])
    rows = []
    for line in lines[at + 1:]:
        words = line.split()
        if not words or not words[0].isdigit():
            break
        rows.append([float(word) for word in words])
    assert len(rows) == 3, text
    return rows


def test_lammps_over_two_nodes_gives_the_energies_of_a_direct_run(cluster):
    words = ["lmp", "-log", "none", "-in", str(ROOT / "examples" / "lammps" / "in.melt")]
    direct = subprocess.run(["mpirun", "--oversubscribe", "-np", "4", *words], capture_output=True, text=True, check=True,
                            env={**os.environ, **AS_ROOT, "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_MCA_plm": "isolated", "OMPI_MCA_ras": "^slurm"})
    run = cluster.farcall("run", "-e", "slurm", "--ranks", 4, "--nodes", 2, "--", *words)
    assert thermo(run.stdout) == thermo(direct.stdout)


def test_a_function_on_ranks_of_two_nodes(cluster):
    import farcall

    @farcall.mpi(result="all")
    def where(comm):
        import platform

        return [comm.Get_rank(), platform.node(), comm.allreduce(1)]

    with farcall.Executor("slurm") as executor:
        executor.resource_specification = {"num_ranks": 4, "num_nodes": 2}
        rows = executor.submit(where).result(120)
        assert [row[0] for row in rows] == [0, 1, 2, 3] and {row[2] for row in rows} == {4}
        assert len({row[1] for row in rows}) == 2
        assert executor.submit(where).result(120) == rows


# The last: the cluster has a node less afterwards.
def test_a_node_that_dies_takes_its_task_only(cluster):
    go = cluster.home / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.1; done; hostname"
    task = cluster.json("submit", "-e", "slurm", "--ranks", 2, "--nodes", 2, "--", "sh", "-c", script)["first_task_id"]

    def two_hosts():
        found = [n for n in range(1, 5) if on_node(n, "pgrep", "-f", f"^sh -c while .*{go}").stdout.strip()]
        return found if len(found) == 2 else None

    victim = wait_for(two_hosts, "ranks on two nodes")[-1]
    cluster_script = os.environ["FARCALL_TEST_CLUSTER"]
    directory = os.environ["FARCALL_TEST_CLUSTER_DIR"]
    subprocess.run([cluster_script, "kill-node", str(victim), "--dir", directory], check=True)
    go.touch()
    cluster.farcall("task", "wait", task, timeout=180)
    status = cluster.json("task", "status", task)
    assert status["state"] == "succeeded" and status["attempt"] >= 2, status
    assert f"n{victim}" not in cluster.farcall("task", "result", task).stdout
