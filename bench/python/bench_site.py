"""A farcall of its own for a measurement, and what /proc says of each of its processes."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
ROLES = {"farcall-relay": "relay", "farcall-interchange": "interchange", "farcall-pilot": "pilot"}


class Site:
    """Relay and endpoint "here" in a fresh home, as a context manager."""

    def __init__(self, programs, workers, provider="local", settings=None, shared=None, start=True):
        """``settings``: of the endpoint. ``shared``: a folder that the nodes see, for the home; default: a temporary one."""
        self.farcall = str(pathlib.Path(programs).resolve() / "farcall")
        self.settings = {"engine.max_workers_per_node": workers, **(settings or {})}
        self.provider, self.shared, self.starts = provider, shared, start

    def __enter__(self):
        self.home = tempfile.mkdtemp(prefix="farcall-bench-", dir=self.shared)
        os.environ["FARCALL_HOME"] = self.home
        self.run("relay", "start", "--listen", "tcp://127.0.0.1:0")
        words = [word for key, value in self.settings.items() for word in ("--set", "%s=%s" % (key, value))]
        self.run("endpoint", "configure", "here", "--provider", self.provider, *words)
        if self.starts:
            self.run("endpoint", "start", "here")
        return self

    def __exit__(self, *_exception):
        for words in (("endpoint", "stop", "here"), ("relay", "stop")):
            subprocess.run([self.farcall, *words], check=False, capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)

    def run(self, *words):
        done = subprocess.run([self.farcall, *words], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError("farcall %s ended with code %d: %s" % (" ".join(words), done.returncode, done.stderr))

    def pids(self):
        """role -> its processes."""
        found = {}
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                role = self._role(process)
            except OSError:
                continue  # it has ended
            if role is not None:
                found.setdefault(role, []).append(int(process.name))
        return found

    def usage(self):
        """role -> (user seconds, system seconds, peak resident MiB), summed over its processes."""
        found = {}
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                role = self._role(process)
                if role is None:
                    continue
                fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
                peak = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM"))
            except (OSError, StopIteration):
                continue  # it has ended
            user, system, mib = found.get(role, (0.0, 0.0, 0.0))
            found[role] = (user + int(fields[11]) * TICK_S, system + int(fields[12]) * TICK_S, mib + int(peak.split()[1]) / 1024)
        return found

    def _role(self, process):
        if process.name == str(os.getpid()):
            return "client"
        command = (process / "cmdline").read_bytes()
        home = self.home.encode()
        if home not in command and home not in (process / "environ").read_bytes():
            return None
        if b"python_runner" in command or b"farcall-native-runner" in command:
            return "workers"
        return ROLES.get(os.path.basename(command.split(b"\0")[0].decode()), "others")


def cost(before, after, tasks):
    """CPU microseconds a task and peak memory, by role."""
    answer, total = {}, 0.0
    for role, (user, system, mib) in sorted(after.items()):
        user_before, system_before, _mib = before.get(role, (0.0, 0.0, 0.0))
        user_us, system_us = (user - user_before) / tasks * 1e6, (system - system_before) / tasks * 1e6
        total += user_us + system_us
        answer[role] = {"user_us": round(user_us, 1), "system_us": round(system_us, 1), "peak_mib": round(mib, 1)}
    answer["all"] = {"cpu_us": round(total, 1)}
    return answer


def show(result, as_json):
    if as_json:
        json.dump(result, sys.stdout, indent=2)
        print()
    else:
        table(result)


def table(value, name=""):
    """Prints nested results, one a line."""
    if not isinstance(value, dict):
        print("%-44s %s" % (name, value))
        return
    for key, item in value.items():
        table(item, "%s.%s" % (name, key) if name else key)
