"""A farcall of its own for a measurement, and what /proc says of each of its processes."""

import os
import pathlib
import shutil
import subprocess
import tempfile

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
ROLES = {"farcall-relay": "relay", "farcall-interchange": "interchange", "farcall-pilot": "pilot"}


class Site:
    """Relay and endpoint "here" in a fresh home, as a context manager."""

    def __init__(self, programs, workers):
        self.farcall = str(pathlib.Path(programs) / "farcall")
        self.workers = workers

    def __enter__(self):
        self.home = tempfile.mkdtemp(prefix="farcall-bench-")
        os.environ["FARCALL_HOME"] = self.home
        self.run("relay", "start", "--listen", "tcp://127.0.0.1:0")
        self.run("endpoint", "configure", "here", "--provider", "local", "--set", "engine.max_workers_per_node=%d" % self.workers)
        self.run("endpoint", "start", "here")
        return self

    def __exit__(self, *_exception):
        for words in (("endpoint", "stop", "here"), ("relay", "stop")):
            subprocess.run([self.farcall, *words], check=False, capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)

    def run(self, *words):
        subprocess.run([self.farcall, *words], check=True, capture_output=True, text=True)

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
        if b"python_runner" in command:
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


def table(value, name=""):
    """Prints nested results, one a line."""
    if not isinstance(value, dict):
        print("%-44s %s" % (name, value))
        return
    for key, item in value.items():
        table(item, "%s.%s" % (name, key) if name else key)
