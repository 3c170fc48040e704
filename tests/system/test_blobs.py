"""Arguments larger than what travels inline: through relay and endpoint to the workers, as blobs."""

import hashlib
import json
import os
import signal
import subprocess
import sys

import h5py
import numpy
import pytest

from conftest import ROOT, wait_for

sys.path.insert(0, str(ROOT / "tests" / "support"))
from tcp_proxy import Proxy  # noqa: E402

MIB = 1024 * 1024


def blobs_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and len(path.name) == 64)


def relay_blobs(site):
    return blobs_of(site.home / "relay" / "blobs")


def endpoint_blobs(site, name="here"):
    return blobs_of(site.home / "endpoints" / name / "blobs")


def digest(data):
    import hashlib  # the worker has this function alone

    return hashlib.sha256(memoryview(data).cast("B")).hexdigest()


def summed(array, factor=1):
    return float(array.sum()) * factor, array.shape, str(array.dtype), bool(array.flags.writeable)


@pytest.fixture
def executor(here):
    import farcall

    with farcall.Executor("here") as executor:
        yield executor


def test_large_arguments_are_exact_and_small_ones_stay_inline(here, executor):
    import farcall

    block = os.urandom(5 * MIB + 17)
    assert executor.submit(digest, block).result(60) == hashlib.sha256(block).hexdigest()
    array = numpy.arange(1_000_000, dtype="<f8").reshape(1000, 1000)
    assert executor.submit(summed, array, factor=2).result(60) == (array.sum() * 2, (1000, 1000), "float64", True)
    assert len(relay_blobs(here)) == 2
    assert executor.submit(len, b"x" * 1000).result(60) == 1000
    assert len(relay_blobs(here)) == 2
    text = "ä" * 100_000
    assert executor.submit(lambda data: data["text"][-1] * data["n"], {"text": text, "n": 3}).result(60) == "äää"
    # Many small ones that are large together.
    assert executor.submit(sum, list(range(100_000))).result(60) == sum(range(100_000))
    with farcall.Client(data_serialization_strategy="json") as client:
        function = client.register_function(len)
        task = client.run("a" * 200_000, endpoint_id="here", function_id=function)
        assert client.get_result(task, timeout=60) == 200_000


def test_a_shared_argument_is_stored_once_everywhere(here, executor):
    array = numpy.random.default_rng(1).random(2_000_000)
    stored = executor.client.put(array)
    futures = [executor.submit(lambda a, i: float(a[i]), stored, i) for i in range(200)]
    assert [future.result(60) for future in futures] == [array[i] for i in range(200)]
    assert len(relay_blobs(here)) == len(endpoint_blobs(here)) == 1
    assert stored.nbytes == relay_blobs(here)[0].stat().st_size == endpoint_blobs(here)[0].stat().st_size


def read_bytes(pid):
    """What a process has read by itself, through the page cache or not."""
    with open("/proc/%d/io" % pid) as counts:
        return int(counts.readline().split()[1])


def test_many_tasks_share_an_input_that_travels_and_is_read_once(site, monkeypatch):
    """FARCALL_TEST_SHARED_MIB=200 FARCALL_TEST_SHARED_TASKS=1000 for the real thing."""
    import farcall

    size = int(os.environ.get("FARCALL_TEST_SHARED_MIB", "20")) * MIB
    count = int(os.environ.get("FARCALL_TEST_SHARED_TASKS", "200"))
    site.start_relay()
    proxy = Proxy(site.relay_address())
    identity = site.home / "identity"
    direct = identity.read_text()
    identity.write_text(json.dumps(dict(json.loads(direct), relay=proxy.address)))
    site.endpoint("here")
    identity.write_text(direct)
    monkeypatch.setenv("FARCALL_HOME", str(site.home))

    def reads(array, i):
        with open("/proc/self/io") as counts:
            return float(array[i]), int(counts.readline().split()[1]), __import__("os").getpid()

    array = numpy.random.default_rng(1).random(size // 8)
    with farcall.Executor("here") as executor:
        assert executor.submit(len, b"warm").result(60) == 4
        (pilot,) = site.pilots()
        before, read_before = proxy.down, read_bytes(pilot)
        shared = executor.client.put(array)
        answers = [future.result(300) for future in [executor.submit(reads, shared, i) for i in range(count)]]
        assert [value for value, _read, _pid in answers] == array[:count].tolist()
        read = read_bytes(pilot) - read_before
        workers = {pid: most for _value, most, pid in answers}
        print("MiB to the endpoint", (proxy.down - before) / MIB, "read by the pilot", read / MIB, "by its workers", sum(workers.values()) / MIB)
        assert size <= proxy.down - before < size * 1.05 + count * 2000
        assert size <= read < size * 1.05 + 16 * MIB
        assert sum(workers.values()) < len(workers) * 16 * MIB  # they map it
    proxy.close()


def test_a_change_to_an_argument_stays_with_its_task(here, executor):
    array = numpy.zeros(100_000)
    stored = executor.client.put(array)

    def change(a):
        before = float(a.sum())
        a += 1
        return before

    assert [executor.submit(change, stored).result(60) for _ in range(4)] == [0.0] * 4


def test_a_stored_value_within_another_argument_is_refused(here, executor):
    import farcall

    stored = executor.client.put(b"x" * 100_000)
    with pytest.raises(farcall.SerializationError, match="has to be an argument of its own"):
        executor.submit(len, [stored])


def test_a_large_function_is_a_blob(here, executor):
    pytest.importorskip("cloudpickle")
    table = os.urandom(300_000)

    def lookup(i):
        return table[i]

    assert [executor.submit(lookup, i).result(60) for i in (0, 299_999)] == [table[0], table[299_999]]
    assert len(relay_blobs(here)) == len(endpoint_blobs(here)) == 1


def test_kills_on_the_way_cost_nothing(here):
    """Relay and interchange are killed while it travels; the task runs with the right bytes."""
    import farcall

    block = os.urandom(64 * MIB)
    with farcall.Executor("here") as executor:
        address = here.relay_address()
        here.kill("relay/relay.pid")
        here.start_relay(address)
        stored = executor.client.put(block)
        here.kill("relay/relay.pid")
        here.start_relay(address)
        future = executor.submit(digest, stored)
        wait_for(lambda: list((here.home / "endpoints/here/blobs").glob("*")), "the endpoint to begin to fetch it")
        here.kill("endpoints/here/interchange.pid")
        here.farcall("endpoint", "start", "here")
        assert future.result(120) == hashlib.sha256(block).hexdigest()


def test_a_damaged_file_of_the_endpoint_is_fetched_again(here, executor):
    data = os.urandom(3 * MIB)
    stored = executor.client.put(data)
    assert executor.submit(len, stored).result(60) == len(data)
    (file,) = endpoint_blobs(here)
    # Another pilot will read it: this one has read and checked it.
    for pid in here.pilots():
        os.kill(pid, signal.SIGKILL)
    with open(file, "r+b") as handle:
        handle.seek(MIB)
        byte = handle.read(1)
        handle.seek(MIB)
        handle.write(bytes([byte[0] ^ 1]))
    assert executor.submit(digest, stored).result(120) == hashlib.sha256(data).hexdigest()


def test_what_is_missing_at_the_relay_fails_its_task_alone(here, executor):
    import farcall

    data = os.urandom(MIB)
    stored = executor.client.put(data)
    (file,) = relay_blobs(here)
    file.unlink()
    future = executor.submit(len, stored)
    with pytest.raises(farcall.TaskExecutionFailed, match="could not be brought to .* blob %s" % stored.hash) as caught:
        future.result(120)
    assert caught.value.failure_class == "environment"
    assert caught.value.remote_type == "InputUnavailable"
    assert executor.submit(len, b"y" * 200_000).result(60) == 200_000
    assert executor.client.put(data) == stored  # sent again, it is there again
    assert executor.submit(len, stored).result(60) == MIB


def test_a_relay_that_cannot_write_says_so_and_recovers(here, executor):
    import farcall

    folder = here.home / "relay" / "blobs"
    folder.rmdir()
    folder.write_text("in the way")
    with pytest.raises(farcall.FarcallError, match="could not keep 100000 bytes: .*relay/blobs"):
        executor.submit(len, b"x" * 99_990)
    assert executor.submit(len, b"small").result(60) == 5
    folder.unlink()
    assert executor.submit(len, b"x" * 99_990).result(60) == 99_990


def test_the_cache_of_the_endpoint_keeps_to_its_limit(site, monkeypatch):
    import farcall

    site.start_relay()
    site.endpoint("here", **{"blob_cache_mib": 8})
    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    with farcall.Executor("here") as executor:
        for i in range(6):
            assert executor.submit(len, bytes([i]) * (3 * MIB)).result(60) == 3 * MIB
        wait_for(lambda: sum(file.stat().st_size for file in endpoint_blobs(site)) <= 8 * MIB, "the cache to shrink")
        assert executor.submit(len, bytes([0]) * (3 * MIB)).result(60) == 3 * MIB


def resident_mib(pid):
    """The most that a process has had in memory of its own and of files."""
    for line in open("/proc/%d/status" % pid):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


def farcall_processes(site):
    return {
        "relay": site.pid_of("relay/relay.pid"),
        "interchange": site.pid_of("endpoints/here/interchange.pid"),
        **{"pilot %d" % pid: pid for pid in site.pilots()},
    }


def test_ten_cuts_on_the_way_both_ways_in_bounded_memory(site, monkeypatch):
    """FARCALL_TEST_BLOB_MIB=4096 for the real thing."""
    import farcall

    size = int(os.environ.get("FARCALL_TEST_BLOB_MIB", "48")) * MIB
    site.start_relay()
    proxy, endpoint_proxy = Proxy(site.relay_address()), Proxy(site.relay_address())
    identity = site.home / "identity"
    identity.write_text(json.dumps(dict(json.loads(identity.read_text()), relay=endpoint_proxy.address)))
    site.endpoint("here")
    monkeypatch.setenv("FARCALL_HOME", str(site.home))

    def twice(array):
        import numpy

        return numpy.asarray(array) ^ 1  # as large as its argument

    array = numpy.random.default_rng(5).integers(0, 2**63, size // 8, dtype="u8")
    with farcall.Client(relay=proxy.address) as client, farcall.Executor("here", client=client) as executor:
        assert executor.submit(len, b"warm").result(60) == 4
        for one in (proxy, endpoint_proxy):
            one.cut_every(2 * size // 11)
        result = executor.submit(twice, array).result(3600)
        assert result.shape == array.shape and (result == array ^ 1).all()
        print("cuts", proxy.cuts, endpoint_proxy.cuts, "MiB through", [(p.up + p.down) // MIB for p in (proxy, endpoint_proxy)])
        for one in (proxy, endpoint_proxy):
            assert one.cuts >= 10
            # Of each cut at most a window is lost: eight chunks.
            assert one.up + one.down < 2 * size + one.cuts * 10 * MIB + 10 * MIB
        most = {name: resident_mib(pid) for name, pid in farcall_processes(site).items()}
        print("MiB resident at most", most)
        assert max(most.values()) < 256
    for one in (proxy, endpoint_proxy):
        one.close()


def results_of(site):
    return sorted((site.home / "endpoints/here/results").glob("*.h5"))


def test_large_results_stay_at_the_endpoint_until_they_are_wanted(here, executor):
    import farcall

    def fill(n, word):
        import numpy

        return {"a": numpy.full(n, word), "text": "x" * 1000}

    future = executor.submit(fill, 500_000, 7.0)
    client = executor.client
    value = future.result(60)
    assert (value["a"] == 7.0).all() and value["a"].size == 500_000 and value["text"] == "x" * 1000
    value["a"][0] = 1  # it is ours
    # It is h5py's to read where it lies, under the names that it has.
    (file,) = results_of(here)
    with h5py.File(file) as content:
        group = content[future.task_id]
        assert group["value/a"].dtype == "f8" and (group["value/a"][:] == 7.0).all()
        assert group["value/a"].fletcher32 and group["value/a"].chunks and group["value/text"][()] == b"x" * 1000
        assert file.name == "%s.%s.h5" % (future.task_id, group.attrs["blake2b"])
    header = subprocess.run(["h5dump", "-H", file], capture_output=True, text=True, check=True).stdout
    assert 'DATASET "a"' in header and "H5T_IEEE_F64LE" in header
    # Somebody who only submits leaves it there.
    function = client.register_function(fill)
    task = client.run(600_000, 2.5, endpoint_id="here", function_id=function)
    wait_for(lambda: client.task_status(task)["state"] == "succeeded", "the task")
    assert len(results_of(here)) == 2 and len(relay_blobs(here)) == 1
    with farcall.Client() as other:
        assert other.get_result(task, timeout=60)["a"][-1] == 2.5
    assert len(relay_blobs(here)) == 2
    shown = here.json("task", "result", task)
    assert shown["result"]["a"][:2] == [2.5, 2.5] and len(shown["result"]["a"]) == 600_000
    assert task in here.farcall("task", "wait", task).stdout


def test_a_result_that_is_gone_or_damaged_is_never_a_wrong_value(here, executor):
    import farcall

    client = executor.client
    function = client.register_function(os.urandom)
    tasks = []
    for _ in range(3):  # one after the other: the files are told apart by their age
        task = client.run(2 * MIB, endpoint_id="here", function_id=function)
        wait_for(lambda task=task: client.task_status(task)["state"] == "succeeded", "the task")
        tasks.append(task)
    gone, cut, damaged = sorted(results_of(here), key=lambda file: file.stat().st_mtime_ns)
    gone.unlink()
    with open(cut, "r+b") as file:
        file.truncate(MIB)
    with open(damaged, "r+b") as file:
        file.seek(MIB)
        file.write(b"damaged")
    with pytest.raises(farcall.ResultLost, match="the result of task %s, .* there is no result .*: its file was removed by somebody else" % tasks[0]):
        client.get_result(tasks[0], timeout=60)
    with pytest.raises(farcall.ResultLost, match="%s is damaged: it cannot be opened: " % cut):
        client.get_result(tasks[1], timeout=60)
    with pytest.raises(farcall.ResultLost, match="%s: payload/bytes is damaged: it cannot be read: " % damaged):
        client.get_result(tasks[2], timeout=60)
    assert executor.submit(os.urandom, 2 * MIB).result(60)


def test_no_room_for_a_result_fails_its_task_alone_and_recovers(here, executor):
    import farcall

    folder = here.home / "endpoints/here/results"
    assert len(executor.submit(bytes, 2 * MIB).result(60)) == 2 * MIB
    moved = folder.rename(folder.with_name("moved"))
    failed = executor.submit(bytes, 3 * MIB)
    with pytest.raises(farcall.EnvironmentBroken, match="the result of .*, 31457.. bytes, cannot be kept in .*/results: .*/results: No such file") as caught:
        failed.result(120)
    assert caught.value.remote_type == "ResultNotStored"
    assert executor.submit(len, b"small").result(60) == 5
    moved.rename(folder)
    assert len(executor.submit(bytes, 3 * MIB).result(60)) == 3 * MIB


def test_an_endpoint_that_is_away_keeps_its_results(here, executor):
    import farcall

    client = executor.client
    function = client.register_function(os.urandom)
    task = client.run(2 * MIB, endpoint_id="here", function_id=function)
    wait_for(lambda: client.task_status(task)["state"] == "succeeded", "the task")
    here.farcall("endpoint", "stop", "here")
    with farcall.Client(timeout_s=1) as impatient, pytest.raises(farcall.Unreachable, match="endpoint here, which is not connected"):
        impatient.get_result(task, timeout=60)
    here.farcall("endpoint", "start", "here")
    assert len(client.get_result(task, timeout=60)) == 2 * MIB


def test_references_are_read_in_slices_and_used_where_they_are(site, monkeypatch, tmp_path):
    """FARCALL_TEST_REFERENCE_MIB=1024 for the real thing."""
    import farcall

    rows = int(os.environ.get("FARCALL_TEST_REFERENCE_MIB", "32")) * MIB // 8 // 1024
    site.start_relay()
    site.endpoint("here")
    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    proxy = Proxy(site.relay_address())

    def field(rows):
        import numpy

        return numpy.arange(rows * 1024, dtype="f8").reshape(rows, 1024)

    def peak(array, row):
        return float(array[row].max()), array.shape

    with farcall.Client(relay=proxy.address) as client, farcall.Executor("here", client=client, result="reference") as executor:
        ref = executor.submit(field, rows).result(300)
        assert (ref.shape, ref.dtype, ref.nbytes) == ((rows, 1024), numpy.dtype("f8"), rows * 8192)
        expected = numpy.arange(rows * 1024, dtype="f8").reshape(rows, 1024)
        before = proxy.down
        part = ref[100:200, ::4]
        assert part.tobytes() == expected[100:200, ::4].tobytes()
        print("slice of", part.nbytes, "bytes moved", proxy.down - before)
        assert proxy.down - before < part.nbytes * 1.1 + 20_000
        assert ref[-1, -1] == expected[-1, -1] and ref[::-7, 3].tobytes() == expected[::-7, 3].tobytes()
        # Used by another task where it is.
        answer = executor.submit(peak, ref, row=5).result(60)
        assert answer.fetch() == (expected[5].max(), (rows, 1024))
        assert not relay_blobs(site) and not endpoint_blobs(site)
        assert (client.reference(ref.task_id)[7] == expected[7]).all()
        ref.save(tmp_path / "field.npy")
        assert (numpy.load(tmp_path / "field.npy") == expected).all()
        ref.delete()
        wait_for(lambda: not results_of(site), "the file to go")
        with pytest.raises(farcall.NotFound, match=".*/results/.* was released by its owner on .*: run the task again"):
            ref[0]
        again = executor.submit(peak, ref, 0)
        with pytest.raises(farcall.EnvironmentBroken, match="is not at this endpoint .*: it was removed, or its task ran on another endpoint"):
            again.result(120)
    proxy.close()
