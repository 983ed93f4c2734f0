"""Run other programs, show their output, and raise an exception if they fail."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class Failed(Exception):
    """A command or a check failed; the text says why."""


def say(text: str) -> None:
    """Print a progress message at once."""
    print(text, flush=True)


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command, and return its output.

    Raises:
        Failed: it cannot be run, or fails; the text has its output.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise Failed(f"{words[0]} does not run: {error}") from None
    if done.returncode != 0:
        raise Failed(f"{shlex.join(words)}\nfailed with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def tool(name: str) -> Path:
    """Return the path of a program in the directory of this Python."""
    return Path(sys.prefix, "bin", name)


def only(found: Sequence[Path], what: str) -> Path:
    """Return the only path of a list."""
    if len(found) != 1:
        raise Failed(f"{what}: one was expected, found were {[str(path) for path in found]}")
    return found[0]
