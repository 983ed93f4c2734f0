"""Read default options from files and from REMCTL_FLEET_OPTIONS."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from .secret import UsageError

__all__ = ["SYSTEM", "VARIABLE", "Source", "sources"]

SYSTEM = Path("/etc/remctl-fleet/options")
VARIABLE = "REMCTL_FLEET_OPTIONS"

Source = list[tuple[str, list[str]]]
"""Pairs of a place, such as "FILE, line 3", and the words that it holds."""


def sources() -> Iterator[Source]:
    """Return the defaults of the system, the user and the environment, in rising precedence.

    Raises:
        UsageError: a file cannot be read, or a quotation is not closed.
    """
    yield _of_file(SYSTEM)
    user = _user_folder()
    if user is not None:
        yield _of_file(user / "remctl-fleet" / "options")
    text = os.environ.get(VARIABLE, "")
    yield [(VARIABLE, _words(VARIABLE, text, comments=False))]


def _user_folder() -> Path | None:
    """Return the user's configuration directory; None if unknown, for example without HOME."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(folder):  # The XDG specification says to ignore relative paths.
        folder = os.path.expanduser("~/.config")
    return Path(folder) if os.path.isabs(folder) else None


def _of_file(path: Path) -> Source:
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path}, line {number}"
        found.append((where, _words(where, line, comments=True)))
    return [(where, words) for where, words in found if words]


def _words(where: str, text: str, *, comments: bool) -> list[str]:
    try:
        return shlex.split(text, comments=comments)
    except ValueError as error:
        raise UsageError(f"{where}: {str(error).lower()}") from None
