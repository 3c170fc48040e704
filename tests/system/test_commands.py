"""Commands about functions, groups, endpoints and the relay: what they print, as text and as JSON, and what they refuse."""

import re
import subprocess

import pytest
from conftest import BUILD, wait_for


@pytest.fixture
def shapes(tmp_path):
    file = tmp_path / "shapes.py"
    file.write_text("def area(w, h): return w * h\n")
    return file


def refused(site, code, text, *words):
    run = site.farcall(*words, ok=False)
    assert run.returncode == code and text in run.stderr and run.stdout == "", (run.returncode, run.stdout, run.stderr)


def test_functions_are_listed_shown_and_deleted(here, shapes):
    id = here.farcall("function", "register", f"{shapes}:area").stdout.strip()
    assert here.farcall("function", "register", f"{shapes}:area").stdout.strip() == id, "the same content has the same id"
    head, row = here.farcall("function", "list").stdout.splitlines()
    assert head.split()[:3] == ["NAME", "KIND", "BYTES"] and row.split()[:2] == ["area", "python"] and row.endswith(id)
    (listed,) = here.json("function", "list")["functions"]
    assert (listed["function_id"], listed["name"], listed["kind"]) == (id, "area", "python") and listed["meta"]["file"] == "shapes.py"
    assert here.farcall("function", "show", id).stdout.endswith("\n\n" + shapes.read_text())
    assert here.json("function", "show", id)["body"] == {"entry": "area", "source": shapes.read_text()}
    assert f"function {id} deleted" in here.farcall("function", "delete", id).stdout
    assert here.json("function", "list")["functions"] == []
    refused(here, 66, f"no function {id} of ", "function", "show", id)
    refused(here, 66, f"no function {id} of ", "function", "delete", id)


def test_groups_are_listed_and_counted(here):
    assert here.json("group", "list") == {"groups": []}
    refused(here, 66, 'no group "night": nothing was submitted under that name; see `farcall group list`', "group", "status", "night")
    here.farcall("submit", "-e", "here", "--group", "night", "--count", "3", "--", "true")
    here.farcall("submit", "-e", "here", "--group", "night", "--", "sleep", "3600")
    wait_for(lambda: here.json("group", "status", "night")["succeeded"] == 3, "the short ones to end")
    status = here.json("group", "status", "night")
    assert status == {"group": "night", "submissions": 2, "tasks": 4, "succeeded": 3, "failed": 0, "cancelled": 0, "pending": 1}
    assert here.json("group", "list") == {"groups": [status]}
    head, row = here.farcall("group", "status", "night").stdout.splitlines()
    assert dict(zip(head.split(), row.split())) == {name.upper(): str(value) for name, value in status.items()}
    assert here.farcall("group", "list").stdout.splitlines() == [head, row]
    here.farcall("group", "cancel", "night")
    wait_for(lambda: here.json("group", "status", "night")["pending"] == 0, "the long one to end only if it is killed or never begun")


def test_an_endpoint_is_started_again_looked_at_and_deleted(here):
    before = here.pid_of("endpoints/here/interchange.pid")
    here.farcall("run", "-e", "here", "--", "true")
    restarted = here.farcall("endpoint", "restart", "here").stdout
    after = here.pid_of("endpoints/here/interchange.pid")
    assert restarted == f"endpoint here started (pid {after})\n" and after != before
    assert here.farcall("run", "-e", "here", "--", "echo", "again").stdout == "again\n"
    log = (here.home / "endpoints/here/interchange.log").read_text().splitlines()
    lines = here.farcall("endpoint", "logs", "here", "-n", "3").stdout.splitlines()
    assert len(lines) == 3 and lines[0] in log and all(re.match(r"\d{4}-\d\d-\d\dT\S+Z [A-Z]+ ", line) for line in lines)
    refused(here, 66, 'no endpoint "none" is configured in ', "endpoint", "restart", "none")
    refused(here, 75, "endpoint here runs: `farcall endpoint stop here` first, or --force", "endpoint", "delete", "here")
    assert [endpoint["name"] for endpoint in here.json("endpoint", "list")["endpoints"]] == ["here"]
    assert here.farcall("endpoint", "delete", "here", "--force").stdout == "endpoint here deleted\n"
    here.endpoints.remove("here")
    assert here.json("endpoint", "list")["endpoints"] == [] and not (here.home / "endpoints/here").exists()
    assert not here.pilots()


def test_the_relay_says_whether_it_answers(site):
    run = site.farcall("relay", "status", ok=False)
    assert run.returncode != 0 and "farcall relay start" in run.stdout + run.stderr
    site.start_relay()
    address = site.relay_address()
    status = site.json("relay", "status")
    assert status["reachable"] and status["address"] == address and status["local_pid"] == site.pid_of("relay/relay.pid")
    text = site.farcall("relay", "status").stdout
    assert text.startswith(f"relay {address} answers: farcall-relay ") and f"pid {status['local_pid']} on this host" in text
    site.farcall("relay", "stop")
    stopped = site.farcall("relay", "status", ok=False)
    assert stopped.returncode == 69 and stopped.stdout == f"the relay of {site.home} does not run; start it with `farcall relay start`\n"


def test_completion_knows_the_commands_and_their_options(site):
    script = site.farcall("completion", "bash").stdout

    def completed(line):
        words = line.split(" ")
        ask = f"COMP_WORDS=({' '.join(words[:-1])} '{words[-1]}'); COMP_CWORD={len(words) - 1}; _farcall; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        run = subprocess.run(["bash", "-c", script + "\n" + ask], capture_output=True, text=True, check=True, env={"PATH": f"{BUILD}/bin:/usr/bin:/bin"})
        return set(run.stdout.split())

    assert {"relay", "endpoint", "function", "run", "group"} <= completed("farcall ")
    assert completed("farcall endpoint st") == {"start", "stop", "status"}
    assert "--lines" in completed("farcall endpoint logs --")
    refused(site, 64, "there is a completion for bash only, not for zsh", "completion", "zsh")
