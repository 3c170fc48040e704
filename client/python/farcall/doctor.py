"""python3 -m farcall.doctor: is everything there that farcall needs, and what to do if not.

Looks at this installation, the identity and its keys, the relay, the clocks, and with -e at an
endpoint: the Python of its workers and what that has. Exit code 0 when nothing is wrong.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import stat
import sys
import time
from typing import Any, Callable, Dict, List, Optional

_CLOCK_S_MAX = 5.0
_PROBE = '''
import importlib.util, os, platform, sys, time

def probe():
    has = {name: importlib.util.find_spec(name) is not None for name in ("cloudpickle", "dill", "numpy")}
    return {"python": platform.python_version(), "executable": sys.executable, "host": platform.node(),
            "time_s": time.time(), "cores": len(os.sched_getaffinity(0)), "modules": has}
'''


class Report:
    """What was looked at, in order: each with ``name``, ``state`` (ok, warning, failed), ``text``
    and, when something is to be done, ``advice``."""

    def __init__(self) -> None:
        self.checks: List[Dict[str, Any]] = []

    def add(self, name: str, state: str, text: str, advice: str = "", **facts: Any) -> None:
        check: Dict[str, Any] = {"name": name, "state": state, "text": text, "advice": advice}
        self.checks.append(dict(check, **facts))

    @property
    def failed(self) -> bool:
        return any(check["state"] == "failed" for check in self.checks)

    def show(self, as_json: bool) -> None:
        if as_json:
            print(json.dumps({"ok": not self.failed, "checks": self.checks}))
            return
        for check in self.checks:
            print("%-8s %-12s %s" % (check["state"], check["name"], check["text"]))
            if check["advice"]:
                print("%-8s %-12s → %s" % ("", "", check["advice"]))


def check_installation(report: Report) -> bool:
    """This Python, the native module, what functions travel with."""
    python = platform.python_version()
    if sys.version_info < (3, 8):
        report.add("python", "failed", "Python %s at %s" % (python, sys.executable), "farcall needs Python 3.8 or newer")
        return False
    try:
        from . import _farcall
    except ImportError as error:
        advice = "build it for this Python (%s): scripts/build, or pip install . in farcall's source" % sys.executable
        report.add("python", "failed", "farcall's native module cannot be loaded: %s" % error, advice)
        return False
    report.add("python", "ok", "Python %s, farcall %s" % (python, _farcall.__version__), version=_farcall.__version__)
    for name in ("cloudpickle", "dill"):
        if importlib.util.find_spec(name) is None:
            advice = "pip install %s, on the workers too" % name
            lost = "functions go by source, lambdas cannot be sent" if name == "cloudpickle" else "serializer 'dill' cannot be used"
            report.add(name, "warning", "not installed: " + lost, advice)
        else:
            report.add(name, "ok", importlib.metadata.version(name))
    return True


def check_identity(report: Report, home: str) -> bool:
    """The file with our keys."""
    path = os.path.join(home, "identity")
    login = "`farcall login INVITATION` with an invitation of the relay's owner, or `farcall relay start` for a relay of your own here"
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        relay, user = content["relay"], content.get("user", "")
    except FileNotFoundError:
        report.add("keys", "failed", "no identity in %s" % home, login)
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        report.add("keys", "failed", "the identity %s cannot be read: %s: %s" % (path, type(error).__name__, error), "remove it; " + login)
        return False
    if mode & 0o077:
        report.add("keys", "failed", "others can read %s (mode %04o)" % (path, mode), "chmod 600 %s" % path)
        return False
    report.add("keys", "ok", "identity of %s for the relay at %s" % (user or "?", relay), relay=relay, user=user)
    return True


def check_relay(report: Report, home: str, timeout_s: float) -> Optional[Any]:
    """The connection; the client if there is one."""
    from . import Client, Denied, FarcallError, Unreachable, __version__

    begin = time.monotonic()
    try:
        client = Client(home, timeout_s=timeout_s)
        info = client.call("whoami")
    except Denied as error:
        report.add("relay", "failed", str(error), "ask the relay's owner for an invitation and `farcall login INVITATION`")
        return None
    except Unreachable as error:
        report.add("relay", "failed", str(error), "is it running (`farcall relay status` on its host)? Does a firewall keep its port closed?")
        return None
    except FarcallError as error:
        report.add("relay", "failed", str(error), "")
        return None
    took_ms = (time.monotonic() - begin) * 1000
    software = str(info.get("software", ""))
    text = "%s at %s knows us as %s; connected in %.0f ms" % (software, info.get("address"), info["user"], took_ms)
    report.add("relay", "ok", text, software=software, took_ms=took_ms)
    if software.rpartition(" ")[2] != __version__:
        report.add("versions", "warning", "this is farcall %s, the relay is %s" % (__version__, software), "update the older one")
    else:
        report.add("versions", "ok", "both sides are %s" % software)
    before, now_ms, after = time.time(), client.call("whoami").get("time_ms"), time.time()
    if now_ms:
        _clock(report, "clock", "the relay's clock", now_ms / 1000.0, before, after)
    return client


def _clock(report: Report, name: str, whose: str, there_s: float, before_s: float, after_s: float) -> None:
    """``there_s`` was read between the two times of our own clock."""
    off_s = max(before_s - there_s, there_s - after_s, 0.0)
    if off_s > _CLOCK_S_MAX:
        text = "%s is %.1f s %s this one" % (whose, off_s, "behind" if there_s < before_s else "ahead of")
        advice = "set both by NTP (`timedatectl`): times in listings are wrong until then, nothing else"
        report.add(name, "warning", text, advice, off_s=off_s)
    else:
        report.add(name, "ok", "%s and this one agree within %.1f s" % (whose, max(off_s, after_s - before_s)), off_s=off_s)


def check_endpoints(report: Report, client: Any) -> None:
    """Which there are, and whether they are connected."""
    endpoints = client.endpoints()
    if not endpoints:
        report.add("endpoints", "warning", "there are none", "on the cluster's login node: farcall endpoint configure NAME, then farcall endpoint start NAME")
    for entry in endpoints:
        if entry["online"]:
            report.add("endpoint", "ok", "%s is online on %s" % (entry["name"], entry.get("host")), endpoint=entry["name"])
        else:
            advice = "farcall endpoint start %s on %s" % (entry["name"], entry.get("host") or "its login node")
            report.add("endpoint", "warning", "%s is offline" % entry["name"], advice, endpoint=entry["name"])


def check_workers(report: Report, client: Any, endpoint: str, timeout_s: float) -> None:
    """Runs a task there."""
    from . import FarcallError, TaskExecutionFailed, TaskPending

    before = time.time()
    try:
        function = client.register_source_code(_PROBE, "probe")
        task = client.run(endpoint_id=endpoint, function_id=function)
        found = client.get_result(task, timeout=timeout_s)
    except TaskPending as error:
        client.cancel(error.task_id)
        why = "; ".join(client.explain(error.task_id)[-2:])
        report.add("worker", "failed", "no answer of a worker of %s within %.0f s: %s" % (endpoint, timeout_s, why), "farcall endpoint status %s; --timeout for more patience" % endpoint)
        return
    except (FarcallError, TaskExecutionFailed) as error:
        report.add("worker", "failed", str(error), "farcall endpoint logs %s" % endpoint)
        return
    text = "Python %s (%s) on %s, %d cores" % (found["python"], found["executable"], found["host"], found["cores"])
    minors = [".".join(one.split(".")[:2]) for one in (platform.python_version(), found["python"])]
    if minors[0] == minors[1]:
        report.add("worker", "ok", text, python=found["python"])
    else:
        advice = "send functions by source (code_serializer='source'), or set `python:` of the endpoint to a Python %s" % minors[0]
        report.add("worker", "warning", text + "; here it is %s: bytecode cannot be sent" % minors[0], advice, python=found["python"])
    for name in ("cloudpickle", "dill"):
        if importlib.util.find_spec(name) is not None and not found["modules"][name]:
            advice = "install it there (worker_init), or send functions by source"
            report.add("worker", "warning", "its Python has no %s, with which functions are sent from here" % name, advice)
    _clock(report, "clock", "the clock of %s" % found["host"], found["time_s"], before, time.time())


def examine(home: str, endpoint: Optional[str] = None, timeout_s: float = 10.0) -> Report:
    """All checks that can be made."""
    report = Report()
    if not check_installation(report) or not check_identity(report, home):
        return report
    client = check_relay(report, home, timeout_s)
    if client is None:
        return report
    with client:
        check_endpoints(report, client)
        if endpoint:
            check_workers(report, client, endpoint, max(timeout_s, 60.0))
    return report


def main(arguments: Optional[List[str]] = None, show: Callable[[Report, bool], None] = Report.show) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python3 -m farcall.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--endpoint", help="run a small task there and look at its workers")
    parser.add_argument("--home", help="directory with the identity (default: $FARCALL_HOME or ~/.farcall)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for the relay to answer (default: 10; a task gets at least 60)")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    chosen = parser.parse_args(arguments)
    home = chosen.home or os.environ.get("FARCALL_HOME") or os.path.expanduser("~/.farcall")
    report = examine(home, chosen.endpoint, chosen.timeout)
    show(report, chosen.json)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
