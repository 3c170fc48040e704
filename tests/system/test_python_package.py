"""pip install . without a network, the stubs of the native module, and the doctor."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import pytest

from conftest import BUILD, ROOT


@pytest.fixture(name="installed", scope="module")
def _installed(tmp_path_factory):
    """The Python of a fresh environment that farcall was installed into."""
    env = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", env], check=True)
    command = [env / "bin" / "pip", "install", "--no-build-isolation", "--no-index", "--no-deps", ROOT]
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(command, env={**outside, "FARCALL_CMAKE_BUILD": os.environ.get("FARCALL_CMAKE_BUILD", str(BUILD))}, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    return env / "bin" / "python"


def test_what_was_installed_runs_a_task(here, installed, tmp_path):
    script = "import farcall, sys\nwith farcall.Executor('here') as e:\n    print(farcall.__file__, e.submit(pow, 2, 10).result(60))\n"
    environment = {key: value for key, value in here.environment().items() if key != "PYTHONPATH"}
    run = subprocess.run([installed, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    path, value = run.stdout.split()
    package = pathlib.Path(path).parent
    assert value == "1024" and installed.parent.parent in package.parents
    assert {"py.typed", "_farcall.pyi"} <= {file.name for file in package.iterdir()}
    assert {file.name for file in package.glob("*.py")} == {file.name for file in (ROOT / "client" / "python" / "farcall").glob("*.py")}


def test_the_stub_says_what_the_native_module_has():
    from farcall import _farcall

    tree = ast.parse((ROOT / "client" / "python" / "farcall" / "_farcall.pyi").read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            assert callable(getattr(_farcall, node.name))
        elif isinstance(node, ast.ClassDef):
            said = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
            has = {name for name in vars(getattr(_farcall, node.name)) if not name.startswith("_")}
            assert said - {"__init__"} == has
    said = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert said == {name for name in dir(_farcall) if not name.startswith("_")}


def doctor(site, *arguments):
    command = [sys.executable, "-m", "farcall.doctor", *map(str, arguments)]
    return subprocess.run(command, env=site.environment(), capture_output=True, text=True, timeout=200)


def checks(run):
    found = json.loads(run.stdout)
    return {check["name"]: check for check in found["checks"]}, found["ok"]


def test_doctor_finds_nothing_wrong(here):
    run = doctor(here, "-e", "here", "--json")
    found, ok = checks(run)
    assert ok and run.returncode == 0, run.stdout
    assert {check["state"] for check in found.values()} == {"ok"}, found
    assert set(found) == {"python", "cloudpickle", "dill", "keys", "relay", "versions", "clock", "endpoint", "worker"}
    shown = doctor(here, "-e", "here")
    assert "ok       relay" in shown.stdout and "here is online" in shown.stdout and "the relay's clock and this one agree" in shown.stdout


def test_doctor_says_what_to_do(site):
    run = doctor(site, "--json")
    found, ok = checks(run)
    assert run.returncode == 1 and not ok
    assert "no identity in" in found["keys"]["text"] and "farcall login INVITATION" in found["keys"]["advice"]

    site.start_relay()
    found, ok = checks(doctor(site, "--json"))
    assert ok and found["endpoints"]["state"] == "warning" and "farcall endpoint configure" in found["endpoints"]["advice"]

    site.farcall("endpoint", "configure", "idle", "--provider", "local")
    identity = site.home / "identity"
    identity.chmod(0o640)
    found, _ok = checks(doctor(site, "--json"))
    assert found["keys"]["state"] == "failed" and found["keys"]["advice"] == f"chmod 600 {identity}"
    identity.chmod(0o600)

    site.farcall("relay", "stop")
    run = doctor(site, "--timeout", "2")
    assert run.returncode == 1 and "failed   relay" in run.stdout and "farcall relay status" in run.stdout


def test_doctor_compares_clocks():
    from farcall import doctor as module

    report = module.Report()
    module._clock(report, "clock", "the relay's clock", 100.0, 200.0, 200.1)
    module._clock(report, "clock", "the relay's clock", 300.0, 200.0, 200.1)
    module._clock(report, "clock", "the relay's clock", 203.0, 200.0, 200.1)
    assert [check["state"] for check in report.checks] == ["warning", "warning", "ok"]
    assert "100.0 s behind" in report.checks[0]["text"] and "99.9 s ahead of" in report.checks[1]["text"]
    assert "timedatectl" in report.checks[0]["advice"]


def test_a_function_in_bytecode_of_another_python_is_refused_with_both_versions(here, monkeypatch):
    import platform

    import farcall

    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    with farcall.Executor("here", retry="never") as executor:
        error = executor.submit(lambda: 1).exception(60)
        assert type(error) is farcall.EnvironmentBroken
        assert "was pickled by Python 3.99, the worker has %d.%d: send it by source" % sys.version_info[:2] in str(error)
        executor.code_serializer = "source"
        error = executor.submit(apply, lambda: 1).exception(60)
        assert type(error) is farcall.EnvironmentBroken and "carry functions or classes as bytecode of Python 3.99" in str(error)
        assert executor.submit(apply, int).result(60) == 0


def apply(function):
    return function()
