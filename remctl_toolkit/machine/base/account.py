"""What is found out about an account when it is connected to."""

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

# Runs a remctl command of which nothing is known yet: ValueError if it writes too much.
Probe: TypeAlias = "Callable[[tuple[str | bytes, ...]], remctl.RemctlSimpleResult]"

OLDEST_PYTHON = (3, 8)
LONGEST_ANSWER = 1 << 16  # octets

_LONGEST_WORD = 400  # characters of what something else said than we asked


class FarSide(NamedTuple):
    """What was found on the remote host when it was connected to.

    Attributes:
        python_version: of the interpreter that runs there, as (major, minor, micro).
        python: its path.
        uid: the user that commands run as.
        user, home, shell: that user's name, home folder ("/" if it cannot be entered) and shell.
        path: where remctld looks for programs, its PATH.
        system: what uname(2) says: the system's name, node, release, version and machine.
        client: the address of this client as remctld sees it, its REMOTE_ADDR; "" if it is unknown.
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
    """Return what `base/far_probe.py` prints, run by the remctl command `python`."""
    payload = python_payload(source("base/far_probe"))
    try:
        far = _far_side(probe((python, *python_arguments("probe"), payload)))
    except remctl.RemctlServerError as error:
        text = f"{host} does not let us run its command {python!r}: {error}"
    except ValueError as error:
        text = f"command {python!r} of {host} does not run Python as it must: {error}"
    else:
        if far.python_version >= OLDEST_PYTHON:
            return far
        found, needed = (".".join(map(str, v)) for v in (far.python_version, OLDEST_PYTHON))
        raise NoPythonError(f"Python {found} of {host} is too old: {needed} is needed")
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
        last = printable(said[-1]) if said else f"status {result.status}, and no word"
        if any(b"No module named 'encodings'" in line for line in said):
            last = "it finds no modules, as remctld starts it without its folder: name a script "
            last += 'that runs it by its path: exec /PATH/bin/python3 "$@"'
        raise ValueError(last[:_LONGEST_WORD]) from None
    return far


def find_shell(
    probe: Probe, host: str, python: str, shell: str, uid: int
) -> tuple[str | None, bytes | None]:
    """Return the remctl command `shell`, or None if that does not run sh, as that user.

    The other value is the folder in which the shell can make those of channels, see
    channel/keeper.py; None if it cannot start their commands.
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
        raise MachineError(f"{text}: name another, or None, as the command for the shell")
    return shell, found[2]
