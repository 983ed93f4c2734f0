"""What is found out about the account on the far side when it is connected to."""

from __future__ import annotations

from typing import Any, NamedTuple

import remctl
from _remctl_text import printable

from .errors import NoPythonError
from .program import literal

OLDEST_PYTHON = (3, 8)
LONGEST_ANSWER = 1 << 16  # octets

_LONGEST_WORD = 200  # characters of what something else said than we asked


class FarSide(NamedTuple):
    """What was found on the far side when it was connected to.

    Attributes:
        python_version: of the interpreter that runs there, as (major, minor, micro).
        python: its path.
        uid: the user that commands run as.
        user, home, shell: that user's name, home folder ("/" if it cannot be entered) and shell.
        path: where remctld looks for programs, its PATH.
        system: what uname(2) says: the system's name, node, release, version and machine.
    """

    python_version: tuple[int, int, int]
    python: str
    uid: int
    user: str
    home: str
    shell: str
    path: str
    system: tuple[str, str, str, str, str]


def _checked(told: Any) -> FarSide:
    far = FarSide(**told)
    numbers: list[object] = [*far.python_version, far.uid]
    texts: tuple[object, ...] = (far.python, far.user, far.home, far.shell, far.path, *far.system)
    if len(numbers) != 4 or not all(isinstance(number, int) for number in numbers):
        raise ValueError("no version, or no user")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("no text")
    return far


def far_side(host: str, result: remctl.RemctlSimpleResult) -> FarSide:
    """Return what the far side has told.

    Raises:
        ValueError: that is something else.
        NoPythonError: its Python is too old.
    """
    try:
        far = _checked(literal(result.stdout or b"", LONGEST_ANSWER))
    except (TypeError, ValueError):
        said = (result.stderr or result.stdout or b"").strip().splitlines()
        last = printable(said[-1]) if said else f"status {result.status}, and no word"
        raise ValueError(last[:_LONGEST_WORD]) from None
    if far.python_version < OLDEST_PYTHON:
        found, needed = (".".join(map(str, v)) for v in (far.python_version, OLDEST_PYTHON))
        raise NoPythonError(f"Python {found} of {host} is too old: {needed} is needed")
    return far
