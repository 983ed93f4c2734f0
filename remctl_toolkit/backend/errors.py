"""How a command fails, and the exit status that goes with it.

Exception
└── CommandError         a command fails: one line on standard error, a status of its choice
    ├── UsageError       64: wrong arguments
    ├── DataError        65: wrong data on standard input
    └── DeniedError      77: the caller may not
"""

import os

__all__ = ["CommandError", "DataError", "DeniedError", "UsageError", "one_line", "quoted"]

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


def one_line(text: str) -> str:
    """Return text with all that is not printable escaped: safe for terminals and for logs."""
    if text.isprintable():
        return text
    # What surrogateescape made of octets that are not UTF-8 is shown as these octets.
    escaped = (
        char
        if char.isprintable()
        else f"\\x{ord(char) - 0xDC00:02x}"
        if "\udc80" <= char <= "\udcff"
        else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )
    return "".join(escaped)


def quoted(text: str) -> str:
    """Return an argument as an error message shows it."""
    if len(text) > _LONGEST_QUOTE:
        text = f"{text[:_LONGEST_QUOTE]}..."
    return f"'{one_line(text)}'"
