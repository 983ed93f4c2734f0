"""The remctl protocol's numbers and layouts, for tests that speak it byte by byte."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

MAX_TOKEN = 1024 * 1024  # payload of a token, as the protocol bounds it
MAX_DATA = 64 * 1024  # plaintext of one token, before it is wrapped
MAX_OUTPUT = MAX_DATA - 7  # data of one OUTPUT message
MAX_OUTPUT_V1 = MAX_DATA - 8  # data of a protocol 1 result

HEADER = struct.Struct(">BI")
NUMBER = struct.Struct(">I")


class Flag(enum.IntFlag):
    """The flag octet of a token."""

    NOOP = 0x01
    CONTEXT = 0x02
    DATA = 0x04
    MIC = 0x08
    CONTEXT_NEXT = 0x10
    SEND_MIC = 0x20
    PROTOCOL = 0x40


class Message(enum.IntEnum):
    """The type octet of a protocol 2 or 3 message."""

    COMMAND = 1
    QUIT = 2
    OUTPUT = 3
    STATUS = 4
    ERROR = 5
    VERSION = 6
    NOOP = 7


class Error(enum.IntEnum):
    """The codes of an ERROR message."""

    INTERNAL = 1
    BAD_TOKEN = 2
    UNKNOWN_MESSAGE = 3
    BAD_COMMAND = 4
    UNKNOWN_COMMAND = 5
    ACCESS = 6
    TOOMANY_ARGS = 7
    TOOMUCH_DATA = 8
    UNEXPECTED_MESSAGE = 9
    NO_HELP = 10


class Continue(enum.IntEnum):
    """The continue status of a COMMAND message."""

    WHOLE = 0
    FIRST = 1
    MIDDLE = 2
    LAST = 3


class ProtocolError(Exception):
    """The client sent what the protocol does not allow."""


class Token(NamedTuple):
    """One token as it crossed the wire."""

    flags: int
    payload: bytes


def pack_token(flags: int, payload: bytes, length: int | None = None) -> bytes:
    """Return a token; `length` is the length in its header, by default the right one."""
    return HEADER.pack(flags, len(payload) if length is None else length) + payload


def tokens_in(octets: bytes | bytearray) -> list[Token]:
    """Parse a sequence of tokens."""
    found = []
    place = 0
    while place < len(octets):
        flags, length = HEADER.unpack_from(octets, place)
        place += HEADER.size
        found.append(Token(flags, bytes(octets[place : place + length])))
        place += length
    return found


def pack_output(data: bytes, stream: int = 1) -> bytes:
    """An OUTPUT message."""
    return bytes([2, Message.OUTPUT, stream]) + NUMBER.pack(len(data)) + data


def pack_status(status: int) -> bytes:
    """A STATUS message; the status is 0..255."""
    return bytes([2, Message.STATUS, status])


def pack_error(code: int, text: bytes) -> bytes:
    """An ERROR message."""
    return bytes([2, Message.ERROR]) + NUMBER.pack(code) + NUMBER.pack(len(text)) + text


def pack_version(highest: int) -> bytes:
    """A VERSION message: the highest protocol version that the server speaks."""
    return bytes([2, Message.VERSION, highest])


def pack_noop() -> bytes:
    """A NOOP message, which is protocol 3's own."""
    return bytes([3, Message.NOOP])


def pack_v1_result(data: bytes, status: int) -> bytes:
    """Return the answer of protocol 1; a negative status is encoded as two's complement."""
    return NUMBER.pack(status & 0xFFFFFFFF) + NUMBER.pack(len(data)) + data


def parse_arguments(data: bytes) -> list[bytes]:
    """Parse a command: the count, then a length and the bytes of each argument."""
    count, offset = parse_number(data, 0)
    arguments = []
    for _ in range(count):
        length, offset = parse_number(data, offset)
        if offset + length > len(data):
            raise ProtocolError(f"an argument of {length} bytes runs past the command's end")
        arguments.append(data[offset : offset + length])
        offset += length
    if offset != len(data):
        raise ProtocolError(f"{len(data) - offset} bytes after the last argument")
    return arguments


def parse_number(data: bytes, offset: int) -> tuple[int, int]:
    """Read four bytes; return the number and the offset behind it."""
    if offset + NUMBER.size > len(data):
        raise ProtocolError("a number is cut short")
    return NUMBER.unpack_from(data, offset)[0], offset + NUMBER.size
