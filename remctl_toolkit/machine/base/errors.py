"""Exceptions of machines, besides those of remctl itself."""

from __future__ import annotations

import remctl
from _remctl_text import printable


class MachineError(remctl.RemctlError):
    r"""The base of the exceptions of machines.

    The text is one line.  Characters from the remote host that are not printable are escapes in
    it, such as ``\x1b``.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable(each) if isinstance(each, str) else each for each in args))


class NoPythonError(MachineError):
    """The host has no remctl command that runs Python for this principal."""


class WorkingFolderError(MachineError):
    """A command was not run because its working directory cannot be entered."""


def describe_folder(folder: bytes, reason: bytes, host: str | None = None) -> str:
    """Return the text for a working directory that cannot be entered, with the host's reason."""
    where = printable(folder) + (f" on {host}" if host else "")
    return f"cannot change to working directory {where}: {printable(reason.strip())}"


class CommandTimeoutError(MachineError, TimeoutError):
    """A command took longer than it was given; it was ended on the remote host.

    `partial` is what it had produced until then.
    """


class ClosedError(MachineError, ValueError):
    """The connection, channel or machine was closed."""
