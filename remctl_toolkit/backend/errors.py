"""Exceptions that make a command fail, and their exit statuses.

Exception
└── CommandError         one line on standard error, and any status
    ├── UsageError       64: wrong arguments
    ├── DataError        65: malformed data on standard input
    └── DeniedError      77: the caller is not allowed
"""

import os

from _remctl_text import printable

__all__ = ["CommandError", "DataError", "DeniedError", "UsageError", "quoted"]

_LONGEST_QUOTE = 60  # longest part of an argument quoted in an error, in characters


class CommandError(Exception):
    """The command fails; the text becomes one line on standard error.

    Attributes:
        status: the exit status, 1 to 255.
    """

    status = 1

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        if status is not None:
            if not 1 <= status <= 255:
                raise ValueError(f"the status of an error must be 1 to 255, not {status}")
            self.status = status


class UsageError(CommandError):
    """There are too few or too many arguments, or one is malformed."""

    status = os.EX_USAGE


class DataError(CommandError):
    """The data on standard input are malformed."""

    status = os.EX_DATAERR


class DeniedError(CommandError):
    """The caller is not allowed to do this."""

    status = os.EX_NOPERM


def quoted(text: str) -> str:
    """Return an argument for an error message, shortened if need be."""
    if len(text) > _LONGEST_QUOTE:
        text = f"{text[:_LONGEST_QUOTE]}..."
    return f"'{printable(text)}'"
