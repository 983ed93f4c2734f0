"""Examine an account when a connection to it is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import remctl
from _remctl_text import printable

from .errors import MachineError, NoPythonError
from .program import (
    SHELL_ANSWER,
    SHELL_LOADER,
    SHELL_PROBE,
    literal,
    python_arguments,
    python_payload,
    source,
)

# Runs a remctl command that may be any program; raises ValueError if it writes too much.
Probe: TypeAlias = "Callable[[tuple[str | bytes, ...]], remctl.RemctlSimpleResult]"

OLDEST_PYTHON = (3, 8)
LONGEST_ANSWER = 1 << 16  # octets

_LONGEST_WORD = 400  # characters of unexpected output that are quoted in an error


class FarSide(NamedTuple):
    """Properties of the remote account, found when the connection was opened.

    Attributes:
        python_version: of the remote interpreter, as (major, minor, micro).
        python: its path.
        uid: the user that commands run as.
        user, home, shell: that user's name, home directory ("/" if it cannot be entered) and shell.
        path: remctld's PATH.
        system: the result of uname(2): the system's name, node, release, version and machine.
        client: this client's address as seen by remctld (REMOTE_ADDR); "" if it is unknown.
    """

    python_version: tuple[int, int, int]
    python: str
    uid: int
    user: str
    home: str
    shell: str
    path: str
    system: tuple[str, str, str, str, str]
    client: str = ""


def find_python(probe: Probe, host: str, python: str) -> FarSide:
    """Run `base/far_probe.py` by the remctl command `python`, and return what it found."""
    payload = python_payload(source("base/far_probe"))
    try:
        far = _far_side(probe((python, *python_arguments("probe"), payload)))
    except remctl.RemctlServerError as error:
        text = f"{host} refused remctl command {python!r}: {error}"
    except ValueError as error:
        text = f"remctl command {python!r} on {host} did not run Python: {error}"
    else:
        if far.python_version >= OLDEST_PYTHON:
            return far
        found, needed = (".".join(map(str, v)) for v in (far.python_version, OLDEST_PYTHON))
        raise NoPythonError(f"Python {found} on {host} is too old: {needed} or later is needed")
    cure = f"{python} ALL /usr/bin/python3 stdin=last user=NAME ACL"
    raise NoPythonError(f"{text}; the remctl.conf of {host} needs a line such as: {cure}")


def _far_side(result: remctl.RemctlSimpleResult) -> FarSide:
    try:
        far = FarSide(**literal(result.stdout or b"", LONGEST_ANSWER))
        numbers = [*far.python_version, far.uid]
        texts = [far.python, far.user, far.home, far.shell, far.path, far.client, *far.system]
        if list(map(type, numbers)) != [int] * 4 or set(map(type, texts)) != {str}:
            raise ValueError
    except (TypeError, ValueError):
        said = (result.stderr or result.stdout or b"").strip().splitlines()
        last = printable(said[-1]) if said else f"status {result.status}, no output"
        if any(b"No module named 'encodings'" in line for line in said):
            last = "it cannot find its modules, because remctld starts it without its directory: "
            last += 'name a script in its place: exec /PATH/bin/python3 "$@"'
        raise ValueError(last[:_LONGEST_WORD]) from None
    return far


def find_shell(
    probe: Probe, host: str, python: str, shell: str, uid: int
) -> tuple[str | None, bytes | None]:
    """Return the remctl command `shell`, or None if that does not run sh as that user.

    The second value is the directory where the shell can make those of channels, see
    channel/keeper.py; None if the shell cannot start commands of channels.
    """
    try:
        answer = probe((shell, "-c", SHELL_LOADER, "probe", SHELL_PROBE)).stdout or b""
    except (remctl.RemctlServerError, ValueError):
        return None, None
    found = SHELL_ANSWER.fullmatch(answer)
    if found is None:
        return None, None
    if int(found[1]) != uid:
        text = f"on {host}, command {python!r} runs as user {uid} but {shell!r} as {int(found[1])}"
        raise MachineError(f"{text}: set shell= to the name of another command, or to None")
    return shell, found[2]
