#!/usr/bin/python3 -IS
"""sbatch, squeue and scancel of a scheduler that goes step by step and breaks on request.

Called by one of those names; FAKE_SLURM is its directory. Before each command `plan` in it (JSON) may
hold {"command", "step", "call"}: at that call of that command, at that step, the process that called it
is killed with SIGKILL, as a crash of the interchange would. Steps:

    start    nothing has happened yet
    sent     the controller has the request, and carries it out although nobody hears its answer;
             with "wakes": seconds later only
    done     it has been carried out, the answer is not printed
    printed  the answer is printed, the command has not ended
"""
import fcntl
import json
import os
import signal
import sys
import time

ROOT = os.environ["FAKE_SLURM"]
NAME = os.path.basename(sys.argv[0])
SEPARATOR = "\x1f"


class State:
    """The controller's, under a lock while it is open."""

    def __enter__(self):
        self.lock = open(f"{ROOT}/lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        try:
            with open(f"{ROOT}/state") as file:
                self.data = json.load(file)
        except FileNotFoundError:
            self.data = {"last": 0, "jobs": {}, "calls": {}}
        return self.data

    def __exit__(self, *_):
        with open(f"{ROOT}/state.new", "w") as file:
            json.dump(self.data, file)
        os.replace(f"{ROOT}/state.new", f"{ROOT}/state")
        self.lock.close()


def plan_for(call):
    try:
        with open(f"{ROOT}/plan") as file:
            plan = json.load(file)
    except FileNotFoundError:
        return {}
    return plan if plan["command"] == NAME and call >= plan["call"] else {}


def at(step, plan):
    if plan.get("step") != step:
        return
    os.unlink(f"{ROOT}/plan")
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)  # we go with it: that is what is tested


def carry_out(plan, action):
    """Does it; when the plan says so in another process, which nobody takes down with us."""
    if plan.get("step") != "sent":
        return action()
    if os.fork() == 0:
        os.setsid()
        for fd in (0, 1, 2):
            os.close(fd)
        time.sleep(plan.get("wakes", 0))
        action()
        os._exit(0)
    at("sent", plan)


def option(name):
    for word in sys.argv[1:]:
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return sys.argv[sys.argv.index(f"--{name}") + 1]


def sbatch(plan):
    def accept():
        with State() as state:
            state["last"] += 1
            state["jobs"][str(state["last"])] = {"name": option("job-name"), "state": "PENDING", "made": time.time()}
            return state["last"]

    number = carry_out(plan, accept)
    at("done", plan)
    print(number, flush=True)


def squeue(plan):
    at("sent", plan)
    with State() as state:
        jobs = state["jobs"]
        if "--name" in sys.argv:
            lines = [f"{id}{SEPARATOR}{job['name']}" for id, job in jobs.items() if job["name"] == option("name")]
        else:
            wanted = option("jobs").split(",")
            lines = [SEPARATOR.join([id, job["state"], "1:00", "0", "0", job["name"], "None", "", ""])
                     for id, job in jobs.items() if id in wanted]
    at("done", plan)
    print("\n".join(lines), flush=True)


def scancel(plan):
    def cancel():
        with State() as state:
            for id in sys.argv[1:]:
                if id in state["jobs"]:
                    state["jobs"][id]["state"] = "CANCELLED"

    carry_out(plan, cancel)
    at("done", plan)


with State() as state:
    state["calls"][NAME] = state["calls"].get(NAME, 0) + 1
    count = state["calls"][NAME]
PLAN = plan_for(count)
at("start", PLAN)
{"sbatch": sbatch, "squeue": squeue, "scancel": scancel}[NAME](PLAN)
at("printed", PLAN)
