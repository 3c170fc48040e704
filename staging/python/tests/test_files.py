"""farcall_files: what a task is given and what it leaves, without a task."""

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(DIRECTORY))

import farcall_files  # noqa: E402


def packed(folder):
    archive = io.BytesIO()
    farcall_files.pack_tree(folder, archive)
    return archive.getvalue()


def test_a_directory_packed_twice_is_the_same_wherever_it_lies(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        for i in (3, 1, 2):
            (tmp_path / name / "deep" / str(i)).write_text("part %d" % i)
        os.symlink("deep/1", tmp_path / name / "first")
        for folder, _folders, names in os.walk(tmp_path / name):
            for each in [folder] + [os.path.join(folder, one) for one in names]:
                os.utime(each, (1, 1), follow_symlinks=False)
    assert packed(tmp_path / "a") == packed(tmp_path / "b")
    (tmp_path / "tree.tar").write_bytes(packed(tmp_path / "a"))
    target = farcall_files.place(str(tmp_path / "tree.tar"), {"file": "x/tree", "tree": True}, str(tmp_path))
    assert Path(target, "deep", "2").read_text() == "part 2" and Path(target, "first").read_text() == "part 1"


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "a//b", "."])
def test_no_name_leads_out_of_the_directory(tmp_path, name):
    (tmp_path / "data").write_text("x")
    with pytest.raises(ValueError, match="lies in the task's directory"):
        farcall_files.place(str(tmp_path / "data"), {"file": name}, str(tmp_path / "task"))


def test_what_matches_is_kept_once_and_links_are_not(tmp_path):
    task, results = tmp_path / "task[1]", tmp_path / "results"
    for folder in (task / "run", results):
        folder.mkdir(parents=True)
    (task / "a.h5").write_bytes(b"a" * 10)
    (task / "run" / "b.h5").write_bytes(b"b" * 20)
    os.symlink(task / "a.h5", task / "given.h5")
    kept = farcall_files.collect(["*.h5", "**/*.h5", "none*"], str(task), str(results), "t-1")
    assert [(size, what["file"]) for _name, size, what in kept] == [(10, "a.h5"), (20, "run/b.h5")]
    for name, _size, what in kept:
        content = (results / ("t-1.%s.file" % name)).read_bytes()
        assert hashlib.blake2b(content, digest_size=32).hexdigest() == name and content == (task / what["file"]).read_bytes()
    with pytest.raises(farcall_files.OutputMissing, match="left no file 'none' in its directory"):
        farcall_files.collect(["none"], str(task), str(results), "t-1")
    assert len(list(results.iterdir())) == 2


def run(tmp_path, *command, outputs=(), results=None):
    report = tmp_path / "report"
    told = {"directory": str(tmp_path), "files": [], "outputs": list(outputs), "results": str(results or tmp_path), "task": "t"}
    report.write_text(json.dumps(told))
    done = subprocess.run([sys.executable, "-I", DIRECTORY / "farcall_files.py", "run", report, *command], cwd=tmp_path, capture_output=True, text=True)
    return done, json.loads(report.read_text()).get("said")


def test_a_command_ends_as_it_would_by_itself(tmp_path):
    assert run(tmp_path, "sh", "-c", "exit 7")[0].returncode == 7
    for signal in (9, 15):
        assert run(tmp_path, "sh", "-c", "kill -%d $$" % signal)[0].returncode == -signal
    done, _said = run(tmp_path, "./none")
    assert (done.returncode, done.stderr) == (127, "command './none' was not found\n")
    done, said = run(tmp_path, "true", outputs=["x"])
    assert said == {"error": "the task left no file 'x' in its directory %s" % tmp_path, "user": True}
    assert run(tmp_path, "false", outputs=["x"])[1] == {"outputs": []}
    (tmp_path / "x").write_text("x")
    done, said = run(tmp_path, "true", outputs=["x"], results=tmp_path / "gone")
    assert "kept in %s/gone: " % tmp_path in said["error"] and "No such file" in said["error"] and "user" not in said
