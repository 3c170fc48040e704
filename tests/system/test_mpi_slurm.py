"""MPI programs over the nodes of a real Slurm cluster: four nodes with names, networks and /dev/shm of their own."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
import serial_jacobi
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
    serial = serial_jacobi.solve(32, 100)
    for ranks, nodes in ((1, 1), (2, 1), (2, 2), (3, 3), (4, 2), (4, 4), (8, 4)):
        where = ("--ranks", ranks, "--nodes", nodes)
        found = solve(cluster, *where)
        assert found.pop("ranks") == ranks
        assert found == pytest.approx(serial, rel=1e-12), (ranks, nodes)
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


def test_ranks_of_two_nodes_write_one_array(cluster):
    import farcall
    import numpy

    @farcall.mpi(result="array")
    def field(comm):
        import numpy

        return numpy.full((1000, 500), comm.Get_rank(), "<f4")

    with farcall.Executor("slurm", result="reference") as executor:
        executor.resource_specification = {"num_ranks": 4, "num_nodes": 2}
        reference = executor.submit(field).result(120)
        assert reference.shape == (4000, 500)
        assert numpy.array_equal(reference[999:4000:1000, 7], [0, 1, 2, 3]) and numpy.array_equal(reference[1000:3001:1000, 499], [1, 2, 3])
        assert numpy.array_equal(reference.fetch(), numpy.repeat(numpy.arange(4, dtype="<f4"), 1000)[:, None].repeat(500, 1))


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


PROGRAMS = {
    "abort": "if comm.Get_rank() == 1: comm.Abort(5)\ncomm.Barrier()",
    "segfault": "import os\nif comm.Get_rank() == 1: os.kill(os.getpid(), 11)\ncomm.Barrier()",
    "deadlock": "comm.recv(source=1 - comm.Get_rank())",
    "cancel": "comm.recv(source=1 - comm.Get_rank())",
}
OF_MPI = ("orted", "mpirun", "farcall_mpi_worker", "farcall-mpi", "from mpi4py")


def left_over():
    """Processes and shared memory of MPI on the two nodes."""
    found = []
    for n in (1, 2):
        found += [(n, line) for line in on_node(n, "ps", "-eo", "args").stdout.splitlines() if any(word in line for word in OF_MPI)]
        found += [(n, line) for line in on_node(n, "ls", "/dev/shm").stdout.split() if "farcall-" in line and "pilot" not in line]
    return found


def end_beside_three(cluster, executor, kind, how):
    """One task of two ranks ends badly while three others run on the same two nodes."""
    import farcall

    go, started = cluster.home / f"go-{kind}-{how}", cluster.home / f"started-{kind}-{how}"
    where = {"num_ranks": 2, "num_nodes": 2, **({"own_pool": True} if kind == "own" else {})}

    def bad(comm, text):
        comm.Barrier()
        exec(text, {"comm": comm})

    def wait(comm, go, started):
        import os
        import time

        open(f"{started}.{comm.Get_rank()}.{os.getpid()}", "w").close()
        while not os.path.exists(go):
            time.sleep(0.05)
        return comm.Get_size()

    def submit(function, *arguments):
        if kind == "program":
            command = f"python3 -c 'import mpi4py; mpi4py.rc.threads = False\nfrom mpi4py import MPI\ncomm = MPI.COMM_WORLD\n{arguments[0]}'"
            if function is wait:
                command = f"sh -c 'touch {started}.$OMPI_COMM_WORLD_RANK.$$; while [ ! -e {go} ]; do sleep 0.05; done; echo 2'"
            return executor.submit(farcall.MPIFunction(command))
        return executor.submit(farcall.mpi(function), *arguments)

    executor.resource_specification = where
    others = [submit(wait, str(go), str(started)) for _ in range(3)]
    wait_for(lambda: len(list(cluster.home.glob(started.name + ".*"))) == 6, "six ranks of the neighbours")
    executor.resource_specification = {**where, **({"walltime": 8} if how == "deadlock" else {})}
    victim = submit(bad, PROGRAMS[how])
    if how == "cancel":
        wait_for(victim.running, "the task to run")
        victim.cancel(running=True)
        with pytest.raises((farcall.TaskCancelled, concurrent.futures.CancelledError)):
            victim.result(60)
    elif how == "deadlock":
        with pytest.raises(farcall.TimeExceeded):
            victim.result(120)
    elif kind == "program":
        result = victim.result(120)
        assert result.returncode == (5 if how == "abort" else 139), result
    else:
        with pytest.raises(farcall.WorkerCrashed):
            victim.result(120)
    go.touch()
    for future in others:
        value = future.result(120)
        assert (value.stdout.split() == ["2", "2"]) if kind == "program" else value == 2, value
    # In a shared pool it is their second attempt, and charged to nobody.
    starts = len(list(cluster.home.glob(started.name + ".*")))
    assert starts == (12 if kind == "shared" else 6), (kind, how, starts)
    attempts = {cluster.json("task", "status", future.task_id)["attempt"] for future in others}
    assert attempts == {2 if kind == "shared" else 1}, (kind, how, attempts)


def test_what_ends_one_task_leaves_three_on_the_same_nodes_unharmed(site, monkeypatch):
    import farcall

    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    start_endpoint(site, 2, **{"engine.max_workers_per_node": 4, "engine.mpi_pool_ranks_per_node": 4})
    every = os.environ.get("FARCALL_TEST_LONG")
    with farcall.Executor("slurm", retry={"crash": 0, "lost": 0}) as executor:
        for how in PROGRAMS if every else []:
            for kind in ("program", "own"):
                end_beside_three(site, executor, kind, how)
                wait_for(lambda: not left_over(), "nothing of MPI to be left")
        for how in PROGRAMS if every else ["segfault"]:
            end_beside_three(site, executor, "shared", how)
    site.farcall("endpoint", "stop", "slurm")
    wait_for(lambda: not left_over(), "nothing of MPI to be left")


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
