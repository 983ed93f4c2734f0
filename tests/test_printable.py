"""The one function that makes foreign text safe to print."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _remctl_text import printable

pytestmark = pytest.mark.once

ESCAPED = {
    "\x00": r"\x00", "\a": r"\x07", "\b": r"\x08", "\n": r"\n", "\v": r"\x0b", "\f": r"\x0c",
    "\r": r"\r", "\x1b": r"\x1b", "\x7f": r"\x7f", "\x85": r"\x85", "\x9b": r"\x9b",
    "\xa0": r"\xa0", "\xad": r"\xad", "\u061c": r"\u061c", "\u200b": r"\u200b",
    "\u200d": r"\u200d", "\u200e": r"\u200e", "\u200f": r"\u200f", "\u2028": r"\u2028",
    "\u2029": r"\u2029", "\u202a": r"\u202a", "\u202e": r"\u202e", "\u2066": r"\u2066",
    "\u2069": r"\u2069", "\ufeff": r"\ufeff", "\ufff9": r"\ufff9", "\ue000": r"\ue000",
    "\U000e0001": r"\U000e0001", "\U0010ffff": r"\U0010ffff", "\ud800": r"\ud800",
    chr(0xDC9B): r"\x9b", chr(0xDCFF): r"\xff",  # octets that os.fsdecode() has kept
}  # fmt: skip

NOT_UTF8 = {
    b"\x9b31m": r"\x9b31m",  # C1 as it is in Latin-1
    b"\xc0\x9b": r"\xc0\x9b",  # overlong
    b"\xe0\x80\x9b": r"\xe0\x80\x9b",
    b"\xed\xa0\x80": r"\xed\xa0\x80",  # a surrogate
    b"\xf4\x90\x80\x80": r"\xf4\x90\x80\x80",  # beyond Unicode
    b"\xe2\x82": r"\xe2\x82",  # cut short
    b"\xff": r"\xff",
    b"\xc2\x9b": r"\x9b",  # C1 as it is in UTF-8
}


@pytest.mark.parametrize(("character", "shown"), ESCAPED.items(), ids=ESCAPED.values())
def test_what_is_not_printable_is_escaped(character: str, shown: str) -> None:
    assert printable(f"a{character}ü") == f"a{shown}ü"


@pytest.mark.parametrize(("octets", "shown"), NOT_UTF8.items(), ids=NOT_UTF8.values())
def test_octets_that_are_not_utf8_are_escaped(octets: bytes, shown: str) -> None:
    assert printable(b"a" + octets) == f"a{shown}"
    assert printable(os.fsdecode(b"a" + octets)) == f"a{shown}"


@pytest.mark.parametrize(
    "text", ["", "plain", "Größe ≥ 3 €, 中文, हिन्दी, 👍", "a\tb", r"\x1b C:\new"]
)
def test_what_is_printable_stays(text: str) -> None:
    assert printable(text) == printable(text.encode()) == text


def test_lines_may_stay() -> None:
    assert printable("one\ntwo\r\n\x1b", lines=True) == "one\ntwo\\r\n\\x1b"


@given(st.text(st.characters()) | st.binary(), st.booleans())
def test_nothing_else_is_left(text: str | bytes, lines: bool) -> None:
    shown = printable(text, lines=lines)
    assert all(c.isprintable() or c in ("\t\n" if lines else "\t") for c in shown)
    assert printable(shown, lines=lines) == shown
    shown.encode()
