"""The native module is CMake's work: this only calls it. Everything else is in pyproject.toml.

FARCALL_CMAKE_BUILD names a build tree to use and keep (default: one of its own below build/), where
what scripts/build has compiled for this Python already is not compiled again.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = pathlib.Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Builds the target farcall_python and puts the module where setuptools wants it."""

    def build_extension(self, ext):
        tree = pathlib.Path(os.environ.get("FARCALL_CMAKE_BUILD") or ROOT / "build-pip").resolve()
        if not shutil.which("cmake"):
            raise SystemExit("farcall needs cmake to be built: on Debian, scripts/install-deps installs all that it needs")
        if not (tree / "CMakeCache.txt").exists():
            ccache = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache", "-DCMAKE_C_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
            ninja = ["-G", "Ninja"] if shutil.which("ninja") else []
            flags = "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O2 -g1 -DNDEBUG"  # those of scripts/build
            options = ["-DCMAKE_BUILD_TYPE=RelWithDebInfo", flags, "-DFARCALL_TESTS=OFF", "-DFARCALL_BENCH=OFF", "-DPython3_EXECUTABLE=" + sys.executable]
            subprocess.run(["cmake", "-S", str(ROOT), "-B", str(tree), *ninja, *ccache, *options], check=True)
        subprocess.run(["cmake", "--build", str(tree), "--target", "farcall_python", "-j", str(os.cpu_count() or 1)], check=True)
        target = pathlib.Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / "python" / "farcall" / target.name, target)


def version():
    """The one in CMakeLists.txt."""
    return re.search(r"project\(farcall VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text()).group(1)


setup(version=version(), ext_modules=[Extension("farcall._farcall", [])], cmdclass={"build_ext": CMakeBuild})
