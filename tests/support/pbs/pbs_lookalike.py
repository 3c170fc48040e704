#!/usr/bin/python3
"""A PBS to test against: one server and a MoM per node over one directory, jobs are real processes of this host.

  pbs_lookalike.py up DIR [--nodes 3] [--no-history] [--node-fail-requeue 310] [--kill-delay 10] [--client master|v23]
  pbs_lookalike.py down DIR
  pbs_lookalike.py server DIR kill|start|freeze|thaw
  pbs_lookalike.py mom DIR N kill|start            the MoM alone; its processes live on, as on a real node
  pbs_lookalike.py node DIR N kill                 the MoM and everything it started
  pbs_lookalike.py history DIR on|off
  pbs_lookalike.py processes DIR                   pids of everything that jobs started and that lives

`up` fills DIR/bin with qsub, qstat, qselect, qdel, pbs_tmrsh and pbsdsh; PATH=DIR/bin:$PATH is all a client needs.
What is printed is what OpenPBS prints. Not like it: jobs get PBS_CONF_FILE (there is no /etc/pbs.conf), and root may submit.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(os.path.realpath(__file__)).parent
CLIENTS = ("qsub", "qstat", "qselect", "qdel", "pbs_tmrsh", "pbsdsh")


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def pid_of(directory, name):
    try:
        return int((directory / f"{name}.pid").read_text())
    except (OSError, ValueError):
        return None


def wait_until(condition, what):
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"pbs_lookalike: waited in vain: {what}")
        time.sleep(0.01)


def start(directory, name):
    """Starts `server` or `mom.N`; returns when it listens."""
    log = open(directory / f"{name}.log", "a")
    (directory / f"{name}.sock").unlink(missing_ok=True)
    role = [name] if name == "server" else ["mom", name.split(".")[1]]
    subprocess.Popen(["/usr/bin/python3", "-B", str(HERE / "pbs_daemons.py"), str(directory), *role],
                     stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/")
    wait_until(lambda: (directory / f"{name}.sock").exists(), f"{name} to listen")


def end(directory, name, signal_number=signal.SIGKILL):
    pid = pid_of(directory, name)
    if pid and alive(pid):
        os.kill(pid, signal_number)
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not alive(pid), f"{name} to end")
    (directory / f"{name}.sock").unlink(missing_ok=True)


def processes(directory, node=None):
    """Everything that descends from a job of this directory, setsid or not: told by its environment."""
    found = []
    mark = f"PBS_CONF_FILE={directory}/pbs.conf".encode()
    where = f"PBS_LOOKALIKE_NODE={node}".encode() if node else b""
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in variables and (not node or where in variables) and alive(int(entry.name)):
            found.append(int(entry.name))
    return found


def up(directory, options):
    for part in ("bin", "jobs", "obits", "aux", "spool"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    for client in CLIENTS:
        link = directory / "bin" / client
        link.unlink(missing_ok=True)
        link.symlink_to(HERE / "pbs_clients.py")
    (directory / "pbs.conf").write_text(f"PBS_EXEC={directory}\nPBS_SERVER=pbsctl\nPBS_HOME={directory}\n")
    settings = {"nodes": options.nodes, "ncpus": 8, "history": not options.no_history, "client": options.client,
                "node_fail_requeue": options.node_fail_requeue, "kill_delay": options.kill_delay}
    (directory / "settings.json").write_text(json.dumps(settings))
    for n in range(1, options.nodes + 1):
        start(directory, f"mom.pbsn{n}")
    start(directory, "server")


def down(directory):
    end(directory, "server")
    for path in directory.glob("mom.*.pid"):
        end(directory, path.name.removesuffix(".pid"))
    for pid in processes(directory):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    shutil.rmtree(directory, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("up", "down", "server", "mom", "node", "history", "processes"))
    parser.add_argument("directory", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("words", nargs="*")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--no-history", action="store_true")
    parser.add_argument("--node-fail-requeue", type=float, default=310)
    parser.add_argument("--kill-delay", type=float, default=10)
    parser.add_argument("--client", choices=("master", "v23"), default="master")
    options = parser.parse_args()
    directory, words = options.directory, options.words
    if options.what == "up":
        up(directory, options)
    elif options.what == "down":
        down(directory)
    elif options.what == "processes":
        print(*processes(directory))
    elif options.what == "history":
        settings = json.loads((directory / "settings.json").read_text())
        settings["history"] = words[0] == "on"
        temporary = directory / "settings.new"
        temporary.write_text(json.dumps(settings))
        temporary.rename(directory / "settings.json")
    elif options.what == "server":
        {"kill": lambda: end(directory, "server"), "start": lambda: start(directory, "server"),
         "freeze": lambda: os.kill(pid_of(directory, "server"), signal.SIGSTOP),
         "thaw": lambda: os.kill(pid_of(directory, "server"), signal.SIGCONT)}[words[0]]()
    else:
        name = f"mom.pbsn{words[0]}"
        if words[1] == "start":
            start(directory, name)
        else:
            end(directory, name)
            if options.what == "node":
                for pid in processes(directory, f"pbsn{words[0]}"):
                    os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
