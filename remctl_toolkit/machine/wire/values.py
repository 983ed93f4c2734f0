"""Reads what the far side returned: plain data, whatever the octets are.

Nothing of it is run, imported or evaluated: what the octets ask for is one of the types below, or
an error.  `call/far_values.py` writes them.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import pathlib
import re
import struct
import uuid
from collections.abc import Callable
from typing import Any

from ..base.errors import MachineError

MAX_DEPTH = 100

# To make a range is to divide its numbers, and large ones take minutes: octets of each at most.
_RANGE_NUMBER = 128
# What has the same hash takes time with its square, in which no other thread runs.  Python's
# hashes of text are secret, those of numbers are not: so many members or keys may be alike.
_MOST_ALIKE = 1000

_SIZE = struct.Struct(">I")
_FLOAT = struct.Struct(">d")
_COMPLEX = struct.Struct(">dd")
_DAY = struct.Struct(">HBB")
_CLOCK = struct.Struct(">BBBI")
_SPAN = struct.Struct(">iii")

_DECIMAL = re.compile(r"-?(?:\d+(?:\.\d+)?(?:E[+-]\d{1,19})?|Infinity|s?NaN\d*)\Z", re.ASCII)


class DecodeError(MachineError, ValueError):
    """The far side sent what is no value: something else than ours answers there."""


class _Reader:
    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0
        self._depth = 0

    def left(self) -> int:
        return len(self._octets) - self._at

    def take(self, count: int) -> bytes:
        start, self._at = self._at, self._at + count
        if self._at > len(self._octets):
            raise DecodeError("a value ends too early")
        return self._octets[start : self._at]

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.take(form.size))

    def sized(self) -> bytes:
        (size,) = self.unpack(_SIZE)
        return self.take(size)

    def text(self) -> str:
        return self.sized().decode("utf-8", "surrogatepass")

    def value(self) -> Any:
        read = _READERS.get(self.take(1))
        if read is None:
            raise DecodeError("a value of no kind that there is")
        return read(self)

    def parts(self, each: int = 1) -> list[Any]:
        """Read so many values after each other as the count before them says."""
        (count,) = self.unpack(_SIZE)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise DecodeError("a value is nested too deep")
        found = [self.value() for _ in range(each * count)]
        self._depth -= 1
        return found


def _int(reader: _Reader) -> int:
    return int.from_bytes(reader.sized(), "big", signed=True)


def _range_number(reader: _Reader) -> int:
    if reader.take(1) != b"i":
        raise DecodeError("a range is of something else than numbers")
    octets = reader.sized()
    if len(octets) > _RANGE_NUMBER:
        raise DecodeError(f"a range has a number of {len(octets)} octets")
    return int.from_bytes(octets, "big", signed=True)


def _decimal(reader: _Reader) -> decimal.Decimal:
    text = reader.text()
    if not _DECIMAL.match(text):
        raise DecodeError("a decimal number is none")
    return decimal.Decimal(text)


def _check_hashes(keys: list[Any]) -> None:
    if len(keys) > _MOST_ALIKE:
        count = max(collections.Counter(map(hash, keys)).values())
        if count > _MOST_ALIKE:
            raise DecodeError(f"{count} members of a set, or keys, have one hash")


def _set(reader: _Reader) -> set[Any]:
    parts = reader.parts()
    _check_hashes(parts)
    found = set(parts)
    if len(found) != len(parts):
        raise DecodeError("a set holds something twice")
    return found


def _dict(reader: _Reader) -> dict[Any, Any]:
    parts = reader.parts(2)
    _check_hashes(parts[::2])
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    if 2 * len(found) != len(parts):
        raise DecodeError("a dictionary has a key twice")
    return found


def _range(reader: _Reader) -> range:
    return range(_range_number(reader), _range_number(reader), _range_number(reader))


def _moment(reader: _Reader) -> dict[str, Any]:
    (fold,) = reader.take(1)
    zone = reader.take(1)
    if zone == b"N":
        return {"fold": fold, "tzinfo": None}
    if zone != b"x":
        raise DecodeError("a time has no such zone")
    offset = _span(reader)
    return {"fold": fold, "tzinfo": datetime.timezone(offset) if offset else datetime.UTC}


def _span(reader: _Reader) -> datetime.timedelta:
    return datetime.timedelta(*reader.unpack(_SPAN))


def _datetime(reader: _Reader) -> datetime.datetime:
    day, clock = reader.unpack(_DAY), reader.unpack(_CLOCK)
    return datetime.datetime(*day, *clock, **_moment(reader))


_READERS: dict[bytes, Callable[[_Reader], Any]] = {
    b"N": lambda reader: None,
    b"T": lambda reader: True,
    b"F": lambda reader: False,
    b"i": _int,
    b"f": lambda reader: reader.unpack(_FLOAT)[0],
    b"c": lambda reader: complex(*reader.unpack(_COMPLEX)),
    b"s": _Reader.text,
    b"b": _Reader.sized,
    b"a": lambda reader: bytearray(reader.sized()),
    b"r": _range,
    b"L": _Reader.parts,
    b"U": lambda reader: tuple(reader.parts()),
    b"S": _set,
    b"Z": lambda reader: frozenset(_set(reader)),
    b"M": _dict,
    b"D": _datetime,
    b"d": lambda reader: datetime.date(*reader.unpack(_DAY)),
    b"t": lambda reader: datetime.time(*reader.unpack(_CLOCK), **_moment(reader)),
    b"x": _span,
    b"n": _decimal,
    b"p": lambda reader: pathlib.PurePosixPath(reader.text()),
    b"u": lambda reader: uuid.UUID(bytes=reader.take(16)),
}


def decode(octets: bytes) -> Any:
    """Return the value that `octets` stand for.

    None, bool, int, float, complex, str, bytes, bytearray, range, list, tuple, set, frozenset,
    dict, datetime, date, time, timedelta, Decimal, PurePosixPath and UUID: exactly these types.
    In memory it may take fifty times as much as `octets`: an empty set stands in five of them.

    Raises:
        DecodeError: they stand for none.
    """
    reader = _Reader(octets)
    try:
        value = reader.value()
    except DecodeError:
        raise
    except (ValueError, TypeError, ArithmeticError, struct.error) as error:
        raise DecodeError(f"a value cannot be as it was sent: {error}") from None
    if reader.left():
        raise DecodeError("there is more than one value")
    return value
