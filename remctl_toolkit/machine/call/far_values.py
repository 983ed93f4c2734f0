"""Encode results as plain data for wire/values.py.

A value is a letter and its content.  Sizes and counts are four octets, big-endian.
"""

import struct

MAX_DEPTH = 100
RANGE_BITS = 1016  # see wire/values.py

pack_size = struct.Struct(">I").pack


class Unsendable(TypeError):
    """A value contains something that is not plain data."""


def sized(letter, octets):
    return letter + pack_size(len(octets)) + octets


def integer(value):
    value = int.__int__(value)
    return sized(b"i", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def in_range(value):
    numbers = (value.start, value.stop, value.step)
    if max(number.bit_length() for number in numbers) > RANGE_BITS:
        raise ValueError(f"a range with a number of more than {RANGE_BITS} bits")
    return numbers


def clock(value):
    moment = (value.hour, value.minute, value.second, value.microsecond)
    return (*moment, value.utcoffset(), value.fold)


# These use methods of the base class, because a subclass may override them.
SIMPLE = {
    type(None): lambda value: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: integer,
    float: lambda value: b"f" + struct.pack(">d", float.__float__(value)),
    str: lambda value: sized(b"s", str.encode(value, "utf-8", "surrogatepass")),
    bytes: lambda value: sized(b"b", bytes(memoryview(value))),
    memoryview: lambda value: sized(b"b", value.tobytes()),
}

# Constructor names and arguments.  Types are known by name: importing them takes too long.
MADE = {
    ("builtins", "complex"): lambda value: ("complex", value.real, value.imag),
    ("builtins", "bytearray"): lambda value: ("bytearray", bytes(memoryview(value))),
    ("builtins", "range"): lambda value: ("range", *in_range(value)),
    ("datetime", "datetime"): lambda v: ("datetime", v.year, v.month, v.day, *clock(v)),
    ("datetime", "date"): lambda value: ("date", value.year, value.month, value.day),
    ("datetime", "time"): lambda value: ("time", *clock(value)),
    ("datetime", "timedelta"): lambda v: ("timedelta", v.days, v.seconds, v.microseconds),
    ("decimal", "Decimal"): lambda value: ("Decimal", str(value)),
    ("pathlib", "PurePosixPath"): lambda value: ("path", str(value)),
    ("pathlib._local", "PurePosixPath"): lambda value: ("path", str(value)),
    ("uuid", "UUID"): lambda value: ("UUID", value.bytes),
}

LETTERS = {list: b"L", tuple: b"U", set: b"S", frozenset: b"Z", dict: b"M"}

CURES = (
    ("__dataclass_fields__", "return dataclasses.asdict(...) of it"),
    ("__await__", "call it with asyncio.run() in the function"),
    ("_value2member_map_", "return its .value"),
    ("__class__", "return plain data made from it"),
)


class Encoder:
    def __init__(self, limit):
        self.limit = limit
        self.size = 0
        self.pieces = []
        self.path = []
        self.open = set()

    def add(self, octets):
        self.size += len(octets)
        if self.size > self.limit:
            raise Unsendable(f"result takes more than {self.limit} octets; return less")
        self.pieces.append(octets)

    def value(self, value):
        for base in type(value).__mro__:
            try:
                if base in SIMPLE:
                    return self.add(SIMPLE[base](value))
                if base in LETTERS:
                    return self.container(LETTERS[base], value)
                made = MADE.get((base.__module__, base.__qualname__))
                if made is not None:
                    return self.container(b"@", made(value))
            except Unsendable:
                raise
            except Exception as error:
                raise Unsendable(f"{self.place()} cannot be encoded: {error!r}") from None
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        cure = next(cure for mark, cure in CURES if hasattr(kind, mark))
        raise Unsendable(f"{self.place()} is a {name}, but only plain data can be returned: {cure}")

    def container(self, letter, value):
        if id(value) in self.open:
            raise Unsendable(f"{self.place()} contains itself")
        if len(self.path) >= MAX_DEPTH:
            raise Unsendable(f"result is nested more than {MAX_DEPTH} deep")
        self.open.add(id(value))
        # Other threads may change the original.
        parts = list(value.items()) if letter == b"M" else list(value)
        self.add(letter + pack_size(len(parts)))
        self.path.append(None)
        for place, part in enumerate(parts):
            if letter == b"M":
                self.path[-1] = "a key"
                self.value(part[0])
                self.path[-1] = part[0]
                self.value(part[1])
            else:
                self.path[-1] = place if letter in b"LU" else "a member"
                self.value(part)
        self.path.pop()
        self.open.discard(id(value))

    def place(self):
        words = ["result"]
        for step in self.path[:8]:
            words.append(f" ({step})" if step in ("a key", "a member") else f"[{ascii(step)[:40]}]")
        return "".join(words)


def encode(value, limit):
    encoder = Encoder(limit)
    encoder.value(value)
    return b"".join(encoder.pieces)
