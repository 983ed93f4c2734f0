"""Files that take what a command writes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from _remctl_text import printable

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


def new_mark() -> bytes:
    """Return what no command can guess: it begins the host's own word on standard error."""
    return b"remctl-machine:%b" % os.urandom(12).hex().encode()


def marked(octets: bytes | None, mark: bytes) -> bytes | None:
    """Return the host's own word to us, if that is in what was written."""
    if not mark or octets is None:
        return None
    _, found, word = octets.partition(mark)
    return word if found else None


class Marked:
    """A file for standard error that keeps the host's own word to us out of it."""

    def __init__(self, file: SupportsWrite[bytes], mark: bytes) -> None:
        self._file = file
        self._mark = mark
        self.word: bytes | None = None

    def write(self, octets: bytes) -> object:
        """Pass on what is not a word to us."""
        word = marked(octets, self._mark)
        if word is None:
            return self._file.write(octets)
        self.word = word
        return len(octets)


class Bounded:
    """A file in memory for an answer of ours, which is never long."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.octets = b""

    def write(self, octets: bytes) -> int:
        """Take some of it; ValueError if that is too much."""
        self.octets += octets
        if len(self.octets) > self._limit:
            raise ValueError(f"more than {self._limit} octets")
        return len(octets)


class Tail:
    """The last 4 KB of a stream where nothing is said unless something fails."""

    def __init__(self) -> None:
        self._octets = b""

    def write(self, octets: bytes) -> int:
        """Take some of it."""
        self._octets = (self._octets + octets)[-4096:]
        return len(octets)

    def __str__(self) -> str:
        """Return the last line, printable."""
        lines = self._octets.strip().splitlines()
        return printable(lines[-1]) if lines else ""
