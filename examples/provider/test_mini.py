"""The example, built out of tree against the public header, passes the contract suite; its keys are checked like any other."""

import os
import pathlib
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    build = tmp_path_factory.mktemp("mini")
    subprocess.run(["cmake", "-S", HERE, "-B", build, "-G", "Ninja", f"-DFARCALL_PROVIDER_INCLUDE={os.environ['FARCALL_PROVIDER_INCLUDE']}"],
                   check=True, capture_output=True)
    subprocess.run(["cmake", "--build", build], check=True, capture_output=True)
    return build


def environment(built, tmp_path):
    return {**os.environ, "FARCALL_PROVIDER_PATH": str(built), "PATH": f"{HERE}:{os.environ['PATH']}", "MINISCHED_DIR": str(tmp_path / "jobs"),
            "FARCALL_CONTRACT_PROVIDER": "mini"}


def test_the_contract(built, tmp_path):
    run = subprocess.run([os.environ["FARCALL_CONTRACT_TEST"], "--gtest_brief=1"], env=environment(built, tmp_path), capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def check(built, tmp_path, text):
    config = tmp_path / "config.yaml"
    config.write_text("engine:\n  provider:\n    type: mini\n" + text)
    run = subprocess.run([os.environ["FARCALL_INTERCHANGE"], "--check-config", config], env=environment(built, tmp_path), capture_output=True, text=True)
    return run.returncode, run.stderr


def test_its_keys_are_checked_like_those_of_the_built_in_ones(built, tmp_path):
    assert check(built, tmp_path, "    nice: 5\n") == (0, "")
    code, said = check(built, tmp_path, "    nice: 50\n    minishced: x\n")
    assert code == 78
    assert "config.yaml:4:11: 'engine.provider.nice' is 50, expected 0 to 19" in said
    assert "config.yaml:5:5: unknown key 'engine.provider.minishced'; did you mean 'engine.provider.minisched'?" in said


def test_without_its_folder_on_the_path_it_is_not_found(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("engine:\n  provider:\n    type: mini\n")
    run = subprocess.run([os.environ["FARCALL_INTERCHANGE"], "--check-config", config], capture_output=True, text=True,
                         env={k: v for k, v in os.environ.items() if k != "FARCALL_PROVIDER_PATH"})
    assert run.returncode == 78 and "there is no mini.so in" in run.stderr and "FARCALL_PROVIDER_PATH" in run.stderr
