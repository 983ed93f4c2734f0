"""Exceptions of machines, in addition to those of remctl."""

from __future__ import annotations

import remctl
from _remctl_text import printable


class MachineError(remctl.RemctlError):
    r"""The base class of the exceptions of machines.

    The text is one line.  Unprintable characters in it are escaped, such as ``\x1b``.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable(each) if isinstance(each, str) else each for each in args))


class NoPythonError(MachineError):
    """The host has no remctl command that runs Python for this principal."""


class WorkingFolderError(MachineError):
    """A command was not run because its working directory cannot be entered."""


def describe_folder(folder: bytes, reason: bytes, host: str | None = None) -> str:
    """Return the error message for a working directory that cannot be entered."""
    where = printable(folder) + (f" on {host}" if host else "")
    return f"cannot change to working directory {where}: {printable(reason.strip())}"


class CommandTimeoutError(MachineError, TimeoutError):
    """A command exceeded its timeout and was ended on the remote host.

    `partial` is its result up to then.
    """


class ClosedError(MachineError, ValueError):
    """The connection, channel or machine was closed."""
