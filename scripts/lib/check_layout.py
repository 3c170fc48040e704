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


def check_layers(problems):
    code, document = declared_layers(), documented_layers()
    for name in sorted(code.keys() | document.keys()):
        if name not in document:
            problems.append(f"docs/architecture.md has no row for the layer `{name}` in {code[name][0]}")
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
        if lines > limit:
            problems.append(f"{path.relative_to(ROOT)} has {lines} lines, the limit is {limit}: split it")


def check_errors_page(problems):
    rows = re.findall(r'X\(k\w+,\s*(\d+),\s*"(\w+)",\s*(\d+),\s*"([^"]*)"\)', (ROOT / "base/include/base/error.h").read_text().replace("\\\n", ""))
    page = ROOT / "docs/errors.md"
    expected = "".join(f"| {number} | `{name}` | {code} | {meaning} |\n" for number, name, code, meaning in rows)
    if expected not in page.read_text():
        problems.append("docs/errors.md does not hold the table of base/error.h; it should be:\n" + expected)


def main():
    problems = []
    check_layers(problems)
    check_sizes(problems)
    check_errors_page(problems)
    for problem in problems:
        print(f"check: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
