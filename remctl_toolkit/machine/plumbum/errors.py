"""plumbum's exception for an exit status, with a text that is safe to print."""

from __future__ import annotations

from plumbum.commands import processes

from _remctl_text import printable

__all__ = ["ProcessExecutionError"]


class ProcessExecutionError(processes.ProcessExecutionError):  # type: ignore[misc]
    """A command ended with another exit status than was expected.

    The text has the command and its output, as plumbum's does, and escapes in place of what is not
    printable; the attributes have both as they are.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), lines=True)
