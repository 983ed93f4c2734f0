"""Files that take what a command writes."""

from __future__ import annotations

import io
import os
from typing import Protocol

from _remctl_text import printable


class Writable(Protocol):
    """What a stream can be written to."""

    def write(self, octets: bytes, /) -> int | None:
        """Take some of it."""


def new_mark() -> bytes:
    """Return what no command can guess: it begins the host's own word on standard error."""
    return b"remctl-machine:%b" % os.urandom(12).hex().encode()


def marked(octets: bytes | None, mark: bytes) -> bytes | None:
    """Return the host's own word to us, if that is what it has written."""
    if mark and octets is not None and octets.startswith(mark):
        return octets[len(mark) :]
    return None


class Marked:
    """A file for standard error that keeps the host's own word to us out of it."""

    def __init__(self, file: Writable | None, mark: bytes) -> None:
        self._kept = io.BytesIO()
        self._file: Writable = self._kept if file is None else file
        self._mark = mark
        self.word: bytes | None = None

    def write(self, octets: bytes) -> int | None:
        """Pass on what is not a word to us."""
        word = marked(octets, self._mark)
        if word is None:
            return self._file.write(octets)
        self.word = word
        return len(octets)

    def kept(self) -> bytes | None:
        """Return what no file was given for."""
        return self._kept.getvalue() or None


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
