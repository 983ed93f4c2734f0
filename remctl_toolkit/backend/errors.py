"""How a command fails, and the exit status that goes with it.

Exception
└── CommandError         a command fails: one line on standard error, a status of its choice
    ├── UsageError       64: wrong arguments
    ├── DataError        65: wrong data on standard input
    └── DeniedError      77: the caller may not
"""

import os

from _remctl_text import printable

__all__ = ["CommandError", "DataError", "DeniedError", "UsageError", "quoted"]

_LONGEST_QUOTE = 60  # characters of an argument that an error message repeats


class CommandError(Exception):
    """The command fails: its text is the line on standard error.

    Attributes:
        status: the exit status, 1 to 255.
    """

    status = 1

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        if status is not None:
            if not 1 <= status <= 255:
                raise ValueError(f"the status of a failure is 1 to 255, not {status}")
            self.status = status


class UsageError(CommandError):
    """The arguments are wrong: there are too few or too many, or one is malformed."""

    status = os.EX_USAGE


class DataError(CommandError):
    """The data on standard input are malformed."""

    status = os.EX_DATAERR


class DeniedError(CommandError):
    """The caller may not do this."""

    status = os.EX_NOPERM


def quoted(text: str) -> str:
    """Return an argument as an error message shows it."""
    if len(text) > _LONGEST_QUOTE:
        text = f"{text[:_LONGEST_QUOTE]}..."
    return f"'{printable(text)}'"
