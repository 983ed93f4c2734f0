"""Binary files that receive a command's output."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from _remctl_text import printable

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


def new_mark() -> bytes:
    """Return a random prefix for messages from our own programs on standard error."""
    return b"remctl-machine:%b" % os.urandom(12).hex().encode()


def marked(octets: bytes | None, mark: bytes) -> bytes | None:
    """Return the message after the mark, if there is one."""
    if not mark or octets is None:
        return None
    _, found, message = octets.partition(mark)
    return message if found else None


class Marked:
    """A file for standard error that filters out a marked message."""

    def __init__(self, file: SupportsWrite[bytes], mark: bytes) -> None:
        self._file = file
        self._mark = mark
        self.message: bytes | None = None

    def write(self, octets: bytes) -> object:
        """Write octets, or keep a marked message as `message`."""
        message = marked(octets, self._mark)
        if message is None:
            return self._file.write(octets)
        self.message = message
        return len(octets)


class Bounded:
    """A file in memory with a size limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.octets = b""

    def write(self, octets: bytes) -> int:
        """Append octets; raise ValueError beyond the limit."""
        self.octets += octets
        if len(self.octets) > self._limit:
            raise ValueError(f"more than {self._limit} octets")
        return len(octets)


class Tail:
    """The last 4 KB of a stream, for error messages."""

    def __init__(self) -> None:
        self._octets = b""

    def write(self, octets: bytes) -> int:
        """Append octets."""
        self._octets = (self._octets + octets)[-4096:]
        return len(octets)

    def __str__(self) -> str:
        """Return the last line, with unprintable characters escaped."""
        lines = self._octets.strip().splitlines()
        return printable(lines[-1]) if lines else ""
