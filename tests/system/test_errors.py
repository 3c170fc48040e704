"""Bad input gets an answer that says what failed, on what, and what to do."""

import json

import pytest


def test_unknown_endpoint_names_those_that_are_there(here):
    run = here.farcall("run", "-e", "hre", "--", "true", ok=False)
    assert run.returncode == 66
    assert 'no endpoint "hre"' in run.stderr and "here" in run.stderr


def test_no_identity(site):
    run = site.farcall("endpoint", "list", ok=False)
    assert run.returncode != 0
    assert "no identity" in run.stderr and "farcall relay start" in run.stderr and "farcall login" in run.stderr


def test_unreachable_relay(site):
    site.start_relay()
    address = site.relay_address()
    site.farcall("relay", "stop")
    run = site.farcall("endpoint", "list", ok=False)
    assert run.returncode == 69
    assert f"cannot reach the relay at {address}: connection refused" in run.stderr
    assert "farcall relay" in run.stderr


def test_wrong_server_key(site):
    site.start_relay()
    identity = json.loads((site.home / "identity").read_text())
    identity["server_key"] = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
    (site.home / "identity").write_text(json.dumps(identity))
    run = site.farcall("endpoint", "list", ok=False)
    assert run.returncode == 77
    assert "not with the server key that is expected" in run.stderr


def test_unknown_client_key(site):
    site.start_relay()
    identity = json.loads((site.home / "identity").read_text())
    # A valid pair (from ZeroMQ's documentation) that the relay has not enrolled.
    identity["public_key"] = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
    identity["secret_key"] = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"
    (site.home / "identity").write_text(json.dumps(identity))
    run = site.farcall("endpoint", "list", ok=False)
    assert run.returncode == 77
    assert "is not known at this relay" in run.stderr and "farcall relay invite NAME" in run.stderr and "farcall login" in run.stderr


def test_a_key_file_that_others_can_read(site):
    site.start_relay()
    (site.home / "identity").chmod(0o644)
    run = site.farcall("endpoint", "list", ok=False)
    assert run.returncode == 77
    assert "has mode 0644; expected 0600" in run.stderr


def test_invitation_works_once(site):
    from conftest import Site

    site.start_relay()
    invitation = site.json("relay", "invite", "ann")["invitation"]
    ann = Site(site.home / "ann")
    ann.farcall("login", invitation)
    assert ann.json("whoami")["user"] == "ann"
    bob = Site(site.home / "bob")
    run = bob.farcall("login", invitation, ok=False)
    assert run.returncode == 77 and "the invitation is not known: it was used" in run.stderr


def test_yaml_errors_come_all_at_once_with_their_place(here):
    config = here.home / "endpoints" / "here" / "config.yaml"
    here.farcall("endpoint", "stop", "here")
    config.write_text("engine:\n  max_worker_per_node: 2\n  provider:\n    type: LocalProvider\n    max_blocks: many\n    walltme: 10\n")
    run = here.farcall("endpoint", "start", "here", ok=False)
    assert run.returncode == 78
    for line in (
        f"{config}:2:3: unknown key 'engine.max_worker_per_node'; did you mean 'engine.max_workers_per_node'?",
        f"{config}:5:17: 'engine.provider.max_blocks' is 'many', expected a whole number",
        f"{config}:6:5: unknown key 'engine.provider.walltme'; did you mean 'engine.provider.walltime'?",
    ):
        assert line in run.stderr


def test_a_function_that_raises(here, tmp_path):
    module = tmp_path / "f.py"
    module.write_text("def f(x):\n    raise KeyError(x)\n")
    run = here.farcall("call", "-e", "here", f"{module}:f", '"k"', ok=False)
    assert run.returncode == 1
    assert "Traceback (most recent call last)" in run.stderr and "KeyError: 'k'" in run.stderr and "line 2, in f" in run.stderr


def test_a_worker_that_is_killed(here):
    from farcall import Executor, errors

    def die():
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    with Executor("here") as executor:
        error = executor.submit(die).exception(60)
    assert isinstance(error, errors.WorkerCrashed)
    assert "killed by signal 9" in str(error)


def test_a_result_that_cannot_be_pickled(here):
    from farcall import Executor

    def generator():
        return (i for i in range(3))

    with Executor("here") as executor:
        error = executor.submit(generator).exception(60)
    assert "cannot be pickled" in str(error) and "generator" in str(error)


def test_a_command_that_is_not_found(here):
    run = here.farcall("run", "-e", "here", "--", "no-such-command", ok=False)
    assert run.returncode == 127
    assert "command 'no-such-command' was not found on" in run.stderr and "PATH=" in run.stderr


def test_a_function_file_that_is_not_there(here, tmp_path):
    run = here.farcall("call", "-e", "here", f"{tmp_path}/none.py:f", ok=False)
    assert run.returncode == 66
    assert "none.py" in run.stderr


def test_a_command_without_the_two_dashes(site):
    run = site.farcall("run", "-e", "here", "ls", "-l", ok=False)
    assert run.returncode == 64
    assert "'-l'" in run.stderr and "put -- before that" in run.stderr and "farcall run --help" in run.stderr


@pytest.mark.parametrize("words", [["nonsense"], ["run"], ["endpoint", "fly"], ["map", "--bad"]], ids=" ".join)
def test_bad_commands_point_to_the_help(site, words):
    run = site.farcall(*words, ok=False)
    assert run.returncode == 64
    assert "--help" in run.stderr


def test_the_help_has_examples(site):
    for words in (["run"], ["endpoint", "configure"], ["map"], ["task", "list"], ["group", "results"], ["relay", "start"], ["call"], ["submit"]):
        text = site.farcall(*words, "--help").stdout
        assert "farcall" in text and ("xample" in text), words

