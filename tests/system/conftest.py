"""A home of its own for each test: a relay on a free port, endpoints, and the end of all of it."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("FARCALL_BUILD", ROOT / "build"))
sys.path.insert(0, str(BUILD / "python"))


def wait_for(condition, what, seconds=60):
    """Polls until condition() is true and returns its value; fails with `what` after a deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.02)


class Site:
    def __init__(self, home):
        self.home = pathlib.Path(home)
        self.endpoints = []
        self.errors_expected = []
        self.variables = {}  # more of the environment of what is started here

    def expect_error_log(self, pattern):
        """A line at ERROR that matches may stand in this site's logs; any other fails the test."""
        self.errors_expected.append(re.compile(pattern))

    def unexpected_errors(self):
        return [
            f"{path.relative_to(self.home)}: {line}"
            for path in log_files(self.home)
            for line in path.read_text(errors="replace").splitlines()
            if ERROR_LINE.match(line) and not any(expected.search(line) for expected in self.errors_expected)
        ]

    def environment(self):
        # with_pbs puts its commands first; with_slurm_cluster's are the system's.
        scheduler = f"{os.environ['FARCALL_TEST_PBS_DIR']}/bin:" if "FARCALL_TEST_PBS_DIR" in os.environ else ""
        return {
            **os.environ,
            "FARCALL_HOME": str(self.home),
            "PATH": f"{BUILD / 'bin'}:{scheduler}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(BUILD / "python"),
            **self.variables,
        }

    def farcall(self, *arguments, ok=True, text=True, timeout=120, **options):
        run = subprocess.run(
            [BUILD / "bin" / "farcall", *map(str, arguments)],
            env=self.environment(), capture_output=True, text=text, timeout=timeout, **options,
        )
        if ok:
            assert run.returncode == 0, f"farcall {' '.join(map(str, arguments))}: {run.returncode}\n{run.stdout}\n{run.stderr}"
        return run

    def json(self, *arguments, **options):
        words = list(arguments)
        words.insert(words.index("--") if "--" in words else len(words), "--json")
        return json.loads(self.farcall(*words, **options).stdout)

    def start_relay(self, listen="tcp://127.0.0.1:0"):
        self.farcall("relay", "start", "--listen", listen)

    def relay_address(self):
        return json.loads((self.home / "relay" / "address").read_text())["address"]

    def endpoint(self, name="here", provider="local", **settings):
        options = [f"--set={key}={value}" for key, value in settings.items()]
        self.farcall("endpoint", "configure", name, "--provider", provider, *options)
        self.endpoints.append(name)
        self.farcall("endpoint", "start", name)

    def pid_of(self, file):
        return int((self.home / file).read_text().split()[-1])

    def kill(self, file):
        """SIGKILL to the process whose pid file it is; returns when it is gone."""
        pid = self.pid_of(file)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: is_gone(pid), f"process {pid} to die")

    def pilots(self):
        """pids of this site's pilots on this host; each has a guard above it, which ends with it."""
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"farcall-pilot") and any(str(self.home).encode() in word for word in words):
                found.append(int(entry.name))
        guards = {parent_of(pid) for pid in found}
        return [pid for pid in found if pid not in guards]

    def close(self):
        for name in self.endpoints:
            self.farcall("endpoint", "stop", name, ok=False)
        self.farcall("relay", "stop", ok=False)


def parent_of(pid):
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def is_gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def with_word(word):
    """pids of processes, those of namespaces on this host included, that have `word` in their command line."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (entry / "cmdline").read_bytes().split(b"\0") and not is_gone(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def leaves_a_daemon_behind(site, endpoint):
    """A task's daemon in a session of its own ends with the task, and with the block when that ends first."""
    for after, ends in ((":", lambda: None), ("sleep 900", lambda: site.farcall("endpoint", "stop", endpoint))):
        nap = f"1000.{int.from_bytes(os.urandom(4), 'big')}"  # found again by its length
        daemon = f"setsid -f sleep {nap} </dev/null >/dev/null 2>&1"
        started = site.home / f"started{nap}"
        site.farcall("submit", "-e", endpoint, "--", "sh", "-c", f"{daemon}; touch {started}; {after}")
        wait_for(started.exists, "the task to run")
        if after != ":":
            wait_for(lambda: with_word(nap), "the daemon to live while its task runs")
        ends()
        wait_for(lambda: not with_word(nap), "the daemon to end with its task or block")


# As base/log.h writes it.
ERROR_LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z ERROR ")


def log_files(home):
    """What relay, interchanges and pilots below `home` have said."""
    return [path for path in sorted(pathlib.Path(home).rglob("*")) if path.is_file() and (path.suffix in (".log", ".out") or path.name == "stderr")]


def show_logs(home):
    for path in log_files(home):
        print(f"--- {path.relative_to(home)}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-60:]))


@contextlib.contextmanager
def a_site(failed):
    """A home that is cleaned up afterwards; `failed()`: whether its logs are to be shown."""
    # Below the build tree, so that the nodes of a test cluster see it as well; short, for sockets.
    (BUILD / "sites").mkdir(exist_ok=True)
    home = tempfile.mkdtemp(dir=BUILD / "sites", prefix="s")
    site = Site(home)
    yield site
    if failed():
        show_logs(home)
    site.close()
    errors = site.unexpected_errors()
    left = site.pilots()
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(home, ignore_errors=True)
    assert not left, f"pilots left behind: {left}"
    assert not errors, "logged at ERROR:\n" + "\n".join(errors)


@pytest.fixture
def site(request):
    with a_site(lambda: getattr(request.node, "failed", False)) as site:
        yield site


@contextlib.contextmanager
def _warm(request, workers):
    with a_site(lambda: request.session.testsfailed) as site, pytest.MonkeyPatch.context() as patch:
        site.variables["TMPDIR"] = str(site.home / "tmp")  # what pilots write there can be seen
        (site.home / "tmp").mkdir()
        site.start_relay()
        site.endpoint("here", **{"engine.max_workers_per_node": workers})
        patch.setenv("FARCALL_HOME", str(site.home))
        import farcall

        with farcall.Executor("here") as executor:
            list(executor.map(time.sleep, [0.2] * workers))
        yield site


@pytest.fixture(scope="module")
def five_workers(request):
    """For the tests of a whole module: an endpoint `here` with five workers that are warm."""
    with _warm(request, 5) as site:
        yield site


@pytest.fixture(scope="module")
def one_worker(request):
    """The same with a single slot: what a task leaves behind meets the next one."""
    with _warm(request, 1) as site:
        yield site


@pytest.fixture
def here(site, monkeypatch):
    """A relay and an endpoint `here` with the local provider; the Python module in this process uses it."""
    site.start_relay()
    site.endpoint("here")
    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    return site


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if outcome.get_result().failed:
        item.failed = True
