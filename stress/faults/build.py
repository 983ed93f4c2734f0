"""Build the extension so that its calls can be made to fail, in a separate folder."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from .calls import FALLIBLE, Failure
from .scan import ROOT, calls, complaints, sources

HERE = Path(__file__).resolve().parent
LIBRARY = "libfaults.so"
RESOLVER = "resolver.so"  # Has names for hosts with several addresses.
HEADER = "faults.h"
GENERATED = "faults_calls.h"


class BuildError(Exception):
    """The tables do not match the sources, or the compiler failed."""


def expression(failure: Failure) -> str:
    """Return the C expression of a failing call."""
    steps = []
    if failure.errno:
        steps.append(f"errno = {failure.errno}")
    if failure.raises:
        steps.append(f"PyErr_SetNone(PyExc_{failure.raises})")
    return ", ".join([*steps, failure.value])


def macro(name: str, failure: Failure) -> str:
    """Return the macro that replaces a function."""
    # Use its address, because some names are macros in Python's headers.
    lines = [
        f"static __typeof__({name}) *const real_{name} __attribute__((unused)) = {name};",
        f"#undef {name}",
        f"#define {name}(...) \\",
        f'    (faults_hit("{name}", __FILE__, __LINE__) \\',
        f"         ? ({expression(failure)}) : real_{name}(__VA_ARGS__))",
    ]
    return "\n".join(lines) + "\n"


def header() -> str:
    """Return the header; raise BuildError if the tables do not match the sources."""
    wrong = complaints(calls(path.read_text(encoding="utf-8") for path in sources(ROOT)))
    if wrong:
        raise BuildError("\n".join(wrong))
    return "\n".join(macro(name, failure) for name, failure in FALLIBLE.items())


def run(command: list[str], **environment: str) -> None:
    """Run a compiler, and show its output if it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"{shlex.join(command)}:\n{done.stdout}")


def build(folder: Path) -> None:
    """Put the extension and the library to preload into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / HEADER, folder)
    (folder / GENERATED).write_text(header(), encoding="utf-8")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC"))
    source = str(HERE / "faults.c")
    options = ["-Wall", "-Wextra", "-Werror", "-g", "-O1", "-fPIC", "-shared", "-pthread"]
    run([*compiler, *options, source, "-o", str(folder / LIBRARY), "-ldl"])
    source = str(ROOT / "tests/support/preloaded/resolver.c")
    run([*compiler, *options, source, "-o", str(folder / RESOLVER), "-ldl"])
    places = ["--build-lib", str(folder), "--build-temp", str(folder / "temp")]
    run([sys.executable, "setup.py", "build_ext", *places], REMCTL_FAULTS=str(folder))
