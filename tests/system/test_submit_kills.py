"""Exactly one batch job per intent: the interchange is killed at random moments of submit, status and cancel.

A real interchange with its real database and the real Slurm provider, whose commands are those of a scheduler that
goes step by step (tests/support/fake_slurm). A failure prints its seed:
  FARCALL_KILL_SEED=n   that seed only
  FARCALL_KILLS=n       so many kills that hit (40; with FARCALL_TEST_LONG 500): SIGKILLs at the planned step of a command,
                        or at a random time where that was the plan; a life that ends otherwise is not counted
"""

import collections
import json
import os
import random
import signal
import subprocess
import time

from conftest import BUILD, ROOT, is_gone, wait_for

FAKE = ROOT / "tests/support/fake_slurm/fake_slurm.py"
MAX_BLOCKS = 3


class Scheduler:
    def __init__(self, root):
        self.root = root
        (root / "bin").mkdir()
        for name in ("sbatch", "squeue", "scancel"):
            (root / "bin" / name).symlink_to(FAKE)

    def state(self):
        try:
            return json.loads((self.root / "state").read_text())
        except FileNotFoundError:
            return {"jobs": {}, "calls": {}}

    def live(self):
        return {id: job for id, job in self.state()["jobs"].items() if job["state"] in ("PENDING", "RUNNING")}

    def calls(self, name):
        return self.state()["calls"].get(name, 0)

    def plan(self, **plan):
        (self.root / "plan.new").write_text(json.dumps(plan))
        (self.root / "plan.new").rename(self.root / "plan")

    def end_some(self, rng, share):
        """Jobs end by themselves, so that there is always something to submit."""
        ending = [id for id in self.live() if rng.random() < share]
        for id in ending:
            subprocess.run([self.root / "bin/scancel", id], env={**os.environ, "FAKE_SLURM": str(self.root)}, check=True)


class Interchange:
    def __init__(self, site, scheduler):
        self.folder = site.home / "endpoints/here"
        self.environment = {**site.environment(), "FAKE_SLURM": str(scheduler.root)}
        self.environment["PATH"] = f"{scheduler.root / 'bin'}:{self.environment['PATH']}"

    def start(self):
        with open(self.folder / "interchange.out", "a") as out:
            self.process = subprocess.Popen(
                [BUILD / "bin/farcall-interchange", "--directory", self.folder, "--log", self.folder / "interchange.log"],
                env=self.environment, stdout=out, stderr=out)

    def ended(self):
        return self.process.poll() is not None

    def kill(self):
        self.process.kill()
        self.process.wait()


def check(scheduler, seed):
    jobs = scheduler.state()["jobs"]
    names = collections.Counter(job["name"] for job in jobs.values())
    twice = [name for name, count in names.items() if count > 1]
    assert not twice, f"seed {seed}: two jobs for one intent: {twice}"


def one_life(rng, scheduler, interchange, seed):
    """Starts the interchange and kills it at a random moment. How that went: "step" (a SIGKILL at the planned step of a
    command), "time" (at a random time, as planned), "missed" (the step did not come; killed later), "ended" (by itself)."""
    command, step = rng.choice([("sbatch", "start"), ("sbatch", "sent"), ("sbatch", "sent"), ("sbatch", "done"), ("sbatch", "printed"),
                                ("squeue", "start"), ("squeue", "done"), ("squeue", "printed"),
                                ("scancel", "start"), ("scancel", "sent"), ("scancel", "done"), ("scancel", "printed"), ("time", "")])
    scheduler.end_some(rng, 0.9 if command == "sbatch" else 0.2)
    plan = {"command": command, "step": step, "call": scheduler.calls(command) + 1 + (rng.random() < 0.2)}
    if rng.random() < 0.3:
        plan["wakes"] = rng.choice([0.2, 1.5, 4])
    if command != "time":
        scheduler.plan(**plan)
    interchange.start()
    if command == "scancel":  # a stop cancels what there is
        wait_for(lambda: scheduler.calls("squeue") or interchange.ended(), "a first answer")
        time.sleep(rng.random() * 0.3)
        interchange.process.send_signal(signal.SIGTERM)
    try:
        interchange.process.wait(rng.random() if command == "time" else 3)
    except subprocess.TimeoutExpired:
        interchange.kill()
    check(scheduler, seed)
    killed, carried_out = interchange.process.returncode == -signal.SIGKILL, not (scheduler.root / "plan").exists()
    (scheduler.root / "plan").unlink(missing_ok=True)
    if not killed:
        return "ended"
    return "time" if command == "time" else "step" if carried_out else "missed"


def test_kills_at_random_moments_of_submit_status_and_cancel(site, tmp_path):
    seed = int(os.environ.get("FARCALL_KILL_SEED", random.randrange(1 << 30)))
    kills = int(os.environ.get("FARCALL_KILLS", 500 if os.environ.get("FARCALL_TEST_LONG") else 40))
    rng = random.Random(seed)
    print(f"seed {seed}")
    scheduler = Scheduler(tmp_path)
    site.start_relay()
    site.farcall("endpoint", "configure", "here", "--provider", "slurm",
                 *(f"--set={key}={value}" for key, value in {
                     "engine.provider.min_blocks": 2, "engine.provider.max_blocks": MAX_BLOCKS, "engine.provider.init_blocks": MAX_BLOCKS,
                     "engine.lookup_grace": 1, "engine.scheduler_interval": 1, "engine.provider.cmd_timeout": 5,
                     "engine.strategy": "simple", "engine.max_idletime": 3600}.items()))
    interchange = Interchange(site, scheduler)
    environment = site.environment()
    environment["PATH"] = interchange.environment["PATH"]
    # Enrols the endpoint.
    subprocess.run([BUILD / "bin/farcall", "endpoint", "start", "here"], env={**environment, "FAKE_SLURM": str(tmp_path)}, check=True, capture_output=True)
    site.kill("endpoints/here/interchange.pid")
    lives = collections.Counter()
    while lives["step"] + lives["time"] < kills:
        lives[one_life(rng, scheduler, interchange, seed)] += 1
        assert lives.total() < 10 * kills + 20, f"seed {seed}: kills that hit are too rare: {dict(lives)}"
    # Undisturbed it finds out what there is: as many jobs as it wants, each its own.
    interchange.start()
    status = site.home / "endpoints/here/status.json"

    def settled():
        blocks = json.loads(status.read_text())["blocks"]
        active = {block["job_id"] for block in blocks if block["state"] in ("queued", "running")}
        doubt = [block for block in blocks if block["state"] in ("intent", "submitting", "in_doubt", "ending")]
        return not doubt and active == set(scheduler.live()) and len(active) in (2, MAX_BLOCKS)

    wait_for(settled, f"seed {seed}: the jobs that are there to be those that are wanted; jobs {scheduler.live()}", 180)
    interchange.process.send_signal(signal.SIGTERM)
    interchange.process.wait(60)
    check(scheduler, seed)
    assert not scheduler.live(), f"seed {seed}: orphans: {scheduler.live()}"
    print(f"seed {seed}: {lives['step'] + lives['time']} kills that hit ({lives['step']} at the step of a command, {lives['time']} at a random time) in "
          f"{lives.total()} lives ({lives['missed']} killed where their step did not come, {lives['ended']} ended by themselves), "
          f"{len(scheduler.state()['jobs'])} jobs, {scheduler.state()['calls']}")
    assert lives["step"] > kills // 4, f"seed {seed}: only {lives['step']} of {kills} kills hit a command"
    assert is_gone(interchange.process.pid)
