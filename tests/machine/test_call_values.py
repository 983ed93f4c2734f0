"""Results: what comes back is what was returned, or one error; whatever the octets are."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import enum
import inspect
import math
import pathlib
import subprocess
import sys
import uuid
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from machine.call_pipes import pythons

from remctl_toolkit.machine.base.program import source
from remctl_toolkit.machine.wire.values import MAX_DEPTH, DecodeError, decode

pytestmark = pytest.mark.once

FAR: dict[str, Any] = {}
exec(source("call/far_values"), FAR)

LIMIT = 1 << 20


def through(value: Any, limit: int = LIMIT) -> Any:
    return decode(FAR["encode"](value, limit))


TIMES = st.timezones() | st.none()
HASHABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | st.dates()
    | st.times()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.builds(range, st.integers(), st.integers(), st.integers().filter(bool))
    | st.text("ab./", min_size=1).map(pathlib.PurePosixPath),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=8,
)
VALUES = st.recursive(
    HASHABLE | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
    ),
    max_leaves=20,
)


def kinds(value: Any) -> Any:
    """Return the types of a value and all that is in it, in order."""
    if isinstance(value, dict):
        return [dict, *(kinds(part) for item in value.items() for part in item)]
    if isinstance(value, (list, tuple)):
        return [type(value), *map(kinds, value)]
    if isinstance(value, (set, frozenset)):
        return [type(value), len(value)]
    return type(value)


@settings(deadline=None, max_examples=60)
@given(VALUES)
def test_values_come_back_as_they_are(value: Any) -> None:
    found = through(value)
    assert found == value
    assert kinds(found) == kinds(value)


@settings(deadline=None, max_examples=80)
@given(st.binary(max_size=200))
@example(b"")
@example(b"L\xff\xff\xff\xff")
@example(b"M\x00\x00\x00\x01L\x00\x00\x00\x00N")
@example(b"S\x00\x00\x00\x02NN")
@example(b"@\x00\x00\x00\x02s\x00\x00\x00\x07Decimals\x00\x00\x00\x031_0")
@example(b"@\x00\x00\x00\x02s\x00\x00\x00\x07Decimals\x00\x00\x00\x04sNaN")
@example(b"S\x00\x00\x00\x01@\x00\x00\x00\x02s\x00\x00\x00\x07Decimals\x00\x00\x00\x04sNaN")
@example(b"@\x00\x00\x00\x00")
@example(b"@\x00\x00\x00\x01L\x00\x00\x00\x00")
@example(b"@\x00\x00\x00\x01N")
@example(b"@\x00\x00\x00\x04s\x00\x00\x00\x05range" + b"i\x00\x00\x00\x01\x00" * 3)
@example(b"@\x00\x00\x00\x02s\x00\x00\x00\x04dateb\x00\x00\x00\x04\x07\xe0\x01\x01")
@example(b"@\x00\x00\x00\x01s\x00\x00\x00\x08datetime")
@example(b"@\x00\x00\x00\x02s\x00\x00\x00\x09timedeltai\x00\x00\x00\x05\x7f\xff\xff\xff\xff")
@example(b"s\x00\x00\x00\x01\xff")
@example(b"@\x00\x00\x00\x02s\x00\x00\x00\x04paths\x00\x00\x00\x01\x00")
def test_any_octets_are_a_value_or_the_one_error(octets: bytes) -> None:
    with contextlib.suppress(DecodeError):
        decode(octets)


@settings(deadline=None, max_examples=80)
@given(VALUES, st.data())
def test_octets_that_were_changed_are_a_value_or_the_one_error(value: Any, data: Any) -> None:
    octets = bytearray(FAR["encode"](value, LIMIT))
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(octets)))
    for changed in (bytes(octets), bytes(octets[:cut]), bytes(octets) + b"N"):
        with contextlib.suppress(DecodeError):
            decode(changed)


@settings(deadline=None)
@given(st.datetimes(timezones=st.timezones()), st.integers(0, 1))
def test_times_keep_their_offset(time: datetime.datetime, fold: int) -> None:
    time = time.replace(fold=fold)
    found = through(time)
    assert (found.utcoffset(), found.replace(tzinfo=None)) == (
        time.utcoffset(),
        time.replace(tzinfo=None),
    )
    assert found.fold == fold


def test_what_has_no_equal() -> None:
    assert math.isnan(through(math.nan))
    assert math.copysign(1, through(-0.0)) == -1
    assert str(through(decimal.Decimal("-sNaN12"))) == "-sNaN12"
    assert str(through(decimal.Decimal("-0E+3"))) == "-0E+3"


class Colour(enum.IntEnum):
    RED = 3


class Name(str):
    def __str__(self) -> str:
        return "something else"


class Plain(enum.Enum):
    RED = 3


@dataclass
class Point:
    x: int = 1


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, 3),
        (Name("abc"), "abc"),
        (Pair(1, 2), (1, 2)),
        (OrderedDict(a=1), {"a": 1}),
        (pathlib.PosixPath("/a/b"), pathlib.PurePosixPath("/a/b")),
        (memoryview(b"abc"), b"abc"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_subclasses_come_back_as_what_they_derive_from(value: Any, plain: Any) -> None:
    found = through(value)
    assert found == plain
    assert type(found) is type(plain)


async def coroutine() -> None:
    """Do nothing."""


def _itself() -> list[Any]:
    found: list[Any] = []
    found.append([found])
    return found


def _nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth - 1):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, {"a": Point()}], r"result\[1\]\['a'\] is a .*Point, .*: return dataclasses.asdict"),
        ({Plain.RED: 1}, r"result \(a key\) is a .*Plain, .*: return its .value"),
        ({(1, object())}, r"result \(a member\)\[1\] is a builtins.object"),
        (object(), r"result is a builtins.object, but only plain data"),
        (_itself(), r"result\[0\]\[0\] contains itself"),
        (_nested(MAX_DEPTH + 1), "nested more than 100 deep"),
        (bytes(LIMIT), "takes more than 1048576 octets"),
        ([0] * LIMIT, "takes more than 1048576 octets"),
    ],
    ids=range(8),
)
def test_what_is_not_plain_data_is_one_error(value: Any, text: str) -> None:
    with pytest.raises(FAR["Unsendable"], match=text):
        FAR["encode"](value, LIMIT)


def test_coroutines_have_a_cure() -> None:
    waiting = coroutine()
    with pytest.raises(FAR["Unsendable"], match=r"asyncio.run\(\)"):
        FAR["encode"](waiting, LIMIT)
    waiting.close()


def test_depth_has_the_same_limit_on_both_sides() -> None:
    assert through(_nested(MAX_DEPTH)) == _nested(MAX_DEPTH)
    octets = b"L\x00\x00\x00\x01" * MAX_DEPTH + b"L\x00\x00\x00\x00"
    with pytest.raises(DecodeError, match="nested too deep"):
        decode(octets)


def test_uuids() -> None:
    value = uuid.uuid4()
    assert through({value: 1}) == {value: 1}


def test_sizes_are_not_believed() -> None:
    # Nothing is set aside for what was only announced.
    for letter in (b"s", b"b", b"i", b"L", b"M", b"S", b"Z", b"U", b"@"):
        with pytest.raises(DecodeError):
            decode(letter + b"\xff\xff\xff\xff")


def test_ranges_are_of_numbers_that_take_no_time() -> None:
    # To make a range is to divide them: of a million octets, that takes minutes.
    assert through(range(-(1 << 1015), 1 << 1015, 7)) == range(-(1 << 1015), 1 << 1015, 7)
    with pytest.raises(FAR["Unsendable"], match=r"a range with a number of more than 1016 bits"):
        FAR["encode"](range(1 << 1023), LIMIT)
    number = b"i" + (129).to_bytes(4, "big") + b"\1" * 129
    with pytest.raises(DecodeError, match=r"range"):
        decode(b"@\0\0\0\4s\0\0\0\5range" + number * 3)


def colliding(bits: int, most: int, more: int) -> list[int]:
    """Return keys for a dictionary of 2**bits places, some of which go the same long way.

    The first ones fill a part of the way that a dictionary goes when places are taken; the rest
    come to the start of that part.
    """
    mask = (1 << bits) - 1
    run, place = {}, 0
    for number in range(most):
        run[place] = number
        place = (5 * place + 1) & mask
    keys, key = list(run), mask
    while len(keys) < most + more:
        key += 1
        rest, place = key, key & mask
        while rest and place in run:
            rest >>= 5
            place = (5 * place + rest + 1) & mask
        if run.get(place, most) < most // 3:
            keys.append(key)
    return keys


def test_keys_that_collide_are_one_error() -> None:
    # Python's own dictionaries take time with the square of such keys, and let no thread run.
    keys = dict.fromkeys(colliding(17, 78_000, 9_000))
    with pytest.raises(DecodeError, match=r"hashes collide"):
        decode(FAR["encode"](keys, LIMIT))
    alike = {n * sys.hash_info.modulus for n in range(900)}
    assert through(alike) == alike
    usual = {n << 40: n for n in range(20000)}
    assert through(usual) == usual


@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: (1, n), lambda n: frozenset([n])])
def test_long_numbers_are_not_compared_with_decimals(wrap: Any) -> None:
    # Python makes a decimal of the number first, which takes time with the square of its length.
    large = wrap(1 << 1_000_000)
    assert through([{large}, 1]) == [{large}, 1]
    with pytest.raises(DecodeError, match=r"set member is a long number"):
        through([decimal.Decimal(1), {large}])


def test_a_small_stack_is_enough() -> None:
    octets = FAR["encode"](_nested(MAX_DEPTH), LIMIT)

    def deeper(left: int) -> Any:
        return deeper(left - 1) if left else decode(octets)

    frames = len(inspect.stack(0))
    assert deeper(sys.getrecursionlimit() - frames - 20) == _nested(MAX_DEPTH)


@pytest.mark.parametrize("version", pythons())
def test_each_python_writes_the_same(version: str) -> None:
    values = (
        "[None, True, -5, 1 << 70, 1.5, 2j, 'a\\udcff', b'b', bytearray(b'c'), range(1, 5, 2),"
        " (1,), {2}, frozenset([3]), {'k': []}, datetime.datetime(2020, 1, 2, 3, 4, 5, 6),"
        " datetime.date(1, 1, 1), datetime.time(1, 2), datetime.timedelta(-1, 1),"
        " decimal.Decimal('1.50'), pathlib.Path('/a')]"
    )
    program = "import datetime, decimal, pathlib, sys\n" + source("call/far_values")
    program += f"\nsys.stdout.buffer.write(encode({values}, 1 << 20))"
    command = [pythons()[version], "-IS", "-c", program]
    octets = subprocess.run(command, check=True, timeout=30, stdout=subprocess.PIPE).stdout
    expected = eval(values, {"datetime": datetime, "decimal": decimal, "pathlib": pathlib})
    expected[-1] = pathlib.PurePosixPath("/a")
    assert decode(octets) == expected
