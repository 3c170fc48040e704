"""Large results and files of tasks at their endpoints: listed, released, expired, lost."""

import os
import sqlite3
import time

import pytest

from conftest import wait_for

MIB = 1024 * 1024
DAY_S = 86400


def leave(size, files=1):
    import os

    for i in range(files):
        with open("out%d.h5" % i, "wb") as file:
            file.write(b"%d" % i * 100_000)
    return os.urandom(size)


def results_in(site):
    folder = site.home / "endpoints/here/results"
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


@pytest.fixture
def executor(here):
    import farcall

    with farcall.Executor("here", result="reference") as executor:
        yield executor


def test_what_is_stored_is_listed_and_released(here, executor):
    import farcall

    executor.outputs = ["*.h5"]
    ref = executor.submit(leave, 3 * MIB, 2)
    value = ref.result(60).fetch()
    small = farcall.Executor("here").submit(len, b"small")
    assert small.result(60) == 5
    client = executor.client
    found = sorted(client.stored("here"), key=lambda one: (one["kind"], one["name"]))
    assert [(one["kind"], one["name"], one["task_id"]) for one in found] == [
        ("file", "out0.h5", ref.task_id),
        ("file", "out1.h5", ref.task_id),
        ("result", "", ref.task_id),
    ]
    assert [one["bytes"] for one in found] == [100_000, 100_000, found[2]["bytes"]] and found[2]["bytes"] > 3 * MIB
    assert all(one["there"] and one["state"] == "there" and one["endpoint"] == "here" for one in found)
    # `staging.result_ttl`; a value that is only referred to is not collected, and stays as long at the relay.
    assert all(29.9 * DAY_S * 1000 < one["expires_ms"] - time.time() * 1000 < 30.1 * DAY_S * 1000 for one in found)
    listed = here.json("task", "list", "--stored")
    assert (listed["count"], listed["bytes"]) == (3, sum(one["bytes"] for one in found)) and listed["not_connected"] == []
    assert sorted(listed["stored"], key=lambda one: (one["kind"], one["name"])) == found
    text = here.farcall("task", "list", "--stored", "-e", "here").stdout
    assert text.splitlines()[0].split() == ["TASK", "WHAT", "ENDPOINT", "SIZE", "WRITTEN", "EXPIRES", "STATE"]
    assert f"{ref.task_id}  file out0.h5  here      97 KiB" in text and "\n3 there, 3" in text
    assert len(list(client.stored(page_size=1))) == 3

    assert client.release([ref.task_id, small.task_id]) == {"files": 3, "bytes": listed["bytes"]}
    assert client.release(ref.task_id) == {"files": 0, "bytes": 0}
    assert results_in(here) == []
    with farcall.Client() as other:
        released = r"the result of task %s, .* cannot be had: .*/results/%s\..*\.h5 was released by its owner on 20.* UTC: run the task again"
        with pytest.raises(farcall.NotFound, match=released % (ref.task_id, ref.task_id)) as caught:
            other.get_result(ref.task_id, timeout=60)
        assert not isinstance(caught.value, farcall.ResultLost)
        assert other.task_status(ref.task_id)["state"] == "succeeded"
    assert len(value) == 3 * MIB
    listed = here.json("task", "list", "--stored")
    assert (listed["count"], listed["bytes"]) == (0, 0) and {one["state"] for one in listed["stored"]} == {"released"}
    assert "released 20" in here.farcall("task", "list", "--stored").stdout


def test_release_by_the_command(here, executor):
    executor.task_group_id = "night"
    refs = [future.result(60) for future in [executor.submit(leave, 2 * MIB) for _ in range(3)]]
    executor.task_group_id = "day"
    day = executor.submit(leave, 2 * MIB).result(60)
    run = here.farcall("task", "release", refs[0].task_id)
    assert run.stdout.startswith("1 files removed, ")
    assert here.json("task", "release", "--group", "night")["files"] == 2
    assert here.farcall("task", "release", "-g", "night").stdout == "0 files removed, 0 B\n"
    (left,) = results_in(here)
    assert left.name.startswith(day.task_id)
    for words in (["task", "release"], ["task", "release", day.task_id, "-g", "night"]):
        run = here.farcall(*words, ok=False)
        assert run.returncode == 64 and "needs task ids or --group GROUP, one of both" in run.stderr
    run = here.farcall("task", "list", "--stored", "--state", "failed", ok=False)
    assert run.returncode == 64 and "--stored goes with --endpoint only, not with --state" in run.stderr
    assert "--stored" in here.farcall("completion", "bash").stdout and " release" in here.farcall("completion", "bash").stdout
    assert "farcall task list --stored -e mycluster" in here.farcall("task", "list", "--help").stdout


def test_an_endpoint_that_is_away_is_said_to_be(here, executor):
    import farcall

    ref = executor.submit(leave, 2 * MIB).result(60)
    here.farcall("endpoint", "stop", "here")
    listed = here.json("task", "list", "--stored")
    assert (listed["stored"], listed["not_connected"]) == ([], ["here"])
    assert "endpoint here is not connected: what it keeps is not known" in here.farcall("task", "list", "--stored").stdout
    run = here.farcall("task", "list", "--stored", "-e", "here", ok=False)
    assert run.returncode == 69 and "endpoint here is not connected" in run.stderr
    run = here.farcall("task", "release", ref.task_id, ok=False)
    assert run.returncode == 69 and "endpoint here is not connected: what it keeps of these tasks stays; release them again" in run.stderr
    client = executor.client
    (away,) = client.stored()
    assert (away["endpoint"], away["task_id"], away["there"], away["state"]) == ("here", None, None, "not connected")
    with pytest.raises(farcall.Unreachable, match="endpoint here is not connected: what it keeps of these tasks stays, release them again"):
        client.release(ref.task_id)
    with pytest.raises(farcall.Unreachable):
        list(client.stored("here"))
    here.farcall("endpoint", "start", "here")
    assert client.release(ref.task_id)["files"] == 1


def test_an_interchange_cleans_up_when_it_starts(here, executor):
    """After a crash as well: what is too old, and what a writer left that died. Nothing else."""
    import farcall

    old, young = [executor.submit(leave, 2 * MIB).result(60) for _ in range(2)]
    folder = here.home / "endpoints/here/results"
    for name, hours in ((".t.n1.7.part", 7), (".t.n1.8.part", 0)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - hours * 3600,) * 2)
    (file,) = [path for path in results_in(here) if path.name.startswith(old.task_id)]
    os.utime(file, (time.time() - 31 * DAY_S,) * 2)
    here.kill("endpoints/here/interchange.pid")
    here.farcall("endpoint", "start", "here")
    wait_for(lambda: not file.exists() and not (folder / ".t.n1.7.part").exists(), "what is old to go")
    assert (folder / ".t.n1.8.part").exists()
    expired = "the result of task %s, .* cannot be had: %s was removed on 20.* UTC, 31 days after it was written .`staging.result_ttl` of the endpoint.: run the task again"
    with pytest.raises(farcall.ResultLost, match=expired % (old.task_id, file)) as caught:
        old.fetch()
    assert isinstance(caught.value, farcall.NotFound) and caught.value.code == "result_lost"
    assert len(young.fetch()) == 2 * MIB
    states = {one["task_id"]: one["state"] for one in executor.client.stored()}
    assert states == {old.task_id: "expired", young.task_id: "there"}
    run = here.farcall("task", "result", old.task_id, ok=False)
    assert run.returncode == 66 and "31 days after it was written" in run.stderr


def test_what_is_lost_is_said_to_be_and_never_a_wrong_value(here, executor):
    import farcall

    executor.outputs = ["*.h5"]
    future = executor.submit(leave, 2 * MIB)
    ref, (output,) = future.result(60), future.outputs
    plain, result = sorted(results_in(here), key=lambda path: path.suffix == ".h5")
    with open(result, "r+b") as file:
        file.seek(MIB)
        file.write(b"damaged")
    with pytest.raises(farcall.ResultLost, match=r"the result of task %s, .* %s: payload/bytes is damaged: .*: run the task again" % (ref.task_id, result)):
        ref.fetch()
    content = plain.read_bytes()
    plain.write_bytes(b"1" + content[1:])  # as long as it was
    with pytest.raises(farcall.ResultLost, match="it is damaged at its endpoint: .*; run the task again"):
        output.save(here.home / "copy")
    assert not (here.home / "copy").exists()
    os.truncate(plain, 10)
    with pytest.raises(farcall.ResultLost, match=r"%s holds 10 bytes, expected 100000: run the task again" % plain):
        output.save(here.home / "copy")
    plain.unlink()
    result.unlink()
    for lost in (ref.fetch, lambda: output.save(here.home / "copy")):
        with pytest.raises(farcall.ResultLost, match="there is no result .* in .*/results: its file was removed by somebody else.*; run the task again"):
            lost()


@pytest.mark.parametrize("endpoint_is_away", [False, True])
def test_they_go_with_their_submission(here, executor, endpoint_is_away):
    """What the relay forgets is removed at the endpoint; here its clock is 40 days ahead of a submission."""
    over = executor.submit(leave, 2 * MIB).result(60)
    with executor.__class__("here", result="reference") as another:
        kept = another.submit(leave, 2 * MIB).result(60)
    address = here.relay_address()
    here.farcall("relay", "stop")
    if endpoint_is_away:
        here.farcall("endpoint", "stop", "here")
    (database,) = (here.home / "relay").glob("*.db")
    with sqlite3.connect(database) as store:
        ago = int((time.time() - 40 * DAY_S) * 1000)
        prefix = bytes.fromhex(over.task_id.replace("-", "")[:24])
        changed = store.execute("UPDATE submission SET finished_ms = ?, collected_ms = ? WHERE substr(id, 1, 12) = ?", (ago, ago, prefix))
        assert changed.rowcount == 1
    store.close()
    here.start_relay(address)
    if endpoint_is_away:
        wait_for(lambda: here.farcall("task", "status", over.task_id, ok=False).returncode == 66, "the relay to forget it")
        assert len(results_in(here)) == 2
        here.farcall("endpoint", "start", "here")
    wait_for(lambda: len(results_in(here)) == 1, "its result to go")
    assert results_in(here)[0].name.startswith(kept.task_id)
    assert here.farcall("task", "status", over.task_id, ok=False).returncode == 66


def test_arguments_of_a_command_that_are_too_large_name_the_way_out(here):
    import farcall

    with farcall.Executor("here") as executor:
        echo = farcall.ShellFunction("wc -c {name}")
        text = r"the arguments of a task have \d+ bytes; in a message this relay takes 8388608"
        way = r": a command can have what is large as a file \(farcall.File, `farcall run --input`\)"
        with pytest.raises(farcall.TooLarge, match=text + way):
            executor.submit(echo, name="x" * (9 * MIB)).result(60)
        (here.home / "large").write_bytes(b"x" * (9 * MIB))
        assert executor.submit(echo, name=farcall.File(here.home / "large")).result(60).stdout.split()[0] == str(9 * MIB)
