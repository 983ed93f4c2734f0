"""What can go wrong with a machine beyond what can go wrong with remctl itself."""

from __future__ import annotations

import remctl
from _remctl_text import printable


class MachineError(remctl.RemctlError):
    r"""Something about the far side is not as it has to be; the base of these exceptions.

    The text is one line, in which nothing but printable characters is left of what the far side
    has said: others are escapes like ``\x1b``.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable(each) if isinstance(each, str) else each for each in args))


class NoPythonError(MachineError):
    """The host has no remctl command that runs Python for this principal, or not as it must."""


class WorkingFolderError(MachineError):
    """A command was not run because its working directory cannot be entered."""


def describe_folder(folder: bytes, reason: bytes, host: str | None = None) -> str:
    """Return the text for a working directory that cannot be entered.

    Args:
        folder: the directory.
        reason: the server's reason.
        host: the host; None leaves it out.
    """
    where = printable(folder) + (f" on {host}" if host else "")
    return f"cannot change to working directory {where}: {printable(reason.strip())}"


class CommandTimeoutError(MachineError, TimeoutError):
    """A command took longer than it was given; it was ended on the far side.

    `partial` is what it had produced until then.
    """


class ClosedError(MachineError, ValueError):
    """The connection, channel or machine was closed."""
