"""Disks that are full, read-only or gone, files that are cut or changed: the tasks concerned fail with the
reason, others go on, and all is well again when there is room."""

import os
import re
import shutil
import struct
import subprocess
import time

import pytest
from conftest import is_gone, wait_for

MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "farcall-test", folder], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip("mount is not permitted here: %s" % made.stderr.strip())
    yield folder
    subprocess.run(["mount", "-o", "remount,rw", folder], check=False)
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def staged(site, small_disk, monkeypatch):
    """An endpoint whose results are on the small disk."""
    site.start_relay()
    site.endpoint("here", **{"staging.directory": small_disk})
    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    return site


def fill(folder, leave_mib):
    """Takes room until so little is left."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with open(folder / "filler", "wb") as file:
        file.write(bytes(free - leave_mib * MIB))


def failed(future, text, kind="ResultNotStored"):
    import farcall

    with pytest.raises(farcall.EnvironmentBroken, match=text) as caught:
        future.result(120)
    assert caught.value.remote_type == kind


def test_a_staging_directory_that_is_full(staged, small_disk):
    import farcall

    with farcall.Executor("here", result="reference") as executor:
        kept = executor.submit(os.urandom, 4 * MIB).result(60)
        fill(small_disk, 3)
        failed(executor.submit(os.urandom, 8 * MIB), "8388.* bytes, cannot be kept in .*/disk/here: .*No space left on device; make room there")
        # Small ones go on, and so do large ones that still fit; nothing half-written is left.
        assert executor.submit(len, b"small").result(60).fetch() == 5
        fits = executor.submit(os.urandom, 2 * MIB).result(60)
        assert sorted(file.suffix for file in (small_disk / "here").iterdir()) == [".h5", ".h5"]
        assert len(fits.fetch()) == 2 * MIB and len(kept.fetch()) == 4 * MIB
        (small_disk / "filler").unlink()
        assert len(executor.submit(os.urandom, 8 * MIB).result(60).fetch()) == 8 * MIB


def test_a_staging_directory_that_is_read_only(staged, small_disk):
    import farcall

    with farcall.Executor("here", result="reference") as executor:
        kept = executor.submit(os.urandom, 4 * MIB).result(60)
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        failed(executor.submit(os.urandom, 2 * MIB), "cannot be kept in .*/disk/here: .*Read-only file system")
        assert executor.submit(len, b"small").result(60).fetch() == 5
        assert len(kept.fetch()) == 4 * MIB  # what was acknowledged is read on
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        assert len(executor.submit(os.urandom, 2 * MIB).result(60).fetch()) == 2 * MIB


def test_files_of_tasks_on_a_full_disk(staged, small_disk):
    import farcall

    def leave(size):
        with open("out.bin", "wb") as file:
            file.write(bytes(size))

    with farcall.Executor("here", outputs=["out.bin"]) as executor:
        fill(small_disk, 3)
        failed(executor.submit(leave, 8 * MIB), "the files out.bin of the task .* cannot be kept in .*/disk/here: .*No space left on device")
        run = staged.farcall("run", "-e", "here", "--output", "out.bin", "--", "dd", "if=/dev/zero", "of=out.bin", "bs=1M", "count=8", ok=False)
        assert run.returncode != 0 and "No space left on device" in run.stderr
        assert not list((small_disk / "here").iterdir())
        (small_disk / "filler").unlink()
        future = executor.submit(leave, 8 * MIB)
        assert future.result(60) is None and future.outputs[0].nbytes == 8 * MIB


def test_a_flipped_bit_and_a_cut_file_in_slices(staged, small_disk):
    import farcall

    def rows():
        import numpy

        return numpy.arange(4 * 131072, dtype="f8").reshape(4, 131072)  # a chunk for each row

    with farcall.Executor("here", result="reference") as executor:
        ref = executor.submit(rows).result(60)
        (file,) = (small_disk / "here").glob("*.h5")
        content = bytearray(file.read_bytes())
        at = content.index(struct.pack("<dd", 196608, 196609))  # in the second row
        content[at + 3] ^= 4
        file.write_bytes(content)
        assert ref[0, 5] == 5.0  # another chunk
        with pytest.raises(farcall.ResultLost, match="value is damaged: it cannot be read.*: run the task again") as caught:
            ref[1]
        assert caught.value.code == "result_lost"
        with pytest.raises(farcall.ResultLost, match="is damaged"):
            ref.fetch()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(farcall.ResultLost, match="is damaged: it cannot be opened"):
            ref[0, 5]
        assert executor.submit(len, b"small").result(60).fetch() == 5


def test_the_disk_of_the_relay_is_full(site, small_disk, monkeypatch):
    import farcall

    (site.home / "relay").mkdir(mode=0o700, exist_ok=True)
    (small_disk / "blobs").mkdir(mode=0o700)
    os.symlink(small_disk / "blobs", site.home / "relay" / "blobs")
    site.start_relay()
    site.endpoint("here")
    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    with farcall.Executor("here") as executor:
        kept = executor.client.put(b"k" * (4 * MIB))
        fill(small_disk, 2)
        with pytest.raises(farcall.FarcallError, match="could not keep 83886.. bytes: .*No space left on device"):
            executor.submit(len, b"x" * (8 * MIB))
        assert executor.submit(len, b"small").result(60) == 5
        assert executor.submit(len, kept).result(60) == 4 * MIB
        # A result that finds no room on its way waits at its endpoint.
        waiting = executor.submit(os.urandom, 8 * MIB)
        with pytest.raises(farcall.FarcallError, match="No space left on device"):
            waiting.result(60)
        (small_disk / "filler").unlink()
        assert len(executor.client.get_result(waiting.task_id, timeout=60)) == 8 * MIB
        assert executor.submit(len, b"x" * (8 * MIB)).result(60) == 8 * MIB


def test_a_staging_directory_that_is_removed_while_a_task_runs(staged, small_disk, tmp_path):
    import farcall

    def when(path, size):
        import os
        import time

        open(path + ".begun", "w").close()
        deadline = time.monotonic() + 100
        while not os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.05)
        return os.urandom(size)

    go = tmp_path / "go"
    with farcall.Executor("here", result="reference") as executor:
        kept = executor.submit(os.urandom, 2 * MIB).result(60)
        running = executor.submit(when, str(go), 2 * MIB)
        wait_for((tmp_path / "go.begun").exists, "the task to run")
        shutil.rmtree(small_disk / "here")
        go.touch()
        failed(running, "cannot be kept in .*/disk/here: .*No such file or directory")
        with pytest.raises(farcall.FarcallError, match="2097.* bytes, cannot be had: .*/disk/here: No such file or directory"):
            kept.fetch()
        assert executor.submit(len, b"small").result(60).fetch() == 5
        (small_disk / "here").mkdir(mode=0o700)
        assert len(executor.submit(os.urandom, 2 * MIB).result(60).fetch()) == 2 * MIB


def test_the_database_of_the_relay_on_a_full_disk(site, small_disk, monkeypatch):
    """The relay keeps nothing new and says so, to the one who submits as well; with room it goes on."""
    import farcall

    (small_disk / "relay").mkdir(mode=0o700)
    os.symlink(small_disk / "relay", site.home / "relay")
    site.start_relay()
    pid = site.pid_of("relay/relay.pid")
    site.endpoint("here")
    full = "nothing new is kept or acknowledged until there is room: database .*: COMMIT: database or disk is full"
    site.expect_error_log(full)
    monkeypatch.setenv("FARCALL_HOME", str(site.home))
    log = lambda: (small_disk / "relay" / "relay.log").read_text()  # noqa: E731
    mark = small_disk.parent / "runs"
    try:
        with farcall.Executor("here") as executor:
            kept = executor.submit(pow, 2, 10)
            assert kept.result(60) == 1024
            running = executor.submit(wait_for_file, str(mark))
            wait_for(running.running, "a task to run")
            futures = []
            fill(small_disk, 1)
            try:
                while not re.search(full, log()):
                    futures.append(executor.submit(len, bytes([len(futures) % 256]) * 20000))
                    time.sleep(0.01)
                with pytest.raises(farcall.FarcallError, match="the relay cannot keep anything new: database .*: database or disk is full; what it "
                                   "has acknowledged is safe, send this again when it has room"):
                    executor.submit(len, b"too late").result(60)
                mark.touch()  # a result that comes meanwhile is kept by the endpoint
                assert not is_gone(pid)
                assert executor.client.get_endpoint_status("here")["status"] == "online"
            finally:
                (small_disk / "filler").unlink()
            assert running.result(60) == "seen"
            assert executor.submit(len, b"again").result(60) == 5
            # Each was taken or refused, and what was acknowledged is not lost.
            for future in futures:
                error = future.exception(60)
                assert "cannot keep anything new" in str(error) if error else future.result() == 20000
            assert sum(future.exception() is None for future in futures) > 0
            assert executor.client.get_result(kept.task_id, timeout=60) == 1024
        assert not is_gone(pid) and "the store takes what it is given again" in log()
    finally:
        site.close()  # before its pid files go with the disk


def wait_for_file(path):
    """For up to two minutes."""
    import os
    import time

    for _ in range(2400):
        if os.path.exists(path):
            return "seen"
        time.sleep(0.05)
    return "never"
