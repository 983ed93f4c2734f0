"""Decode results from the remote host, which `call/far_values.py` encodes.

The octets are not trusted.  Decoding runs, imports and evaluates nothing: it returns values of the
types below, or raises an error.
"""

from __future__ import annotations

import datetime
import decimal
import pathlib
import re
import struct
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from ..base.errors import MachineError

MAX_DEPTH = 100

# The bits of a range's numbers are limited: making a range divides them, which can take minutes.
_RANGE_BITS = 1016
# Hashes of numbers are predictable, so a host can choose keys that all collide; adding them would
# block all threads.  So keys and set members are added a few at a time, within a limit of processor
# time: _FREE_TIME, and _TIME_EACH per octet.  Normal data takes a tenth of it.
_PIECE = 16
_PROBES = 1 << 20  # hash probes for a piece at most
_FREE_TIME = 0.05  # seconds
_TIME_EACH = 2e-7  # seconds
# Comparing a Decimal with an int of the same hash takes time with the square of its length.
_COMPARED_BITS = 8192

_FLOAT = struct.Struct(">d")

_DECIMAL = re.compile(r"-?(?:\d+(?:\.\d+)?(?:E[+-]\d{1,19})?|Infinity|s?NaN\d*)\Z", re.ASCII)


class DecodeError(MachineError, ValueError):
    """The remote host sent a malformed value."""


class _Reader:
    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.at = 0  # the position in the octets
        self.decimals = False  # whether the value contains Decimals
        self._time_left = _FREE_TIME + _TIME_EACH * len(octets)

    def take(self, count: int) -> bytes:
        start, self.at = self.at, self.at + count
        if self.at > len(self._octets):
            raise DecodeError("a value ends too early")
        return self._octets[start : self.at]

    def size(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def sized(self) -> bytes:
        return self.take(self.size())

    def value(self) -> Any:
        """Read a value, without recursion, because the caller's stack may be small."""
        # Incomplete containers: the letter, the number of parts, and the parts so far.
        open_: list[tuple[bytes, int, list[Any]]] = [(b"L", 1, [])]
        while True:
            letter = self.take(1)
            if letter in _BUILDERS:
                count = self.size()
                if len(open_) > MAX_DEPTH:
                    raise DecodeError("a value is nested too deep")
                open_.append((letter, 2 * count if letter == b"M" else count, []))
            elif letter in _READERS:
                open_[-1][2].append(_READERS[letter](self))
            else:
                raise DecodeError("a value of an unknown kind")
            while len(open_[-1][2]) == open_[-1][1]:
                letter, _, parts = open_.pop()
                if not open_:
                    return parts[0]
                open_[-1][2].append(_BUILDERS[letter](self, parts))

    def fill(self, found: Any, keys: Sequence[Any], parts: Sequence[Any]) -> Any:
        """Add parts with these keys to a set or dictionary."""
        if self.decimals:
            _check_numbers(keys)
        place = 0
        while place < len(parts):
            size = max(1, min(_PIECE, _PROBES // (len(found) + 1)))
            piece = parts[place : place + size]
            start = time.thread_time()
            found.update(piece)
            self._time_left -= time.thread_time() - start
            if self._time_left < 0:
                raise DecodeError("keys or set members whose hashes collide")
            place += size
        if len(found) != len(parts):
            raise DecodeError("a repeated key or set member")
        return found


def _check_numbers(keys: Sequence[Any]) -> None:
    for key in keys:
        if isinstance(key, tuple | frozenset):
            _check_numbers(tuple(key))
        elif isinstance(key, int) and key.bit_length() > _COMPARED_BITS:
            raise DecodeError("a key or set member is a long number in a value with decimals")


def _dict(reader: _Reader, parts: list[Any]) -> dict[Any, Any]:
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    found: dict[Any, Any] = reader.fill({}, parts[::2], pairs)
    return found


# -- Values with a constructor --------------------------------------------------------------------


def _make(reader: _Reader, parts: list[Any]) -> Any:
    name, *arguments = parts
    make, types = _MAKERS[name]
    if not types.issuperset(map(type, arguments)):
        raise DecodeError("a value has a part of the wrong type")
    reader.decimals |= make is _decimal
    return make(*arguments)


def _range(*numbers: int) -> range:
    if any(number.bit_length() > _RANGE_BITS for number in numbers):
        raise DecodeError(f"a range has a number of more than {_RANGE_BITS} bits")
    return range(*numbers)


def _decimal(text: str) -> decimal.Decimal:
    if not _DECIMAL.match(text):
        raise DecodeError("a malformed decimal number")
    return decimal.Decimal(text)


def _moment(kind: Any) -> Callable[..., Any]:
    def make(*arguments: Any) -> Any:
        *numbers, offset, fold = arguments
        zone = datetime.timezone(offset) if offset else None if offset is None else datetime.UTC
        return kind(*numbers, tzinfo=zone, fold=fold)

    return make


_OF_MOMENTS = {int, type(None), datetime.timedelta}
_MAKERS: dict[str, tuple[Callable[..., Any], set[Any]]] = {
    "complex": (complex, {float}),
    "bytearray": (bytearray, {bytes}),
    "range": (_range, {int}),
    "datetime": (_moment(datetime.datetime), _OF_MOMENTS),
    "date": (datetime.date, {int}),
    "time": (_moment(datetime.time), _OF_MOMENTS),
    "timedelta": (datetime.timedelta, {int}),
    "Decimal": (_decimal, {str}),
    "path": (pathlib.PurePosixPath, {str}),
    "UUID": (lambda octets: uuid.UUID(bytes=octets), {bytes}),
}

_READERS: dict[bytes, Callable[[_Reader], Any]] = {
    b"N": lambda reader: None,
    b"T": lambda reader: True,
    b"F": lambda reader: False,
    b"i": lambda reader: int.from_bytes(reader.sized(), "big", signed=True),
    b"f": lambda reader: _FLOAT.unpack(reader.take(8))[0],
    b"s": lambda reader: reader.sized().decode("utf-8", "surrogatepass"),
    b"b": _Reader.sized,
}

_BUILDERS: dict[bytes, Callable[[_Reader, list[Any]], Any]] = {
    b"L": lambda reader, parts: parts,
    b"U": lambda reader, parts: tuple(parts),
    b"S": lambda reader, parts: reader.fill(set(), parts, parts),
    b"Z": lambda reader, parts: frozenset(reader.fill(set(), parts, parts)),
    b"M": _dict,
    b"@": _make,
}


def decode(octets: bytes) -> Any:
    """Decode a value.

    None, bool, int, float, complex, str, bytes, bytearray, range, list, tuple, set, frozenset,
    dict, datetime, date, time, timedelta, Decimal, PurePosixPath and UUID: exactly these types.
    It may take fifty times the memory of `octets`: an empty set is encoded in five octets.

    Raises:
        DecodeError: `octets` are malformed.
    """
    reader = _Reader(octets)
    try:
        value = reader.value()
    except DecodeError:
        raise
    except (ValueError, TypeError, KeyError, ArithmeticError, struct.error) as error:
        raise DecodeError(f"an invalid value: {error}") from None
    if reader.at < len(octets):
        raise DecodeError("there is more than one value")
    return value
