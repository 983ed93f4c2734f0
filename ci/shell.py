"""Run other programs: what they print is shown, and a failure ends the whole."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class Failed(Exception):
    """Something is not as it must be; the text says what."""


def say(text: str) -> None:
    """Tell what is done now."""
    print(text, flush=True)


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command, and return what it printed.

    Raises:
        Failed: it cannot be run, or fails; the text has what it printed.
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
    """Return the path of a program that was installed beside this Python."""
    return Path(sys.prefix, "bin", name)


def only(found: Sequence[Path], what: str) -> Path:
    """Return the one path that was found."""
    if len(found) != 1:
        raise Failed(f"{what}: one was expected, found were {[str(path) for path in found]}")
    return found[0]
