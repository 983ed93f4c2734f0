"""What comes of a command that runs as in process.py: frames of the far side, and lines in them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

_HEADER = struct.Struct(">cI")
_KINDS = (b"o", b"e", b"s", b"t", b"x", b"b")  # what process/far_follow.py sends
_LONGEST_FRAME = 1 << 20  # octets: none is longer by far


class Frames:
    """Takes apart what process/far_follow.py sends."""

    def __init__(self) -> None:
        self._begun = bytearray()

    def feed(self, octets: bytes) -> list[tuple[bytes, bytes]]:
        """Return the frames that are whole now, as (kind, octets).

        Raises:
            ValueError: what arrived is none.
        """
        self._begun += octets
        found = []
        while len(self._begun) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._begun)
            end = _HEADER.size + length
            if kind not in _KINDS or length > _LONGEST_FRAME:
                raise ValueError(f"{bytes(self._begun[: _HEADER.size])!r} does not begin a frame")
            if len(self._begun) < end:
                break
            body = bytes(self._begun[_HEADER.size : end])
            if kind == b"s" and not re.fullmatch(rb"-?\d{1,3}", body):
                raise ValueError("a status that is none")
            if kind != b"b":  # A beat; it has been of use to the far side.
                found.append((kind, body))
            del self._begun[:end]
        return found


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
