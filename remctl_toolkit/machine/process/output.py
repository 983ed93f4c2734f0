"""Lines in what a command writes, which arrives in pieces."""

from __future__ import annotations

from collections.abc import Iterator


class Lines:
    """Makes lines of octets that come in pieces."""

    def __init__(self) -> None:
        self._begun = bytearray()

    def feed(self, octets: bytes) -> Iterator[bytes]:
        """Return the lines that have come to their end."""
        if b"\n" not in octets:
            self._begun += octets
            return
        first, *others = octets.split(b"\n")
        yield _stripped(bytes(self._begun + first))
        self._begun = bytearray(others.pop())
        yield from map(_stripped, others)

    def end(self) -> Iterator[bytes]:
        """Return the last one, if it has no end."""
        if self._begun:
            yield _stripped(bytes(self._begun))


def _stripped(line: bytes) -> bytes:
    return line.removesuffix(b"\r")


def text_lines(octets: bytes | bytearray) -> list[str]:
    """Return lines as text; octets that are no UTF-8 as os.fsdecode() has them."""
    if not octets:
        return []
    lines = bytes(octets).removesuffix(b"\n").split(b"\n")
    return [_stripped(line).decode("utf-8", "surrogateescape") for line in lines]
