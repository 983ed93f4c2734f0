"""Writes results as octets that machine/values.py reads: plain data, and nothing that could run.

A value is a letter and what belongs to it.  Sizes and counts are four octets, the high one first.
"""

import struct

MAX_DEPTH = 100
RANGE_NUMBER = 128  # octets; see machine/values.py

pack_size = struct.Struct(">I").pack


class Unsendable(TypeError):
    """There is something in a value that is not plain data."""


def sized(letter, octets):
    return letter + pack_size(len(octets)) + octets


def text(letter, value):
    return sized(letter, value.encode("utf-8", "surrogatepass"))


def number(value):
    return sized(b"i", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def range_numbers(value):
    numbers = [number(part) for part in (value.start, value.stop, value.step)]
    if max(map(len, numbers)) > 5 + RANGE_NUMBER:
        raise ValueError(f"a range with a number of more than {RANGE_NUMBER} octets")
    return b"r" + b"".join(numbers)


def moment(value):
    offset = value.utcoffset()
    if offset is None:
        zone = b"N"
    else:
        zone = b"x" + struct.pack(">iii", offset.days, offset.seconds, offset.microseconds)
    return bytes([value.fold]) + zone


def clock(value):
    return struct.pack(">BBBI", value.hour, value.minute, value.second, value.microsecond)


def day(value):
    return struct.pack(">HBB", value.year, value.month, value.day)


def span(value):
    return b"x" + struct.pack(">iii", value.days, value.seconds, value.microseconds)


SIMPLE = {
    type(None): lambda value: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: number,
    float: lambda value: b"f" + struct.pack(">d", value),
    complex: lambda value: b"c" + struct.pack(">dd", value.real, value.imag),
    str: lambda value: text(b"s", value),
    bytes: lambda value: sized(b"b", value),
    bytearray: lambda value: sized(b"a", value),
    memoryview: lambda value: sized(b"b", value.tobytes()),
    range: range_numbers,
}

# Known by their names: to import them takes longer than a call.
NAMED = {
    ("datetime", "datetime"): lambda v: b"D" + day(v) + clock(v) + moment(v),
    ("datetime", "date"): lambda value: b"d" + day(value),
    ("datetime", "time"): lambda value: b"t" + clock(value) + moment(value),
    ("datetime", "timedelta"): span,
    ("decimal", "Decimal"): lambda value: text(b"n", str(value)),
    ("pathlib", "PurePosixPath"): lambda value: text(b"p", str(value)),
    ("pathlib._local", "PurePosixPath"): lambda value: text(b"p", str(value)),
    ("uuid", "UUID"): lambda value: b"u" + value.bytes,
}

REDUCED = (int, float, complex, str, bytes, bytearray)

# What these have in them is written by the loop in encode().
LETTERS = {list: b"L", tuple: b"U", set: b"S", frozenset: b"Z", dict: b"M"}


class Encoder:
    def __init__(self, limit):
        self.limit = limit
        self.size = 0
        self.pieces = []
        self.path = []
        self.open = set()
        self.ways = {}  # from a type to what writes it, for this value's types alone

    def add(self, octets):
        self.size += len(octets)
        if self.size > self.limit:
            raise Unsendable(f"result takes more than {self.limit} octets; return less")
        self.pieces.append(octets)

    def way(self, kind):
        found = self.ways.get(kind)
        if found is None:
            found = self.ways[kind] = find_way(kind)
        return found

    def value(self, value):
        letter, simple = self.way(type(value))
        if simple is not None:
            try:
                octets = simple(value)
            except Unsendable:
                raise
            except Exception as error:
                raise Unsendable(f"{self.place()} cannot be written: {error!r}") from None
            self.add(octets)
        elif letter is None:
            self.refuse(value)
        else:
            self.container(letter, value)

    def container(self, letter, value):
        if id(value) in self.open:
            raise Unsendable(f"{self.place()} holds itself")
        if len(self.path) >= MAX_DEPTH:
            raise Unsendable(f"result is nested more than {MAX_DEPTH} deep")
        self.open.add(id(value))
        # A copy: other threads may be at work on it.
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

    def refuse(self, value):
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if hasattr(kind, "__dataclass_fields__"):
            cure = "return dataclasses.asdict(...) of it"
        elif hasattr(kind, "__await__"):
            cure = "call it with asyncio.run() over there"
        elif hasattr(kind, "_value2member_map_"):
            cure = "return its .value"
        else:
            cure = "return plain data made from it"
        raise Unsendable(f"{self.place()} is a {name}, and only plain data comes back: {cure}")


def find_way(kind):
    for base in kind.__mro__:
        simple = SIMPLE.get(base) or NAMED.get((base.__module__, base.__qualname__))
        if base in LETTERS:
            return LETTERS[base], None
        if simple is not None:
            # A subclass may say what it likes of itself.
            own = kind is not base and base in REDUCED
            return None, reduced(base, simple) if own else simple
    return None, None


def reduced(base, simple):
    return lambda value: simple(plain(base, value))


def plain(base, value):
    if base is str:
        return str.__str__(value)
    if base in (bytes, bytearray):
        return base(memoryview(value))
    if base is complex:
        return complex(value.real, value.imag)
    return getattr(base, f"__{base.__name__}__")(value)


def encode(value, limit):
    encoder = Encoder(limit)
    encoder.value(value)
    return b"".join(encoder.pieces)
