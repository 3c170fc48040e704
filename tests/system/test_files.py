"""Files that tasks are given and files that they leave: from Python and from the command line."""

import filecmp
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))
from tcp_proxy import Proxy  # noqa: E402

MIB = 1024 * 1024


@pytest.fixture
def executor(here):
    import farcall

    with farcall.Executor("here") as executor:
        yield executor


def stored_at(site, folder):
    return sorted(path for path in (site.home / folder).rglob("*") if path.is_file() and len(path.name) == 64)


def measure(path, factor=1):
    import os

    with open(path, "rb") as file:
        return os.path.relpath(path), len(file.read()) * factor, os.access(path, os.X_OK)


def test_a_file_arrives_as_a_path_and_once(here, executor, tmp_path):
    from farcall import File

    data = tmp_path / "in.dat"
    data.write_bytes(os.urandom(3 * MIB))
    futures = [executor.submit(measure, File(data), factor=i) for i in range(20)]
    assert [future.result(60) for future in futures] == [("in.dat", 3 * MIB * i, False) for i in range(20)]
    assert executor.submit(measure, path=File(data, name="deep/er.dat")).result(60) == ("deep/er.dat", 3 * MIB, False)
    assert len(stored_at(here, "relay/blobs")) == len(stored_at(here, "endpoints/here/blobs")) == 1
    data.write_bytes(b"changed")  # is noticed
    assert executor.submit(measure, File(data)).result(60) == ("in.dat", 7, False)
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho hello\n")
    tool.chmod(0o755)
    assert executor.submit(measure, File(tool)).result(60)[2]


def test_a_directory_is_one_unit(here, executor, tmp_path):
    from farcall import File

    (tmp_path / "mesh" / "parts").mkdir(parents=True)
    for i in range(3):
        (tmp_path / "mesh" / "parts" / ("%d.dat" % i)).write_text("part %d" % i)

    def joined(folder):
        import os

        with open(os.path.join(folder, "new"), "w") as file:  # it is the task's own
            file.write("x")
        return "".join(open(os.path.join(folder, "parts", name)).read() for name in sorted(os.listdir(os.path.join(folder, "parts"))))

    for _ in range(2):
        assert executor.submit(joined, File(tmp_path / "mesh")).result(60) == "part 0part 1part 2"
    assert len(stored_at(here, "endpoints/here/blobs")) == 1


def test_what_cannot_be_given_is_said(here, executor, tmp_path):
    import farcall

    with pytest.raises(farcall.InvalidRequest, match="there is no .*/none"):
        farcall.File(tmp_path / "none")
    (tmp_path / "a").mkdir()
    for name in ("x", "a/x"):
        (tmp_path / name).write_text(name)
    with pytest.raises(farcall.SerializationError, match="two files of a task are called x"):
        executor.submit(max, farcall.File(tmp_path / "x"), farcall.File(tmp_path / "a" / "x"))
    with pytest.raises(farcall.SerializationError, match="has to be an argument of its own"):
        executor.submit(len, [farcall.File(tmp_path / "x")])


def leave(n):
    import os

    os.makedirs("run/deep", exist_ok=True)
    for i in range(n):
        with open("out%d.h5" % i, "wb") as file:
            file.write(b"%d" % i * 100_000)
    with open("run/deep/log", "w") as file:
        file.write("done")
    with open("other.txt", "w") as file:
        file.write("not asked for")
    return n


def test_files_that_a_task_leaves_come_back_or_stay(here, tmp_path):
    import farcall

    with farcall.Executor("here", outputs=["*.h5", "run"]) as executor:
        future = executor.submit(leave, 2)
        assert future.result(60) == 2
        assert [file.name for file in future.outputs] == ["out0.h5", "out1.h5", "run"]
        assert not stored_at(here, "relay/blobs")  # nothing has travelled
        first, second, folder = future.outputs
        assert first.nbytes == 100_000 and open(first.save(tmp_path / "one"), "rb").read() == b"0" * 100_000
        assert open(os.path.join(folder.save(tmp_path / "tree"), "deep", "log")).read() == "done"
        # To another task there: nothing travels.
        with farcall.Executor("here") as other:
            assert other.submit(measure, second).result(60) == ("out1.h5", 100_000, False)
        assert not stored_at(here, "endpoints/here/blobs")
        executor.output_directory = str(tmp_path)
        future = executor.submit(leave, 1)
        assert future.result(60) == 1 and (tmp_path / future.task_id / "out0.h5").read_bytes() == b"0" * 100_000
        second.delete()
        with pytest.raises(farcall.NotFound, match="was released by its owner on"):
            second.save(tmp_path / "gone")
    with farcall.Executor("here", outputs=["result.dat"]) as executor:
        with pytest.raises(farcall.TaskExecutionFailed, match="left no file 'result.dat' in its directory"):
            executor.submit(leave, 1).result(60)


def test_a_large_value_and_files_come_together(here, tmp_path):
    import farcall

    def both():
        import numpy

        with open("log", "w") as file:
            file.write("ready")
        return numpy.arange(400_000.0)

    with farcall.Executor("here", outputs=["log"]) as executor:
        future = executor.submit(both)
        assert future.result(60)[-1] == 399_999.0 and open(future.outputs[0].save(tmp_path)).read() == "ready"
        executor.result = "reference"
        ref = executor.submit(both).result(60)
        assert ref.shape == (400_000,) and ref[10] == 10.0


def test_commands_with_files(here, tmp_path):
    tool = tmp_path / "tool.sh"
    tool.write_text('#!/bin/sh\nsort "$1" > sorted.txt\nmkdir -p deep && wc -l < parts/a > deep/count\necho "in $(basename $PWD)"\nexit $2\n')
    tool.chmod(0o755)
    (tmp_path / "rows.txt").write_text("b\na\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a").write_text("1\n2\n3\n")
    words = ["run", "-e", "here", "--input", tool, "--input", f"{tmp_path}/rows.txt=in.txt", "--input", tmp_path / "parts"]
    run = here.farcall(*words, "--output", "*.txt", "--output", "deep", "--", "./tool.sh", "in.txt", "0", cwd=tmp_path)
    assert run.stdout.startswith("in ") and run.stderr == ""
    assert (tmp_path / "sorted.txt").read_text() == "a\nb\n" and (tmp_path / "deep" / "count").read_text() == "3\n"
    assert not (tmp_path / "in.txt").exists()  # given, not made
    run = here.farcall(*words, "--output", "none.dat", "--", "./tool.sh", "in.txt", "0", cwd=tmp_path, ok=False)
    assert run.returncode == 1 and "the task left no file 'none.dat' in its directory" in run.stderr
    # A command that fails says why itself.
    run = here.farcall(*words, "--output", "none.dat", "--", "./tool.sh", "in.txt", "7", cwd=tmp_path, ok=False)
    assert run.returncode == 7 and run.stderr == ""
    run = here.farcall(*words, "--", "sh", "-c", "kill -9 $$", cwd=tmp_path, ok=False)
    assert run.returncode == 137
    run = here.farcall("run", "-e", "here", "--input", tmp_path / "nothing", "--", "true", ok=False)
    assert run.returncode == 66 and f"--input {tmp_path}/nothing: there is no" in run.stderr


def test_shell_functions_take_files(here, tmp_path):
    import farcall

    (tmp_path / "n.txt").write_text("4\n")
    with farcall.Executor("here", outputs=["twice"]) as executor:
        command = farcall.ShellFunction("cat {a} {a} > twice; echo {a}")
        future = executor.submit(command, a=farcall.File(tmp_path / "n.txt"))
        assert future.result(60).stdout == "n.txt\n"
        assert open(future.outputs[0].save(tmp_path)).read() == "4\n4\n"
        again = executor.submit(command, a=future.outputs[0])
        with pytest.raises(farcall.TaskExecutionFailed, match="left no file 'twice'"):
            again.result(60)  # its input has that name


STREAMS = """
import sys, farcall

def turn(path):
    with open(path, "rb") as source, open("out.bin", "wb") as target:
        while True:
            piece = source.read(1 << 20)
            if not piece:
                return
            target.write(piece[::-1])

with farcall.Client(relay=sys.argv[1]) as client, farcall.Executor("here", client=client, outputs=["out.bin"]) as executor:
    future = executor.submit(turn, farcall.File(sys.argv[2]))
    future.result(3600)
    future.outputs[0].save(sys.argv[3])
(most,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(most) // 1024)
"""


def resident_mib(pid):
    with open("/proc/%d/status" % pid) as status:
        return [int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")][0]


def test_large_files_stream_through_ten_cuts_both_ways(site, tmp_path):
    """FARCALL_TEST_BLOB_MIB=4096 for the real thing. No process of farcall, the client's included, has
    more than a small part of a file in memory; what was cut goes on where it was."""
    size = int(os.environ.get("FARCALL_TEST_BLOB_MIB", "48")) * MIB
    site.start_relay()
    proxy, endpoint_proxy = Proxy(site.relay_address()), Proxy(site.relay_address())
    identity = site.home / "identity"
    identity.write_text(json.dumps(dict(json.loads(identity.read_text()), relay=endpoint_proxy.address)))
    site.endpoint("here")
    source, came, script = tmp_path / "in.bin", tmp_path / "out.bin", tmp_path / "streams.py"
    script.write_text(STREAMS)
    with open(source, "wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    site.farcall("run", "-e", "here", "--", "true")  # a node is there
    for one in (proxy, endpoint_proxy):
        one.cut_every(2 * size // 11)
    run = subprocess.run(
        [sys.executable, script, proxy.address, source, came], env=site.environment(), capture_output=True, text=True, timeout=3600
    )
    assert run.returncode == 0, run.stderr
    turned = tmp_path / "turned.bin"
    with open(source, "rb") as file, open(turned, "wb") as target:
        while piece := file.read(MIB):
            target.write(piece[::-1])
    assert filecmp.cmp(turned, came, shallow=False)
    most = {"client": int(run.stdout), "relay": resident_mib(site.pid_of("relay/relay.pid"))}
    most["interchange"] = resident_mib(site.pid_of("endpoints/here/interchange.pid"))
    most.update(("pilot %d" % pid, resident_mib(pid)) for pid in site.pilots())
    print("MiB resident at most", most, "cuts", proxy.cuts, endpoint_proxy.cuts, "MiB", [(p.up + p.down) // MIB for p in (proxy, endpoint_proxy)])
    assert max(most.values()) < 256
    for one in (proxy, endpoint_proxy):
        assert one.cuts >= 10
        # Of each cut at most a window is lost: eight chunks.
        assert one.up + one.down < 2 * size + one.cuts * 10 * MIB + 10 * MIB
        one.close()
