"""The look-alike prints what a real OpenPBS printed, letter for letter."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import pbs_text

CAPTURES = pathlib.Path(os.environ.get("FARCALL_PBS_CAPTURES", HERE.parents[2] / "providers/pbs/tests/captures"))


def captures():
    """(file, command, stdout, stderr, exit code) of every captured command."""
    for path in sorted(CAPTURES.glob("*.txt")):
        text = path.read_text(errors="surrogateescape")
        pattern = r"^\$ (.*?)      # as [^\n]*\n--- stdout\n(.*?)--- stderr\n(.*?)--- exit (\S+)"
        for match in re.finditer(pattern, text, re.S | re.M):
            yield (path.name, *match.groups())


def captured(command):
    return next((out, err, int(code)) for _, text, out, err, code in captures() if text == command)


def test_json_has_the_very_bytes_of_a_real_answer():
    checked = 0
    for _, command, out, _, _ in captures():
        if not re.fullmatch(r"(/opt/pbs-v23/bin/)?qstat [^;|]*-F json[^;|]*", command) or not out.startswith("{"):
            continue
        answer = json.loads(out)
        style = pbs_text.V23 if command.startswith("/opt") else pbs_text.MASTER
        sections = {name: value for name, value in answer.items() if isinstance(value, dict)}
        assert pbs_text.json_answer(answer["pbs_server"], answer["timestamp"], style, **sections).rstrip("\n") == out.rstrip("\n"), command
        checked += 1
    assert checked > 25


def test_old_clients_swallow_what_follows_an_empty_variable():
    new, old = (json.loads(next(out for file, command, out, *_ in captures() if file == "json_running.txt" and command.startswith(who)))
                for who in ("qstat -x -f -F json", "/opt/pbs-v23"))
    job = "5746.pbsctl"
    assert pbs_text.swallow_empty(new["Jobs"][job]["Variable_List"]) == old["Jobs"][job]["Variable_List"]


def test_tables():
    out, _, _ = captured("qstat 5746.pbsctl")
    assert pbs_text.TABLE_HEAD + pbs_text.table_line("5746.pbsctl", "st_run", "pbstest", "00:00:00", "R", "workq") == out
    long = pbs_text.table_line("288.pbsctl", "n" + "0" * 200, "pbstest", "0", "R", "workq")
    assert long == "288.pbsctl        n00000000000000* pbstest                  0 R workq           \n"


def test_one_line_per_job():
    for file, command, out, *_ in captures():
        if file == "json_running.txt" and "-F dsv" in command:
            line = out
    answer = json.loads(next(out for file, command, out, *_ in captures() if file == "json_running.txt" and command.startswith("qstat -x -f -F json")))
    assert pbs_text.dsv("5746.pbsctl", answer["Jobs"]["5746.pbsctl"]) == line


class Pbs:
    def __init__(self, directory):
        self.directory = directory

    def admin(self, *words):
        subprocess.run([HERE / "pbs_lookalike.py", words[0], self.directory, *words[1:]], check=True)

    def run(self, *words, timeout=20):
        run = subprocess.run(words, env={"PATH": f"{self.directory}/bin:/usr/bin:/bin", "HOME": "/tmp"}, cwd=self.directory,
                             capture_output=True, text=True, timeout=timeout)
        return run.stdout, run.stderr, run.returncode

    def sub(self, text, *options):
        script = self.directory / "script.sh"
        script.write_text(text)
        out, err, code = self.run("qsub", *options, str(script))
        assert code == 0, err
        return out.strip()

    def job(self, job_id):
        return json.loads(self.run("qstat", "-x", "-f", "-F", "json", job_id)[0])["Jobs"][job_id]

    def wait(self, job_id, state):
        deadline = time.monotonic() + 30
        while (found := self.job(job_id))["job_state"] != state:
            assert time.monotonic() < deadline, f"{job_id} is {found['job_state']}, not {state}"
            time.sleep(0.05)
        return found


@pytest.fixture
def pbs(tmp_path):
    (tmp_path / "d").mkdir()
    made = Pbs(tmp_path / "d")
    made.admin("up", "--node-fail-requeue", "1", "--kill-delay", "1")
    yield made
    made.admin("down")


@pytest.mark.parametrize("command", [
    "qsub -q nosuchq ok.sh", "qsub -q closedq ok.sh", "qsub -q aclq ok.sh", "qsub -l nosuchres=1 ok.sh",
    "qsub -l select=1:nosuchres=1 ok.sh", "qsub -l select=1:ncpus=abc ok.sh", "qsub -l walltime=banana ok.sh",
    "qsub -q short -l walltime=01:00:00 ok.sh", "qsub -q small -l select=2:ncpus=1 ok.sh", "qsub -q small -l select=1:ncpus=6 ok.sh",
    "qsub -l select=1 -l ncpus=2 ok.sh", "qsub -l place=bogus -l select=1 ok.sh", "qsub nosuchfile.sh", "qsub /home",
    "qsub -N 'has space' ok.sh", "qsub -N a/b ok.sh", "qsub -r x ok.sh", "qsub -Q ok.sh", "qsub -W depend=bogus ok.sh"[:0] or "qsub -l select=0 ok.sh",
    "qdel 99999", "qdel 99999.pbsctl 98888", "qdel bogus", "qdel 1.otherserver", "qdel", "qstat 99999", "qstat bogus", "qstat 49.otherhost",
])
def test_refusals(pbs, command):
    (pbs.directory / "ok.sh").write_text("echo hi\n")
    real = command.replace("'", '"')
    expected = captured(real) if any(text == real for _, text, *_ in captures()) else captured(command.replace("a/b", '"a/b"'))
    assert pbs.run("/bin/sh", "-c", command) == expected


def test_a_server_that_is_down(pbs):
    pbs.admin("server", "kill")
    (pbs.directory / "ok.sh").write_text("echo hi\n")
    assert pbs.run("qsub", "ok.sh") == captured("qsub -- /bin/true")[:3] or pbs.run("qsub", "ok.sh")[1:] == ("Connection refused\nqsub: cannot connect to server pbsctl (errno=15010)\n", 162)
    for command in ("qdel 320", "qselect", "qstat"):
        assert pbs.run(*command.split()) == next((o, e, int(c)) for f, text, o, e, c in captures() if f == "server_down.txt" and text == command)
    out, err, code = pbs.run("qstat", "-E", "-x", "-f", "-F", "json", "320", "321")
    real = captured("qstat -E -x -f -F json 320 321")
    assert (re.sub(r"\d{10}", "T", out), err, code) == (re.sub(r"\d{10}", "T", real[0]), *real[1:])


def test_a_server_that_is_frozen_keeps_every_client_waiting(pbs):
    pbs.admin("server", "freeze")
    with pytest.raises(subprocess.TimeoutExpired):
        pbs.run("qstat", timeout=1)
    pbs.admin("server", "thaw")
    assert pbs.run("qstat") == ("", "", 0)


def test_without_history_a_finished_job_is_unknown_and_x_is_no_error(pbs):
    pbs.admin("history", "off")
    job = pbs.sub("exit 3\n")
    while pbs.run("qstat", job)[2] == 0:
        pass
    assert pbs.run("qstat", job) == ("", f"qstat: Unknown Job Id {job}\n", 153)
    assert pbs.run("qstat", "-x", job) == ("", f"qstat: PBS is not configured to maintain job history {job}\n", 0)
    out, err, code = pbs.run("qstat", "-E", "-x", "-f", "-F", "json", job, "25")
    assert "Jobs" not in json.loads(out) and code == 0 and "not configured" in err
    assert pbs.run("qdel", job) == ("", f"qdel: Unknown Job Id {job}\n", 153)


def test_many_ids_print_the_first_only_unless_asked_at_once(pbs):
    jobs = [pbs.sub("sleep 60\n") for _ in range(3)]
    assert list(json.loads(pbs.run("qstat", "-f", "-F", "json", *jobs)[0])["Jobs"]) == jobs[:1]
    out, err, code = pbs.run("qstat", "-E", "-f", "-F", "json", "99999", *jobs)
    assert (list(json.loads(out)["Jobs"]), err, code) == (jobs, "", 0)


def test_how_jobs_end(pbs):
    fine, failed = pbs.sub("true\n"), pbs.sub("exit 7\n")
    slow = pbs.sub("#!/bin/bash\nsleep 60\n", "-l", "walltime=00:00:01")
    deleted = pbs.sub("sleep 60\n")
    pbs.wait(deleted, "R")
    assert pbs.run("qdel", deleted) == ("", "", 0)
    for job, state, code, words in ((fine, 92, 0, "and finished"), (failed, 93, 7, "and failed"), (deleted, 91, 271, "and terminated by root@pbsctl"),
                                    (slow, 93, -29, "and exceeded resource walltime")):
        found = pbs.wait(job, "F")
        assert (found["substate"], found["Exit_status"]) == (state, code), found
        assert found["comment"].endswith(words)
    held = pbs.sub("true\n", "-h")
    pbs.run("qdel", held)
    assert "Exit_status" not in pbs.job(held) and pbs.job(held)["substate"] == 91


def test_a_mom_that_is_lost(pbs):
    again = pbs.sub("sleep 60\n", "-l", "select=1:ncpus=8")
    never = pbs.sub("sleep 60\n", "-l", "select=1:ncpus=8", "-r", "n")
    pbs.wait(never, "R")
    hosts = [pbs.job(job)["exec_host"][4] for job in (again, never)]
    for number in hosts:
        pbs.admin("mom", number, "kill")
    assert pbs.wait(never, "F")["Exit_status"] == -20
    assert pbs.job(again)["run_count"] >= 1 and pbs.job(again)["job_state"] in "QR"
