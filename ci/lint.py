"""Check layout, types, stubs, compiler warnings and what GitHub reads: ./run lint."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .shell import Failed, run, tool

ROOT = Path(__file__).resolve().parent.parent
C_SOURCES = ["_remctl.c", *sorted(str(path) for path in Path("src").glob("*.c"))]
C_FILES = [
    *C_SOURCES,
    *sorted(str(p) for p in (*Path("src").glob("*.h"), *Path("stress").glob("*/*.[ch]"))),
]
LIMITED_API = "-DPy_LIMITED_API=0x030B0000"

Check = tuple[str, list[list[str]]]  # the name of a check, and its commands


def fix() -> None:
    """Repair the layout."""
    run(tool("ruff"), "check", "--quiet", "--fix-only", ".")
    run(tool("ruff"), "format", "--quiet", ".")
    run(tool("clang-format"), "-i", *C_FILES)


def compiling(compiler: str, *flags: str) -> list[list[str]]:
    """Return the commands that compile the extension with warnings as errors."""
    asked = ["pkg-config", "--cflags", "libremctl"]
    library = os.environ.get("REMCTL_CFLAGS")
    if library is None:
        library = subprocess.run(asked, capture_output=True, text=True).stdout
    # gcc tracks values, and warns about them, only if it optimises.
    strict = ["-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-pthread", *flags]
    names = ["-Isrc", "-I" + sysconfig.get_paths()["include"], '-DREMCTL_BINDING_VERSION="lint"']
    return [
        [compiler, *strict, *names, *shlex.split(library), "-c", source, "-o", os.devnull]
        for source in C_SOURCES
    ]


def schema(kind: str, folder: str) -> list[list[str]]:
    """Return the command that checks the files in a folder of .github against their schema."""
    found = Path(".github", folder)
    files = (
        [found] if found.is_file() else [p for p in found.glob("*.yml") if p.name != "config.yml"]
    )
    return [["check-jsonschema", "--builtin-schema", f"vendor.{kind}", *map(str, files)]]


def checks() -> list[Check]:
    """Return all checks, those that take longest first."""
    stubtest = [
        sys.executable,
        "-m",
        "mypy.stubtest",
        "--mypy-config-file",
        str(ROOT / "pyproject.toml"),
    ]
    allowed = ["--allowlist", str(ROOT / "tests/typing/stubtest_allowlist.txt")]
    identifiers = ["cibuildwheel", "--print-build-identifiers", "--platform"]
    plugins = ["mypy", "--explicit-package-bases", "--follow-imports=silent", "ansible_collections"]
    found: list[Check] = [
        (
            "mypy",  # Not in parallel, because the commands share a cache.
            [
                ["mypy", "remctl.py", "remctl_toolkit", "examples", "benchmarks"],
                ["mypy", "stress"],
                ["mypy", "remctl-stubs", "_remctl-stubs"],
                ["mypy", "ci"],
                # Several plugins have one name.  What they import is checked above.
                plugins,
            ],
        ),
        ("stubtest", [[*stubtest, *allowed, "remctl"], [*stubtest, "_remctl"]]),
        ("gcc, limited API", compiling("gcc", LIMITED_API)),
        ("gcc, full API", compiling("gcc")),
        ("ruff check", [["ruff", "check", "--quiet", "."]]),
        ("ruff format", [["ruff", "format", "--check", "--quiet", "--diff", "."]]),
        ("clang-format", [["clang-format", "--dry-run", "--Werror", *C_FILES]]),
        ("shellcheck", [["shellcheck", "run", ".ci/run", *map(str, Path("ci").glob("*.sh"))]]),
        # Files for GitHub and cibuildwheel, which cannot run here.  These checks need no network.
        ("zizmor", [["zizmor", "--offline", "--no-progress", "--persona=pedantic", ".github"]]),
        ("schema, workflows", schema("github-workflows", "workflows")),
        ("schema, dependabot.yml", schema("dependabot", "dependabot.yml")),
        ("schema, ISSUE_TEMPLATE", schema("github-issue-forms", "ISSUE_TEMPLATE")),
        ("cibuildwheel", [[*identifiers, "linux"], [*identifiers, "macos"]]),
    ]
    if shutil.which("clang"):
        found.append(("clang, limited API", compiling("clang", LIMITED_API)))
    return found


def passes(check: Check) -> bool:
    """Run a check, and print its line; return whether it passed."""
    name, commands = check
    environ = {
        **os.environ,
        "PATH": f"{tool('')}{os.pathsep}{os.environ['PATH']}",
        "MYPYPATH": "tests",
    }
    folder = ROOT
    if name == "stubtest":  # In the checkout, remctl.py would come before its own stubs.
        folder = Path(sys.prefix, "empty")
        folder.mkdir(exist_ok=True)
    try:
        for command in commands:
            run(*command, cwd=folder, env=environ)
    except Failed as error:
        text = re.sub("^", "        ", str(error), flags=re.MULTILINE)
        print(f"FAILED  {name}\n{text}", flush=True)
        return False
    print(f"ok      {name}", flush=True)
    return True


def main() -> int:
    """Run all checks, one per processor at a time, and return the exit status."""
    parser = argparse.ArgumentParser(prog="./run lint", description=__doc__)
    parser.add_argument("--fix", action="store_true", help="repair the layout first")
    if parser.parse_args().fix:
        fix()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return 0 if all(list(threads.map(passes, checks()))) else 1


if __name__ == "__main__":
    sys.exit(main())
