"""farcall as it is installed: its programs run from there, and a C++ project builds against it."""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "system"))
import conftest as system  # noqa: E402


def run(*words, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=900, **options)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_example_builds_against_the_package_and_runs(tmp_path, monkeypatch):
    prefix, build = tmp_path / "prefix", tmp_path / "build"
    run("cmake", "--install", os.environ["FARCALL_BUILD"], "--prefix", prefix)
    run("cmake", "-S", ROOT / "examples" / "cpp", "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Debug")
    run("cmake", "--build", build)

    # The processes are those of the prefix as well.
    monkeypatch.setattr(system, "BUILD", prefix)
    site = system.Site(tmp_path / "home")
    site.home.mkdir()
    try:
        site.start_relay()
        site.endpoint("here")
        out = run(build / "sweep", "here", build / "libpendulum.so", env=site.environment())
        rows = dict(line.split() for line in out.splitlines()[1:18])
        assert float(rows["10"]) < float(rows["90"]) < float(rows["170"])
        assert abs(float(rows["10"]) - 2.0099) < 0.001  # 2π√(l/g), and a little for the angle
        assert "std::invalid_argument: the angle must lie between 0 and 180 degrees" in out.splitlines()[18]
        assert float(site.json("call", "-e", "here", f"{build / 'libpendulum.so'}:swing", "10", "1", "1e-4")["result"]["period"]) > 2
    finally:
        site.close()
        shutil.rmtree(site.home, ignore_errors=True)
