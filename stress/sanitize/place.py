"""A copy of the checkout, because a build with a sanitizer must not replace the usual one.

Tests start other interpreters, in this folder or another, by `-m`, `-c` and by file.  All of them
must find the extension of the copy.  So the copy has the sources, the tests and the extension, and
comes first on the import path.
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
    """A requirement is missing, or the extension could not be built."""


class Place:
    """A folder with a copy of the checkout, and the sanitizer's reports."""

    def __init__(self, folder: Path) -> None:
        """Copy the checkout into a folder, which is emptied first."""
        shutil.rmtree(folder, ignore_errors=True)
        self.checkout = folder / "checkout"
        self.reports = folder / "reports"
        self.reports.mkdir(parents=True)
        shutil.copytree(ROOT, self.checkout, ignore=NOT_COPIED, symlinks=True)

    def build(self, flags: str, python: str = sys.executable) -> dict[str, str]:
        """Build the extension there; return the variables for equal builds."""
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
        """Run a command with pytest there; return the exit status."""
        paths = [str(self.checkout), str(self.checkout / "tests")]
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])]),
            "REMCTL_SANITIZED": "1",
            **environment,
        }
        return subprocess.run(command, cwd=self.checkout, env=variables, check=False).returncode

    def findings(self) -> list[str]:
        """Return the sanitizers' reports, one for each process with findings."""
        texts = [path.read_text(errors="replace") for path in sorted(self.reports.iterdir())]
        return [text for text in texts if not is_about_a_thread_at_work(text)]


def is_about_a_thread_at_work(text: str) -> bool:
    """Return whether a report is about leaks of a process that ended while a thread was running.

    Python ends a thread that wakes up during the exit, and its memory is lost.  If the sanitizer
    cannot stop a thread that goes on, it reports that, and counts the thread's memory as lost.
    The leaks of such a process mean nothing.
    """
    if "ERROR: LeakSanitizer" not in text:
        return False
    ended = " in thread_PyThread_start_new_thread " in text
    return ended or "was not suspended. False leaks are possible." in text


def runtime_library(name: str) -> str:
    """Return a sanitizer's library, to be preloaded because Python is not built with it."""
    compiler = os.environ.get("CC", "gcc").split()
    try:
        done = subprocess.run(
            [*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise Broken(f"cannot run the compiler: {error}") from None
    path = Path(done.stdout.strip())
    if not path.is_absolute():
        raise Broken(f"the compiler has no {name}")
    return str(path.resolve())
