"""CPython's own tests of executors and futures, pointed at farcall.Executor.

They are those of the Python that runs this (Debian: libpython3.11-testsuite), taken as they are. What
a remote executor cannot hold is left out, with the reason, in EXCEPTIONS; docs/python.md has the same
list for users. The classes that an endpoint has in place of a broken process pool stand in for
BrokenProcessPool, and RemoteTraceback for the traceback of a process pool.
"""

import logging
import pathlib
import sys
import time
import unittest

import pytest
from test import test_concurrent_futures as cpython

ROOT = pathlib.Path(__file__).resolve().parents[2]

#: Test of CPython → why it cannot hold for an executor whose workers are on another machine.
EXCEPTIONS = {
    "ExecutorShutdownTest.test_interpreter_shutdown": "output",
    "ExecutorShutdownTest.test_hang_gh83386": "output",
    "ExecutorShutdownTest.test_submit_after_interpreter_shutdown": "imports",
    "ExecutorShutdownTest.test_cancel_futures": "latency",
    "ExecutorTest.test_max_workers_negative": "workers",
    "ProcessPoolExecutorTest.test_max_workers_too_large": "workers",
    "ProcessPoolExecutorTest.test_killed_child": "workers",
    "ProcessPoolExecutorTest.test_saturation": "workers",
    "ProcessPoolExecutorTest.test_idle_process_reuse_one": "workers",
    "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": "workers",
    "ProcessPoolExecutorTest.test_max_tasks_per_child": "workers",
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": "workers",
    "ProcessPoolExecutorTest.test_max_tasks_early_shutdown": "workers",
    "ProcessPoolExecutorTest.test_ressources_gced_in_workers": "multiprocessing",
    "ExecutorDeadlockTest.test_error_at_task_pickle": "at submit",
    "ExecutorDeadlockTest.test_shutdown_deadlock_pickle": "at submit",
    "ExecutorDeadlockTest.test_error_during_result_pickle_on_worker": "explained",
    "ExecutorDeadlockTest.test_exit_during_result_pickle_on_worker": "explained",
}

#: Classes that are not taken at all.
NOT_TAKEN = {
    "InitializerMixin": "workers",
    "FailingInitializerMixin": "workers",
    "ThreadPoolShutdownTest": "threads",
    "ThreadPoolWaitTests": "threads",
    "ThreadPoolExecutorTest": "threads",
    "ProcessPoolShutdownTest": "workers",
}


def executor_type():
    import farcall

    class FarcallExecutor(farcall.Executor):
        def __init__(self, max_workers=None, mp_context=None):
            super().__init__("here")

    return FarcallExecutor


class FarcallMixin(cpython.ExecutorMixin):
    def setUp(self):
        self.executor_type = executor_type()
        super().setUp()

    def get_context(self):
        return None


@pytest.fixture(scope="module", autouse=True)
def _stand_ins(five_workers):
    import farcall

    class Future(farcall.TaskFuture):
        """Its name is in what the tests expect of repr()."""

    def create_future(state=cpython.PENDING, exception=None, result=None):
        future = Future()
        future._state, future._exception, future._result = state, exception, result
        return future

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpython, "BrokenProcessPool", (farcall.TaskExecutionFailed, farcall.DeserializationError))
        patch.setattr(cpython.futures.process, "_RemoteTraceback", farcall.RemoteTraceback)
        # With pytest's handlers nothing would be written to stderr, where the tests look.
        patch.setattr(logging.getLogger("concurrent.futures"), "propagate", False)
        patch.setattr(cpython, "Future", Future)
        patch.setattr(cpython, "create_future", create_future)
        for state, more in (
            ("PENDING", {}),
            ("RUNNING", {}),
            ("CANCELLED", {}),
            ("CANCELLED_AND_NOTIFIED", {}),
            ("EXCEPTION", {"exception": OSError()}),
            ("SUCCESSFUL", {"result": 42}),
        ):
            made = create_future(getattr(cpython, state, cpython.FINISHED), **more)
            patch.setattr(cpython, state + "_FUTURE", made)
        yield


def taken(source):
    """A class with the tests of one of CPython's, without the exceptions."""
    body = {name.partition(".")[2]: None for name in EXCEPTIONS if name.startswith(source.__name__ + ".")}
    # What a class inherits is judged under the name of the class that has it.
    for parent in source.__mro__[1:]:
        body.update({name.partition(".")[2]: None for name in EXCEPTIONS if name.startswith(parent.__name__ + ".")})
    if source is cpython.ProcessPoolExecutorTest:  # what it inherits is run for ExecutorTest
        body.update({name: None for name in vars(cpython.ExecutorTest) if name.startswith("test_")})
    return body


class TestShutdown(FarcallMixin, cpython.ExecutorShutdownTest, cpython.BaseTestCase):
    locals().update(taken(cpython.ExecutorShutdownTest))

    def test_cancel_futures_once_some_run(self):
        """CPython's test_cancel_futures, begun when the first tasks have reached their workers."""
        futures = [self.executor.submit(time.sleep, 1) for _ in range(50)]
        deadline = time.monotonic() + 60
        while not any(future.running() for future in futures):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)
        self.executor.shutdown(cancel_futures=True)
        cancelled = [future for future in futures if future.cancelled()]
        self.assertGreater(len(cancelled), 20)
        others = [future for future in futures if not future.cancelled()]
        self.assertGreater(len(others), 0)
        for future in others:
            self.assertTrue(future.done())
            self.assertIsNone(future.exception())


class TestWait(FarcallMixin, cpython.WaitTests, cpython.BaseTestCase):
    locals().update(taken(cpython.WaitTests))


class TestAsCompleted(FarcallMixin, cpython.AsCompletedTests, cpython.BaseTestCase):
    locals().update(taken(cpython.AsCompletedTests))


class TestExecutor(FarcallMixin, cpython.ExecutorTest, cpython.BaseTestCase):
    locals().update(taken(cpython.ExecutorTest))


class TestProcessPool(FarcallMixin, cpython.ProcessPoolExecutorTest, cpython.BaseTestCase):
    locals().update(taken(cpython.ProcessPoolExecutorTest))
    # Of the class that a worker can import, not of this one.
    _test_traceback = cpython.ProcessPoolExecutorTest._test_traceback


class TestDeadlock(FarcallMixin, cpython.ExecutorDeadlockTest, cpython.BaseTestCase):
    locals().update(taken(cpython.ExecutorDeadlockTest))


class TestFuture(cpython.FutureTests):
    pass


class TestTheList:
    """Nothing is left out in silence."""

    def test_every_class_of_cpython_is_taken_or_named(self):
        mine = set()
        for name, kind in globals().items():
            if name.startswith("Test") and isinstance(kind, type) and issubclass(kind, unittest.TestCase):
                mine.update(parent.__name__ for parent in kind.__mro__)
        for name, kind in vars(cpython).items():
            if isinstance(kind, type) and kind.__module__ == cpython.__name__ and any(one.startswith("test_") for one in dir(kind)):
                generated = name.startswith(("ThreadPool", "ProcessPoolFork", "ProcessPoolSpawn", "ProcessPoolForkserver"))
                assert name in mine or name in NOT_TAKEN or generated, name

    def test_exceptions_exist_and_are_documented(self):
        text = (ROOT / "docs" / "python.md").read_text()
        for name in EXCEPTIONS:
            kind, _dot, test = name.partition(".")
            assert hasattr(getattr(cpython, kind), test), name
            assert f"`{test}`" in text, f"{name} is not in docs/python.md"
        for name in NOT_TAKEN:
            assert hasattr(cpython, name) and f"`{name}`" in text, f"{name} is not in docs/python.md"
        assert sys.version_info[:2] == (3, 11), "another Python has other tests: look through the list"
