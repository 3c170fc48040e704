"""Holds the tree against docs/architecture.md and the limits of CONTRIBUTING.md.

The table of libraries in docs/architecture.md has to name every farcall_layer() with its folder,
its dependencies and its third-party libraries, and nothing else.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE_LINES_MAX = 800
HEADER_LINES_MAX = 250
MAIN_LINES_MAX = 150

# All third-party headers lie in one folder, so that the compiler cannot keep a layer from them.
# (pattern of the include, the folders that may, what others use instead)
THIRD_PARTY = (
    (r"<sqlite3\.h>", ("base/sqlite/",), "sqlite/database.h"),
    (r"<sodium", ("base/src/",), "base/keys.h"),
    (r"<yaml\.h>", ("base/src/",), "base/config.h"),
    (r"<spdlog/", ("base/src/",), "base/log.h"),
    (r"<zmq", ("wire/zmq/", "bench/limits", "bench/pilots"), "wire/zmq/"),
    (r"<msgpack", ("wire/",), "wire/codec.h"),
    (r"<hdf5", ("staging/hdf5/",), "staging/hdf5/campaign.h"),
    (r"<hwloc", ("pilot/",), "the pilot's own wrapper"),
    (r"<pybind11/", ("client/python/",), "client/python"),
    (r"<Python\.h>", ("client/python/",), "client/python"),
    (r"<boost/program_options", ("client/cli/", "relay/main", "interchange/main", "pilot/main", "bench/"), "client/cli"),
    (r"<mpi\.h>", ("pilot/mpi/", "client/include/farcall/mpi_function.h", "examples/", "tests/"), "pilot/mpi"),
)
# Paths of the machine that the work is done on have no business in the tree. A short one ("/farcall")
# says nothing of a machine and may be part of any other path.
MACHINE_PATHS = [str(path) for path in (ROOT, pathlib.Path.home()) if len(path.parts) > 2]
MACHINE_PATH = re.compile(r"(?<![\w.}])(" + "|".join(map(re.escape, MACHINE_PATHS)) + r")(?![\w-])") if MACHINE_PATHS else None


def tracked(*patterns):
    out = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / line for line in out.stdout.splitlines()]


def declared_layers():
    """name -> (folder, farcall dependencies, third-party libraries), from the CMake files."""
    layers = {}
    for path in tracked("*CMakeLists.txt"):
        text = re.sub(r"#.*", "", path.read_text())
        for match in re.finditer(r"farcall_layer\(\s*(\w+)([^)]*)\)", text):
            name, body = match.groups()
            farcall, third_party = set(), set()
            keyword = None
            for word in body.split():
                if word in ("SOURCES", "DEPS", "PRIVATE_DEPS"):
                    keyword = word
                elif keyword in ("DEPS", "PRIVATE_DEPS"):
                    if word.startswith("farcall::"):
                        farcall.add(word.removeprefix("farcall::"))
                    elif not word.startswith("$"):
                        third_party.add(word)
            layers[name] = (str(path.parent.relative_to(ROOT)), farcall, third_party)
    return layers


def documented_layers():
    layers = {}
    for line in (ROOT / "docs/architecture.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 5 or not cells[0].startswith("`"):
            continue
        words = [set(re.findall(r"`([^`]+)`", cell)) for cell in cells]
        layers[cells[0].strip("`")] = (cells[1].strip("`"), words[3], words[4])
    return layers


# What no row of the table may bring back, directly or through others.
MUST_NOT_REACH = (
    (r"(relay|interchange|pilot)_core", r"wire_zmq|sqlite|.*_sqlite|provider.*|.*_(server|agent|runners)", "a pure core has no socket, file or process"),
    (r"relay.*", r"interchange.*|pilot.*|provider.*|client|cli", "the relay knows the schema only"),
    (r"interchange.*", r"relay.*|pilot.*|client|cli", "the interchange knows the schema and providers only"),
    (r"pilot.*", r"relay.*|interchange.*|provider.*|client|cli", "the pilot knows the schema only"),
    (r"client|cli", r"relay.*|interchange.*|pilot.*", "the client knows the schema only"),
    (r"provider.*", r"wire.*|model|relay.*|interchange.*|pilot.*|client|cli", "providers see base only"),
    (r"base|sqlite|model|wire", r"wire_zmq", "the schema is pure"),
)


def reachable(name, layers):
    seen, todo = set(), [name]
    while todo:
        for next_name in layers.get(todo.pop(), ("", (), ()))[1]:
            if next_name not in seen:
                seen.add(next_name)
                todo.append(next_name)
    return seen


def check_directions(problems):
    layers = declared_layers()
    for name in sorted(layers):
        found = reachable(name, layers)
        if name in found:
            problems.append(f"layer `{name}` depends on itself through others")
        for who, whom, why in MUST_NOT_REACH:
            if re.fullmatch(who, name):
                for other in sorted(found):
                    if re.fullmatch(whom, other):
                        problems.append(f"layer `{name}` reaches `{other}`: {why}")


def quoted(words):
    return " ".join(f"`{word}`" for word in sorted(words))


def check_layers(problems):
    code, document = declared_layers(), documented_layers()
    for name in sorted(code.keys() | document.keys()):
        if name not in document:
            folder, farcall, third_party = code[name]
            row = f"| `{name}` | `{folder}` | … | {quoted(farcall)} | {quoted(third_party)} |"
            problems.append(f"docs/architecture.md has no row for the layer `{name}`; add: {row}")
        elif name not in code:
            problems.append(f"docs/architecture.md names the layer `{name}`, which no CMakeLists.txt makes")
        else:
            for what, found, expected in zip(("folder", "dependencies", "third-party libraries"), code[name], document[name]):
                if found != expected:
                    problems.append(f"layer `{name}`: {what} in CMake: {found or '{}'}, in docs/architecture.md: {expected or '{}'}")


def check_sizes(problems):
    for path in tracked("*.cpp", "*.h", "*.py"):
        lines = path.read_text().count("\n")
        limit = HEADER_LINES_MAX if path.suffix == ".h" else SOURCE_LINES_MAX
        if path.match("wire/include/wire/messages.h"):
            limit = 400  # the schema is one page on purpose
        if path.name == "main.cpp" and "tests" not in path.parts:
            limit = MAIN_LINES_MAX  # a composition root composes
        if lines > limit:
            problems.append(f"{path.relative_to(ROOT)} has {lines} lines, the limit is {limit}: split it")


def check_includes(problems):
    for path in tracked("*.cpp", "*.h"):
        name = str(path.relative_to(ROOT))
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for pattern, folders, instead in THIRD_PARTY:
                if re.match(r"\s*#\s*include\s+" + pattern, line) and not name.startswith(folders):
                    problems.append(f"{name}:{number}: {line.strip()} belongs in {' or '.join(folders)}; use {instead}")


def check_machine_paths(problems):
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        for number, line in enumerate(lines, 1):
            if MACHINE_PATH and MACHINE_PATH.search(line):
                problems.append(f"{path.relative_to(ROOT)}:{number}: a path of one machine: {line.strip()[:100]}")


def check_errors_page(problems):
    rows = re.findall(r'X\(k\w+,\s*(\d+),\s*"(\w+)",\s*(\d+),\s*"([^"]*)"\)', (ROOT / "base/include/base/error.h").read_text().replace("\\\n", ""))
    page = ROOT / "docs/errors.md"
    expected = "".join(f"| {number} | `{name}` | {code} | {meaning} |\n" for number, name, code, meaning in rows)
    if expected not in page.read_text():
        problems.append("docs/errors.md does not hold the table of base/error.h; it should be:\n" + expected)


def main():
    problems = []
    check_layers(problems)
    check_directions(problems)
    check_sizes(problems)
    check_includes(problems)
    check_machine_paths(problems)
    check_errors_page(problems)
    for problem in problems:
        print(f"check: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
