"""MPI programs on this host: real mpirun, ranks placed by the endpoint."""

import json
import os
import pathlib
import signal
import time

import pytest
import serial_jacobi
from conftest import BUILD, ROOT, is_gone, wait_for
from mpi_reports import PROGRAM, assert_as_placed, report, rows_of

JACOBI = BUILD / "examples" / "jacobi"
SOLVERS = [f"{BUILD}/examples/libjacobi.so:solve", f"{ROOT}/examples/jacobi/jacobi.py:solve"]
CPP_FUNCTIONS = BUILD / "tests" / "testmpifunctions.so"
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

@pytest.fixture
def mpi(site, monkeypatch):
    site.start_relay()
    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    site.endpoint("here", **{
        "engine.max_workers_per_node": 4, "engine.available_accelerators": 4, "engine.provider.init_blocks": 1,
        "engine.provider.worker_init": "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"})
    return site


def jacobi(site, endpoint, *options):
    return json.loads(site.farcall("run", "-e", endpoint, *options, "--", JACOBI, "32", "100").stdout)


def test_a_solver_gives_the_same_answer_with_any_number_of_ranks(mpi):
    serial = serial_jacobi.solve(32, 100)
    for ranks in (1, 2, 4):
        found = jacobi(mpi, "here", "--ranks", ranks)
        assert found.pop("ranks") == ranks
        assert found == pytest.approx(serial, rel=1e-12), ranks


def test_the_solver_as_functions_of_cpp_and_of_python_gives_the_same_answer(mpi):
    serial = serial_jacobi.solve(32, 100)
    for ranks in (1, 2, 4):
        for function in SOLVERS:
            found = json.loads(mpi.farcall("call", "-e", "here", "--ranks", ranks, function, "32", "100").stdout)
            assert found.pop("ranks") == ranks
            assert found == pytest.approx(serial, rel=1e-12), (function, ranks)


def test_functions_of_cpp_from_python_and_what_is_wrong_with_them(mpi):
    import farcall

    with farcall.Executor("here") as executor:
        executor.resource_specification = {"num_ranks": 2}
        total, throws = (farcall.NativeFunction(CPP_FUNCTIONS, name) for name in ("total", "throws"))
        assert [executor.submit(total, i).result(120) for i in range(5)] == [2 * i + 1 for i in range(5)]
        identity = executor.register_function(total)
        assert executor.submit_to_registered_function(identity, (2,)).result(60) == 5
        assert executor.submit(farcall.NativeFunction(CPP_FUNCTIONS, "twice"), [0.5] * 300_000).result(120) == [1.0] * 300_000
        error = executor.submit(throws, "too hot").exception(60)
        assert "Unstable: too hot" in str(error), error
        executor.resource_specification = None
        error = executor.submit(total, 1).exception(60)
        assert "total is an mpi-function: its tasks need ranks" in str(error), error
    with pytest.raises(TypeError, match="is declared with FARCALL_MPI_FUNCTION"):
        farcall.mpi(total)
    run = mpi.farcall("call", "-e", "here", "--ranks", 2, f"{CPP_FUNCTIONS}:plain", "1", ok=False)
    assert run.returncode == 64 and "testmpifunctions.so:plain takes no communicator: with --ranks it has to be declared" in run.stderr, run.stderr


def test_python_mpifunction_with_the_words_of_globus_compute(mpi):
    from farcall import Executor, MPIFunction

    with Executor("here") as executor:
        executor.resource_specification = {"num_nodes": 1, "ranks_per_node": 2, "num_ranks": 2}
        result = executor.submit(MPIFunction("{solver} 32 100"), solver=str(JACOBI)).result(60)
        assert json.loads(result.stdout)["ranks"] == 2
        echo = executor.submit(MPIFunction("true; echo $PARSL_MPI_PREFIX; $FARCALL_MPI_PREFIX echo hello")).result(60)
        assert echo.stdout.splitlines()[0].startswith("mpirun -np 2 --host ") and echo.stdout.count("hello\n") == 2


def test_ranks_get_the_place_of_their_task(mpi, tmp_path):
    import farcall

    (tmp_path / "report.py").write_text(PROGRAM)
    run = mpi.farcall("run", "-e", "here", "--ranks", 2, "--gpus-per-rank", 2, "--", "python3", tmp_path / "report.py")
    rows = rows_of(run.stdout)
    assert [row["devices"][0] for row in rows] == ["0,1", "2,3"]
    bound = assert_as_placed(rows)
    with farcall.Executor("here") as executor:
        executor.resource_specification = {"num_ranks": 2, "gpus_per_rank": 1}
        assert assert_as_placed(executor.submit(farcall.mpi(result="all")(report)).result(120)) is bound
    if not bound:
        pytest.skip(f"hosts and devices are right; cores were not looked at: {os.cpu_count()} processors for 4 slots, so no rank is bound")


def test_exit_code_and_signal_of_the_failing_rank(mpi):
    run = mpi.farcall("run", "-e", "here", "--ranks", 2, "--", "sh", "-c", "[ $OMPI_COMM_WORLD_RANK = 0 ] || exit 3; sleep 100", ok=False)
    assert run.returncode == 3, run.stderr
    task = mpi.json("submit", "-e", "here", "--ranks", 2, "--", "sh", "-c", "[ $OMPI_COMM_WORLD_RANK = 0 ] || kill -SEGV $$; sleep 100")["first_task_id"]
    mpi.farcall("task", "wait", task)
    status = mpi.json("task", "status", task)
    assert status["exit_code"] == 139 and status["signal"] == signal.SIGSEGV, status


FILES_SCRIPT = 'echo $OMPI_COMM_WORLD_RANK $OMPI_COMM_WORLD_SIZE $(cat mesh/in.txt) $(cat tool.txt) > out.$OMPI_COMM_WORLD_RANK; echo "I am $OMPI_COMM_WORLD_RANK"'


def run_with_files(site, endpoint, folder, *where):
    """Four ranks read what they were given; all that they leave comes back."""
    (folder / "mesh").mkdir(parents=True)
    (folder / "mesh" / "in.txt").write_text("17")
    (folder / "tool.txt").write_text("x" * 100_000)
    came = folder / "came"
    came.mkdir()
    run = site.farcall(
        "run", "-e", endpoint, "--ranks", 4, *where, "--input", folder / "mesh", "--input", folder / "tool.txt",
        "--output", "out.*", "--output", "log.*", "--stdout", "log.%t", "--", "sh", "-c", FILES_SCRIPT, cwd=came)
    assert sorted(path.name for path in came.iterdir()) == ["log.%d" % rank for rank in range(4)] + ["out.%d" % rank for rank in range(4)], run.stderr
    for rank in range(4):
        assert (came / f"out.{rank}").read_text() == f"{rank} 4 17 {'x' * 100_000}\n"
        assert (came / f"log.{rank}").read_text() == f"I am {rank}\n"


def test_files_go_along_with_the_ranks_and_come_back(mpi, tmp_path):
    run_with_files(mpi, "here", tmp_path)


def parts(comm, path, folder):
    import os

    assert not os.path.isabs(os.path.relpath(path)) and os.listdir(folder) == ["in.txt"]
    with open("part.%d" % comm.Get_rank(), "w") as file:
        file.write("%d of %d" % (comm.Get_rank(), comm.Get_size()))
    return comm.allreduce(int(open(path).read()))


def functions_with_files(executor, folder):
    """Ranks read what they were given, a second task other content under the same name, and leave files."""
    import farcall

    (folder / "mesh").mkdir(parents=True)
    (folder / "mesh" / "in.txt").write_text("17")
    for number in (5, 6):
        (folder / str(number)).mkdir()
        (folder / str(number) / "n.txt").write_text(str(number))
        future = executor.submit(farcall.mpi(parts), farcall.File(folder / str(number) / "n.txt"), folder=farcall.File(folder / "mesh"))
        assert future.result(120) == number * 4
        assert [file.name for file in future.outputs] == ["part.%d" % rank for rank in range(4)]
        assert open(future.outputs[2].save(folder / str(number))).read() == "2 of 4"


def test_functions_have_files_in_a_directory_of_their_own_and_leave_some(mpi, tmp_path):
    import farcall

    with farcall.Executor("here", outputs=["part.*"]) as executor:
        executor.resource_specification = {"num_ranks": 4}
        functions_with_files(executor, tmp_path)
        assert executor.submit(farcall.NativeFunction(CPP_FUNCTIONS, "total"), 2).result(60) == 14
    with farcall.Executor("here", outputs=["result.dat"]) as executor:
        executor.resource_specification = {"num_ranks": 4}
        error = executor.submit(farcall.NativeFunction(CPP_FUNCTIONS, "total"), 2).exception(60)
        assert "the task left no file 'result.dat' in its directory" in str(error), error
        executor.resource_specification = None
        error = executor.submit(farcall.NativeFunction(CPP_FUNCTIONS, "plain"), 2).exception(60)
        assert "plain is a C++ function, of which no files are kept" in str(error), error


def test_cancel_and_walltime_leave_nothing(mpi, tmp_path):
    def pids():
        found = [path.read_text().strip() for path in tmp_path.glob("pid.*")]
        return [int(pid) for pid in found if pid]

    before = {path.name for path in pathlib.Path("/dev/shm").glob("farcall-*")}
    command = ["sh", "-c", f"echo $$ > {tmp_path}/pid.$OMPI_COMM_WORLD_RANK; exec sleep 1000"]
    task = mpi.json("submit", "-e", "here", "--ranks", 2, "--", *command)["first_task_id"]
    wait_for(lambda: len(pids()) == 2, "two ranks to run")
    neighbour = mpi.json("submit", "-e", "here", "--ranks", 2, "--", "sh", "-c", f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done")["first_task_id"]
    mpi.farcall("task", "cancel", task)
    wait_for(lambda: all(is_gone(pid) for pid in pids()), "the ranks to be gone")
    for path in tmp_path.glob("pid.*"):
        path.unlink()
    late = mpi.json("submit", "-e", "here", "--ranks", 2, "--walltime", "1", "--", *command)["first_task_id"]
    mpi.farcall("task", "wait", late, ok=False)
    status = mpi.json("task", "status", late)
    assert status["failure"] == "time_exceeded", status
    wait_for(lambda: all(is_gone(pid) for pid in pids()), "the ranks to be gone")
    (tmp_path / "go").touch()
    mpi.farcall("task", "wait", neighbour)
    assert mpi.json("task", "status", neighbour)["state"] == "succeeded"
    after = {path.name for path in pathlib.Path("/dev/shm").glob("farcall-*")}
    assert after <= before


def test_what_can_never_run_is_refused_with_what_is_possible(mpi):
    mpi.farcall("run", "-e", "here", "--", "true")  # a node has called
    run = mpi.farcall("run", "-e", "here", "--ranks", 5, "--", "true", ok=False)
    assert "it needs 5 ranks with 1 core each, but 1 node of this endpoint, as many as a block has, holds at most 4" in run.stderr
    run = mpi.farcall("run", "-e", "here", "--ranks", 4, "--nodes", 2, "--", "true", ok=False)
    assert "it needs 4 ranks with 1 core each, on 2 nodes, but a block of this endpoint has 1 node (nodes_per_block)" in run.stderr
    run = mpi.farcall("run", "-e", "here", "--ranks", 2, "--nodes", 3, "--", "true", ok=False)
    assert "3 nodes for 2 ranks: each node needs one" in run.stderr


def test_a_launcher_that_cannot_start_says_why(mpi):
    run = mpi.farcall("run", "-e", "here", "--ranks", 2, "--", "./no-such-solver", ok=False)
    assert run.returncode == 127 and "cannot start ./no-such-solver: No such file or directory" in run.stderr, run.stderr
    run = mpi.farcall("run", "-e", "here", "--ranks", 2, "--launcher-options=--no-such-option", "--", "true", ok=False)
    assert run.returncode != 0 and "--no-such-option" in run.stderr, run.stderr


def test_serial_and_wide_tasks_share_a_node(mpi, tmp_path):
    small = mpi.json("submit", "-e", "here", "-g", "mix", "--count", "40", "--", "sleep", "0.05")["submission_id"]
    for ranks in (2, 4, 2):
        mpi.farcall("submit", "-e", "here", "-g", "mix", "--count", "2", "--ranks", ranks, "--", JACOBI, "16", "10")
    output = tmp_path / "mix.jsonl"
    mpi.farcall("group", "results", "mix", "--wait", "-o", output, timeout=300)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == 46 and all(row["state"] == "succeeded" and row["result"]["returncode"] == 0 for row in rows), small


def test_functions_on_warm_ranks_and_a_mix_of_everything(mpi):
    import farcall

    @farcall.mpi
    def total(comm, x):
        return comm.allreduce(x + comm.Get_rank())

    def square(x):
        return x * x

    with farcall.Executor("here") as executor:
        executor.resource_specification = {"num_ranks": 2}
        pairs = [executor.submit(total, i) for i in range(40)]
        executor.resource_specification = {"num_ranks": 4}
        wide = [executor.submit(total, i) for i in range(8)]
        executor.resource_specification = None
        serial = [executor.submit(square, i) for i in range(200)]
        assert [future.result(300) for future in pairs] == [2 * i + 1 for i in range(40)]
        assert [future.result(300) for future in wide] == [4 * i + 6 for i in range(8)]
        assert [future.result(300) for future in serial] == [i * i for i in range(200)]


def test_a_thousand_allreduces_cost_less_than_launches(mpi, capsys):
    import subprocess

    import farcall

    @farcall.mpi
    def total(comm, x):
        return comm.allreduce(x + comm.Get_rank())

    with farcall.Executor("here") as executor:
        executor.resource_specification = {"num_ranks": 4}
        assert executor.submit(total, 0).result(120) == 6  # the pool is up
        begin = time.monotonic()
        futures = [executor.submit(total, i) for i in range(1000)]
        assert [future.result(600) for future in futures] == [4 * i + 6 for i in range(1000)]
        warm_s = (time.monotonic() - begin) / 1000
    program = "from mpi4py import MPI; MPI.COMM_WORLD.allreduce(1)"
    begin = time.monotonic()
    subprocess.run(["mpirun", "--oversubscribe", "-np", "4", "/usr/bin/python3", "-c", program], check=True, capture_output=True,
                   env={**os.environ, **AS_ROOT, "OMPI_MCA_mpi_yield_when_idle": "1"})
    launch_s = time.monotonic() - begin
    with capsys.disabled():
        print(f"\n1000 four-rank allreduces: {warm_s * 1e3:.2f} ms each from submit to result; one mpirun of the same: {launch_s * 1e3:.0f} ms, {launch_s / warm_s:.0f} times as long")


def test_a_function_of_a_file_gets_a_communicator(mpi, tmp_path):
    (tmp_path / "sums.py").write_text("def total(comm, x):\n    return comm.allreduce(x)\n")
    assert mpi.farcall("call", "-e", "here", "--ranks", 3, f"{tmp_path}/sums.py:total", "5").stdout == "15\n"
    run = mpi.farcall("call", "-e", "here", "--ranks", 2, f"{tmp_path}/sums.py:total", ok=False)
    assert run.returncode == 1 and "missing 1 required positional argument" in run.stderr, run.stderr


@pytest.mark.parametrize("how", ["abort", "segfault", "deadlock", "cancel"])
def test_what_ends_one_task_leaves_three_neighbours_unharmed(mpi, tmp_path, how):
    import farcall

    @farcall.mpi
    def end(comm, how):
        import ctypes
        import time

        if how == "abort":
            comm.Abort(5)
        if how == "segfault":
            ctypes.string_at(0)
        while True:
            time.sleep(1)

    @farcall.mpi
    def wait(comm, path):
        import os
        import time

        while not os.path.exists(path):
            time.sleep(0.02)
        return comm.Get_size()

    before = {path.name for path in pathlib.Path("/dev/shm").glob("farcall-*")}
    with farcall.Executor("here", retry={"crash": 0}) as executor:
        executor.resource_specification = {"num_ranks": 1}
        neighbours = [executor.submit(wait, str(tmp_path / "go")) for _ in range(3)]
        executor.resource_specification = {"num_ranks": 1, "own_pool": True, "walltime": 5 if how == "deadlock" else 600}
        bad = executor.submit(end, how)
        if how == "cancel":
            wait_for(bad.running, "the task to run")
            bad.cancel(running=True)
            with pytest.raises((farcall.TaskCancelled, __import__("concurrent.futures").futures.CancelledError)):
                bad.result(60)
        else:
            kind = farcall.TimeExceeded if how == "deadlock" else farcall.WorkerCrashed
            with pytest.raises(kind):
                bad.result(120)
        (tmp_path / "go").touch()
        assert [future.result(120) for future in neighbours] == [1, 1, 1]
    mpi.farcall("endpoint", "stop", "here")
    assert not mpi.pilots()
    after = {path.name for path in pathlib.Path("/dev/shm").glob("farcall-*")}
    assert after <= before


def test_an_array_of_which_each_rank_has_a_part(mpi):
    import farcall
    import h5py
    import numpy

    @farcall.mpi(result="array")
    def field(comm, columns, kind):
        import numpy

        rank = comm.Get_rank()
        rows = [200_000, 0, 3][rank]
        if rank == 1 and kind == "differs":
            return numpy.zeros((1, columns + 1))
        if rank == 1 and kind == "none":
            return "no array"
        return (numpy.arange(rows * columns).reshape(rows, columns) + 10_000_000 * rank).astype(kind if kind[0] == "<" else "<f8")

    whole = numpy.concatenate([numpy.arange(200_000 * 30).reshape(-1, 30), numpy.arange(90).reshape(3, 30) + 20_000_000])
    with farcall.Executor("here") as executor:
        executor.resource_specification = {"num_ranks": 3}
        found = executor.submit(field, 30, "<f8").result(120)
        assert found.dtype == numpy.dtype("<f8") and numpy.array_equal(found, whole)
        small = executor.submit(field, 1, "<i4").result(60)
        assert small.dtype == numpy.dtype("<i4") and small.shape == (200_003, 1) and small[-1, 0] == 20_000_002
        with pytest.raises(ValueError, match=r"rank 1 of field .in parts. returned an array of <f8 with shape \(1, 31\), and rank 0 one of <f8 with shape \(200000, 30\)"):
            executor.submit(field, 30, "differs").result(60)
        with pytest.raises(ValueError, match="rank 1 of field .in parts. returned str, and with result='array' each rank returns its part"):
            executor.submit(field, 30, "none").result(60)
    with farcall.Executor("here", result="reference") as executor:
        executor.resource_specification = {"num_ranks": 3}
        future = executor.submit(field, 30, "<f8")
        reference = future.result(120)
        assert reference.shape == (200_003, 30) and reference.dtype == numpy.dtype("<f8")
        assert numpy.array_equal(reference[199_990::3, 4:20:5], whole[199_990::3, 4:20:5])
        (path,) = (mpi.home / "endpoints" / "here" / "results").glob(future.task_id + ".*.h5")
        with h5py.File(path) as file:
            data = file[future.task_id]["value"]
            assert data.fletcher32 and data.chunks and numpy.array_equal(data[...], whole)
