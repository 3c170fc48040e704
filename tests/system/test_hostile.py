"""Functions that do their worst: each gives a clear error of the right class, and the next task on that slot works."""

import os
import subprocess

import pytest

from conftest import wait_for

WAIT_S = 120


@pytest.fixture(name="executor", scope="module")
def _executor(one_worker):
    import farcall

    with farcall.Executor("here", retry={"crash": 0}) as executor:
        yield executor


@pytest.fixture(autouse=True)
def _the_slot_works_afterwards(executor):
    yield
    assert executor.submit(pow, 2, 10).result(WAIT_S) == 1024


def test_os_exit(executor, one_worker):
    import farcall

    error = executor.submit(os._exit, 3).exception(WAIT_S)

    def job_ids():
        status = one_worker.json("endpoint", "status", "here")["status"]
        return [block["job_id"] for block in status["blocks"]] if status else []

    # The relay hears of an endpoint's blocks a moment after its first task has ended.
    assert error.job_id
    wait_for(lambda: error.job_id in job_ids(), f"a block with the job id {error.job_id}")
    assert type(error) is farcall.WorkerCrashed and (error.exit_code, error.signal) == (3, 0)
    assert "exited with code 3" in str(error) and error.host in str(error) and error.attempt == 1


def test_os_exit_that_looks_like_success(executor):
    import farcall

    error = executor.submit(os._exit, 0).exception(WAIT_S)
    assert type(error) is farcall.WorkerCrashed


def test_segmentation_fault(executor):
    import farcall

    def segfault():
        import ctypes

        ctypes.string_at(0)

    error = executor.submit(segfault).exception(WAIT_S)
    assert type(error) is farcall.WorkerCrashed and error.signal == 11
    assert "signal 11" in str(error) and "Segmentation fault" in str(error)


def test_a_crash_is_tried_again_as_often_as_its_budget_says(one_worker, tmp_path):
    import farcall

    def crash_once(path):
        import os

        if not os.path.exists(path):
            open(path, "w").close()
            os.abort()
        return "second attempt"

    with farcall.Executor("here") as patient:
        assert patient.submit(crash_once, str(tmp_path / "seen")).result(WAIT_S) == "second attempt"


def print_without_end():
    import sys

    while True:
        print("x" * 1023)
        sys.stderr.write("y" * 1024)


def write_without_end():
    import os

    while True:
        os.write(1, b"x" * 16384)


def child_without_end():
    import subprocess

    subprocess.run(["yes"])


def logs_mib(site):
    """Of all that the programs of a site and the tasks on it have printed."""
    logs = [path for path in site.home.rglob("*") if path.suffix in (".out", ".log", ".err") and path.is_file()]
    assert any(path.name == "python.log" for path in logs), "that of the workers is among them"
    return sum(path.stat().st_size for path in logs) / (1 << 20)


WITHOUT_END = [print_without_end, write_without_end, child_without_end]


@pytest.mark.parametrize("function", WITHOUT_END)
def test_output_without_end_ends_with_the_walltime(executor, one_worker, function):
    import farcall

    with farcall.Executor("here", walltime_s=2) as limited:
        error = limited.submit(function).exception(WAIT_S)
    assert type(error) is farcall.TimeExceeded and "2 s" in str(error), error
    assert logs_mib(one_worker) < 8


@pytest.mark.parametrize("function", WITHOUT_END)
def test_output_without_end_can_be_cancelled(executor, one_worker, function):
    future = executor.submit(function)
    wait_for(future.running, "the task to run")
    assert future.cancel(running=True) or wait_for(future.cancelled, "the task to be cancelled")
    assert logs_mib(one_worker) < 8


def test_much_output_does_not_disturb_the_result(executor, one_worker):
    def babble():
        import os

        for _ in range(20000):
            print("x" * 1023)
            os.write(2, b"y" * 1024)
        return "done"

    assert executor.submit(babble).result(WAIT_S) == "done"
    assert logs_mib(one_worker) < 8


def test_shell_output_without_end(executor):
    import farcall

    result = executor.submit(farcall.ShellFunction("yes", walltime=2, snippet_lines=3)).result(WAIT_S)
    assert result.returncode == 124 and result.truncated
    assert set(result.stdout.split()) == {"y"} and len(result.stdout) < 1000


def test_the_end_of_much_shell_output_is_kept(executor):
    import farcall

    result = executor.submit(farcall.ShellFunction("yes | head -c 50000000; echo last", snippet_lines=3)).result(WAIT_S)
    assert result.stdout.splitlines()[-1] == "last" and len(result.stdout) < 1000 and result.truncated


@pytest.mark.parametrize("how", ["sys.stdout.close()", "os.close(1)", "os.closerange(0, 3)", "sys.stdout = None"])
def test_closing_its_own_output(executor, how):
    def close(how):
        import os
        import sys

        exec(how, {"os": os, "sys": sys})
        return "closed"

    assert executor.submit(close, how).result(WAIT_S) == "closed"

    def prints():
        print("hello")
        return "printed"

    assert executor.submit(prints).result(WAIT_S) == "printed"


def test_closing_every_descriptor(executor):
    import farcall

    def close_all():
        import os

        os.closerange(0, 4096)
        return "closed"

    error = executor.submit(close_all).exception(WAIT_S)
    assert type(error) is farcall.WorkerCrashed


def test_exception_that_cannot_be_pickled(executor):
    import farcall

    def fails():
        import threading

        error = ValueError("with a lock")
        error.lock = threading.Lock()
        raise error

    error = executor.submit(fails).exception(WAIT_S)
    assert type(error) is farcall.TaskExecutionFailed
    assert (error.remote_type, error.remote_module, error.failure_class) == ("ValueError", "builtins", "user_error")
    assert "ValueError: with a lock" in str(error) and "in fails" in error.remote_traceback


def test_exception_whose_methods_raise(executor):
    import farcall

    def fails():
        class Odd(Exception):
            def __str__(self):
                raise RuntimeError("no text")

            def __reduce__(self):
                raise RuntimeError("no pickle")

        raise Odd

    error = executor.submit(fails).exception(WAIT_S)
    assert type(error) is farcall.TaskExecutionFailed and error.remote_type.endswith("Odd")


def test_exception_that_raises_when_it_is_loaded(executor):
    import farcall

    def fails():
        class Odd(Exception):
            def __reduce__(self):
                return exit, (7,)

        raise Odd("as text")

    error = executor.submit(fails).exception(WAIT_S)
    assert type(error) is farcall.TaskExecutionFailed and "as text" in str(error)


def test_recursion(executor):
    def deeper(n):
        return deeper(n + 1)

    error = executor.submit(deeper, 0).exception(WAIT_S)
    assert type(error) is RecursionError and "in deeper" in str(error.__cause__)


def test_recursion_in_the_result(executor):
    import farcall

    def nested():
        value = None
        for _ in range(100000):
            value = [value]
        return value

    error = executor.submit(nested).exception(WAIT_S)
    assert isinstance(error, (farcall.TaskExecutionFailed, farcall.DeserializationError)), error
    assert "RecursionError" in str(error)


def test_result_whose_reduce_raises(executor):
    import farcall

    def bad():
        class Bad:
            def __reduce__(self):
                raise RuntimeError("no way")

        return Bad()

    error = executor.submit(bad).exception(WAIT_S)
    assert type(error) is farcall.TaskExecutionFailed and error.failure_class == "user_error"
    assert "the result of bad is a Bad, which cannot be pickled" in str(error) and "RuntimeError: no way" in str(error)


def test_result_that_ends_the_program_that_loads_it(executor):
    import farcall

    def bad():
        class Bad:
            def __reduce__(self):
                return exit, (7,)

        return Bad()

    error = executor.submit(bad).exception(WAIT_S)
    assert type(error) is farcall.DeserializationError and "SystemExit" in str(error)


def test_large_result(executor):
    def large(size):
        return bytes(size)

    assert len(executor.submit(large, 3 << 20).result(WAIT_S)) == 3 << 20


def test_huge_result(executor):
    """FARCALL_TEST_RESULT_MIB=1024 for a gigabyte."""
    mib = int(os.environ.get("FARCALL_TEST_RESULT_MIB", "100"))

    def huge(size):
        return bytes(size) + b"end"

    result = executor.submit(huge, mib << 20).result(10 * WAIT_S)
    assert len(result) == (mib << 20) + 3 and result.endswith(b"\0end") and result.count(0) == mib << 20


def test_threads_and_children_left_behind(executor, tmp_path):
    def leaves(path):
        import os
        import subprocess
        import threading
        import time

        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        child = subprocess.Popen(["sleep", "1000"])
        with open(path, "w") as file:
            file.write(str(child.pid))
        os.kill(os.getpid(), 9)

    path = tmp_path / "child"
    executor.submit(leaves, str(path)).exception(WAIT_S)
    from conftest import is_gone

    wait_for(lambda: is_gone(int(path.read_text())), "the child of a dead worker to die")


def test_fork_without_exec(executor):
    def forks():
        import os

        if os.fork() == 0:
            return "child"
        os.wait()
        return "parent"

    assert executor.submit(forks).result(WAIT_S) == "parent"


def test_signals_and_handlers(executor):
    def ignores():
        import signal

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
        return "ignored"

    assert executor.submit(ignores).result(WAIT_S) == "ignored"


def test_walltime_of_a_loop_that_catches_everything(one_worker):
    import farcall

    def stubborn():
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass

    with farcall.Executor("here", walltime_s=1) as executor:
        error = executor.submit(stubborn).exception(WAIT_S)
    assert type(error) is farcall.TimeExceeded and isinstance(error, TimeoutError)


def test_cancel_of_a_task_that_ignores_every_signal(executor):
    def stubborn():
        import signal
        import time

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(1)

    future = executor.submit(stubborn)
    wait_for(future.running, "the task to run")
    assert future.cancel() is False
    assert future.cancel(running=True) or wait_for(future.cancelled, "the task to be cancelled")


def test_replaced_modules_do_not_hurt_the_worker(executor):
    def vandal():
        import json
        import os
        import sys
        import time

        json.dumps = time.time = os.getpid = sys.exit = None
        sys.modules.pop("pickle", None)
        sys.path.clear()
        return 1

    error = executor.submit(vandal).exception(WAIT_S)
    assert error is None or "Crash" in type(error).__name__


def test_no_process_is_left(one_worker, executor):
    """Of all of the above."""
    listing = subprocess.run(["ps", "axo", "pid,args"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in listing.splitlines() if line.split(None, 1)[1:] == ["sleep 1000"]]
