"""Frames, however they are cut on their way."""

from __future__ import annotations

import itertools

import pytest

from remctl_toolkit.machine.base.program import source
from remctl_toolkit.machine.wire.both_frames import FrameError, Frames, frame

pytestmark = pytest.mark.once

FRAMES = [(b"a", 0, b""), (b"b", 1, b"x"), (b"a", (1 << 32) - 1, b"\0" * 300), (b"b", 7, b"")]
STREAM = b"".join(itertools.starmap(frame, FRAMES))


@pytest.mark.parametrize("size", [1, 2, 8, 9, 10, 17, 100, len(STREAM)])
def test_pieces_of_any_size(size: int) -> None:
    found: list[tuple[bytes, int, bytes]] = []
    frames = Frames(lambda *each: found.append(each), b"ab", 300)
    for place in range(0, len(STREAM), size):
        piece = STREAM[place : place + size]
        assert frames.write(piece) == len(piece)
    assert found == FRAMES


def test_a_frame_is_handed_over_as_soon_as_it_is_whole() -> None:
    found: list[bytes] = []
    frames = Frames(lambda letter, *_: found.append(letter), b"ab", 300)
    for letter, number, octets in FRAMES:
        whole = frame(letter, number, octets)
        frames.write(whole[:-1])
        before = len(found)
        frames.write(whole[-1:] + b"a")
        assert found[before:] == [letter]
        frames = Frames(lambda letter, *_: found.append(letter), b"ab", 300)


@pytest.mark.parametrize(
    "octets",
    [
        frame(b"c"),
        frame(b"a", 0, bytes(301)),
        frame(b"a", 0, b"x") + b"Traceback (most recent call last):",
        b"a" + b"\xff" * 8,
    ],
)
def test_what_is_no_frame(octets: bytes) -> None:
    frames = Frames(lambda *_: None, b"ab", 300)
    with pytest.raises(FrameError, match="does not begin a frame"):
        frames.write(octets)


def test_it_is_text_for_any_python_over_there() -> None:
    compile(source("wire/both_frames"), "both_frames", "exec", dont_inherit=True)
    assert source("wire/both_frames").isascii()
