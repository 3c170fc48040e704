"""The native module over real sockets: a relay whose results are the arguments of the tasks."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import textwrap

import pytest

import farcall

WAIT_S = 30
ECHO_RELAY = os.environ.get("FARCALL_ECHO_RELAY", "")
pytestmark = pytest.mark.skipif(not ECHO_RELAY, reason="FARCALL_ECHO_RELAY does not name the test's relay")


class EchoRelay:
    def __init__(self, home):
        self.home = str(home)
        self.process = subprocess.Popen([ECHO_RELAY, self.home], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip()
        assert self.address.startswith("tcp://")

    def close(self):
        self.process.stdin.close()
        self.process.wait(WAIT_S)
        self.process.stdout.close()


@pytest.fixture(name="echo")
def _echo(tmp_path):
    relay = EchoRelay(tmp_path)
    yield relay
    relay.close()


def anything(*_args, **_kwargs):
    """Never called: the relay answers with the arguments."""


def test_connects_and_says_who_we_are(echo):
    with farcall.Client(echo.home) as client:
        assert client.user == "ada"
        assert client.relay_info()["address"] == echo.address
        assert client.endpoints()[0]["name"] == "echo"


def test_errors_of_the_relay_are_exceptions(echo):
    with farcall.Client(echo.home) as client:
        with pytest.raises(farcall.NotFound, match="has no method task.status"):
            client.task_status("0190c0de-0000-7000-8000-000000000001")
        with pytest.raises(farcall.NotFound, match='did you mean "echo"'):
            client.run(endpoint_id="ecko", function_id=client.register_function(anything))


def test_without_an_identity(tmp_path):
    with pytest.raises(farcall.NotFound):
        farcall.Client(str(tmp_path))


def test_executor_round_trip(echo):
    with farcall.Client(echo.home) as client, farcall.Executor("echo", client=client) as executor:
        assert executor.submit(anything, 1, b"\x00\xff", x={2}).result(WAIT_S) == ((1, b"\x00\xff"), {"x": {2}})
        futures = [executor.submit(anything, i) for i in range(5000)]
        concurrent.futures.wait(futures, WAIT_S)
        assert [future.result(0)[0][0] for future in futures] == list(range(5000))
        assert [args[0] for args, _kwargs in executor.map(anything, range(100))] == list(range(100))


def test_several_threads_share_a_client(echo):
    def one(client, number):
        with farcall.Executor("echo", client=client) as executor:
            return [args[0] for args, _kwargs in executor.map(anything, range(number, number + 200))]

    with farcall.Client(echo.home) as client, concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: one(client, n), range(0, 4000, 1000)))
    assert found == [list(range(n, n + 200)) for n in range(0, 4000, 1000)]


def test_result_of_one_task_of_many(echo):
    with farcall.Client(echo.home) as client:
        function = client.register_function(anything)
        batch = client.create_batch()
        for i in range(10):
            batch.add(function, (i,))
        tasks = client.batch_run("echo", batch)["tasks"][function]
        assert client.future(tasks[7]).result(WAIT_S) == ((7,), {})
        assert client.future(tasks[7]).result(WAIT_S) == ((7,), {})
        with pytest.raises(farcall.NotFound, match="its submission has 10"):
            client.future(tasks[7][:-8] + "00000063").result(WAIT_S)
        with pytest.raises(farcall.NotFound):
            client.future("0190c0de-0000-7000-8000-000000000063").result(WAIT_S)


def test_closed_client_refuses(echo):
    client = farcall.Client(echo.home)
    client.close()
    client.close()
    with pytest.raises(farcall.InvalidRequest, match="has been closed"):
        client.endpoints()


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "executor.shutdown(wait=False)", "future.result(30)"])
def test_interpreter_ends_cleanly(echo, ending):
    script = textwrap.dedent(
        """
        import farcall
        def f(x): return x
        executor = farcall.Executor("echo")
        for i in range(3000):
            future = executor.submit(f, i)
        %s
        """
        % ending
    )
    environment = dict(os.environ, FARCALL_HOME=echo.home)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_relay_that_pauses_is_waited_for(echo):
    with farcall.Client(echo.home) as client, farcall.Executor("echo", client=client) as executor:
        executor.submit(anything, 0).result(WAIT_S)
        os.kill(echo.process.pid, signal.SIGSTOP)
        future = executor.submit(anything, 1)
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(0.2)
        os.kill(echo.process.pid, signal.SIGCONT)
        assert future.result(WAIT_S) == ((1,), {})
