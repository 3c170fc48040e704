"""Scripts written for Globus Compute run with another import."""

import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples" / "migrated"

EXPECTED = {
    "first_steps": "pi is about 3.1x, from 8 tasks\n",
    "shell_commands": "Hello, World\n2 subprocess.CalledProcessError\n124 subprocess.TimeoutExpired\ntwo\n",
    "resources": "{'label': 'one node', 'cpus': True}\n{'label': 'urgent', 'cpus': True}\n{'label': 'no wishes', 'cpus': True}\n",
    "reload": "[0, 1, 4, 9, 16]\n",
    "client_batch": "endpoint is online\n5 tasks\n[0.0, 10.0, 14.1, 17.3]\nfailed: division by zero\n3.5\n",
}


def original(text):
    """The script as it was: the import in the comment instead of the one below it."""
    lines = []
    for line in text.splitlines():
        if line.startswith("# ") and "globus_compute_sdk" in line and "import" in line:
            lines.append(line[2:])
        elif not (line.startswith(("from farcall", "import farcall"))):
            lines.append(line)
    return lines


@pytest.mark.parametrize("name", EXPECTED)
def test_runs(five_workers, tmp_path, name):
    script = EXAMPLES / f"{name}.py"
    run = subprocess.run(
        [sys.executable, "-B", script, "here"], cwd=tmp_path, env=five_workers.environment(), capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
    shown = run.stdout
    if name == "first_steps":
        value = float(shown.split()[3].rstrip(","))
        assert 3.0 < value < 3.3
        shown = shown.replace(shown.split()[3], "3.1x,")
    assert shown == EXPECTED[name] and run.stderr == ""


@pytest.mark.parametrize("name", EXPECTED)
def test_differs_from_its_original_by_the_import_alone(name):
    text = (EXAMPLES / f"{name}.py").read_text()
    before = "\n".join(original(text))
    assert "farcall" not in before
    assert compile(before, name, "exec")
    new = [line for line in text.splitlines() if not (line.startswith("# ") and "globus_compute_sdk" in line)]
    changed = [(a, b) for a, b in zip(original(text), new) if a != b]
    assert len(original(text)) == len(new)
    assert changed
    for old, now in changed:
        assert now == old.replace("import globus_compute_sdk", "import farcall as globus_compute_sdk").replace("from globus_compute_sdk", "from farcall")


def test_every_script_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(EXPECTED)
