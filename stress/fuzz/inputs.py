"""Parse an input into calls of the extension and data of the peer.

An input is any sequence of octets:

    mode        1 octet     behaviour of the context and the peer; see the constants below
    plan        1 octet     number of calls (low half), size of the pieces (high half)
    calls       1 octet each
    moments     the rest, split at SPLIT: the peer writes one whenever the client is about to send

A moment that begins with RAW is written unchanged.  Any other is a list of tokens, split at
NEXT_TOKEN: flags, then the payload; the length is added automatically.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

__all__ = [
    "AT_ONCE",
    "BY_PRINCIPAL",
    "END",
    "NEXT_TOKEN",
    "NO_CONFIDENTIALITY",
    "PIECES",
    "RAW",
    "SMALL_BUFFERS",
    "Call",
    "put_together",
    "take_apart",
]

AT_ONCE = 1  # These four are those of fakegss.h.
NO_CONFIDENTIALITY = 2
END = 4
PIECES = 8
BY_PRINCIPAL = 16
SMALL_BUFFERS = 32

SPLIT = b"\xfe\xff"
NEXT_TOKEN = b"\xfe\xfe"
RAW = b"="


class Call(enum.IntEnum):
    """A call of the extension, or several."""

    RUN = 0
    COMMAND = 1
    OUTPUT = 2
    NOOP = 3
    LARGE_COMMAND = 4
    OPEN = 5
    ERROR = 6
    CLOSE = 7


def take_apart(octets: bytes) -> tuple[int, int, list[Call], list[bytes]]:
    """Return the mode, the size of pieces, the calls, and the octets of each moment."""
    mode, plan = octets[:2].ljust(2, b"\0")
    count = plan & 15
    calls = [Call(octet % len(Call)) for octet in octets[2 : 2 + count]]
    moments = [_wire(moment) for moment in octets[2 + count :].split(SPLIT)]
    return mode, 1 << (plan >> 4), calls, moments


def _wire(moment: bytes) -> bytes:
    if moment.startswith(RAW):
        return moment[1:]
    tokens = [token for token in moment.split(NEXT_TOKEN) if token]
    return b"".join(token[:1] + (len(token) - 1).to_bytes(4) + token[1:] for token in tokens)


def put_together(mode: int, calls: list[Call], moments: Iterable[bytes]) -> bytes:
    """Return an input, with pieces of four octets."""
    return bytes([mode, 0x20 | len(calls), *calls]) + SPLIT.join(moments)
