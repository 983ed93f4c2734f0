"""A copy of the checkout: what is built with a sanitizer must not come in the way of the rest.

Tests start interpreters of their own, in this folder or another, by `-m`, `-c` and by file.  All
of them have to find the extension that is examined and no other: so the copy holds the sources,
the tests and the extension, and comes first on the import path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NOT_COPIED = shutil.ignore_patterns(
    ".venv", ".git", "build", "dist", "_build", "*.so", "*.egg-info", "__pycache__", ".*_cache"
)


class Broken(Exception):
    """What is needed is not there, or the extension could not be built."""


class Place:
    """A folder with a copy of the checkout and, beside it, what the sanitizer has to say."""

    def __init__(self, folder: Path) -> None:
        """Copy the checkout into a folder, which is emptied first."""
        shutil.rmtree(folder, ignore_errors=True)
        self.checkout = folder / "checkout"
        self.reports = folder / "reports"
        self.reports.mkdir(parents=True)
        shutil.copytree(ROOT, self.checkout, ignore=NOT_COPIED, symlinks=True)

    def build(self, flags: str, python: str = sys.executable) -> dict[str, str]:
        """Build the extension there; return the variables that make others build alike."""
        compiler = {
            "CFLAGS": f"{flags} -g -O1 -fno-omit-frame-pointer",
            "LDFLAGS": flags,
        }
        done = subprocess.run(
            [python, "setup.py", "-q", "egg_info", "build_ext", "--inplace"],
            cwd=self.checkout,
            env={**os.environ, **compiler},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not list(self.checkout.glob("_remctl.*so")):
            raise Broken(f"the extension could not be built:\n{done.stdout}")
        return compiler

    def run(self, command: list[str], environment: Mapping[str, str]) -> int:
        """Run pytest there, or what runs it; return the exit status."""
        paths = [str(self.checkout), str(self.checkout / "tests")]
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])]),
            "REMCTL_SANITIZED": "1",
            **environment,
        }
        return subprocess.run(command, cwd=self.checkout, env=variables, check=False).returncode

    def findings(self) -> list[str]:
        """Return what the sanitizers wrote, one text for each process that had a finding."""
        texts = [path.read_text(errors="replace") for path in sorted(self.reports.iterdir())]
        return [text for text in texts if not is_about_a_thread_at_work(text)]


def is_about_a_thread_at_work(text: str) -> bool:
    """Whether leaks were told of a process that ended while one of its threads was at work.

    A thread that wakes up while Python is ending is ended by it on the spot.  Whatever it had is
    lost, and first of all what it was started with.  One that goes on is not always seen by the
    sanitizer, which says so: what it alone knows of counts as lost.  Of leaks, such a process
    tells nothing.
    """
    if "ERROR: LeakSanitizer" not in text:
        return False
    ended = " in thread_PyThread_start_new_thread " in text
    return ended or "was not suspended. False leaks are possible." in text


def runtime_library(name: str) -> str:
    """Find a sanitizer's library, which has to be preloaded: Python is not built with it."""
    compiler = os.environ.get("CC", "gcc").split()
    try:
        done = subprocess.run(
            [*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise Broken(f"the compiler does not run: {error}") from None
    path = Path(done.stdout.strip())
    if not path.is_absolute():
        raise Broken(f"the compiler has no {name}")
    return str(path.resolve())
