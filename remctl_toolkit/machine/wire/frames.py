"""What a keeper says: frames in the output of a remctl command, taken apart as they arrive.

A frame is a letter, a length in four octets, and as many octets: see `channel/far_keeper.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Handler: TypeAlias = Callable[[list[bytes]], None]

_HEADER = 5
_LARGEST = 1 << 20  # Octets; none is larger by far: what says so is no frame.


class NoFrameError(ValueError):
    """What arrived is no frame: something else than the keeper has written it."""


class Frames:
    """Takes frames apart: a binary file, as far as `remctl.Remctl.run()` needs one.

    Each frame is handed over as a whole, as the pieces that it arrived in: handing over each piece
    would have another thread wake up for every 4096 octets.
    """

    def __init__(self, handlers: dict[bytes, Handler]) -> None:
        """Set what to call for each kind of frame."""
        self._handlers = handlers
        self._head = b""
        self._kind = b""
        self._left = 0
        self._pieces: list[bytes] = []

    def write(self, octets: bytes) -> int:
        """Take the next octets.

        Raises:
            NoFrameError: they are no frames.
        """
        size = len(octets)
        if size < self._left:  # Most of what comes: the middle of a frame.
            self._pieces.append(octets)
            self._left -= size
            return size
        place = 0
        while place < size:
            if self._left:
                piece = octets[place : place + self._left]
                self._pieces.append(piece)
                self._left -= len(piece)
                place += len(piece)
            else:
                wanted = _HEADER - len(self._head)
                self._head += octets[place : place + wanted]
                place += wanted
                if len(self._head) == _HEADER:
                    self._begin()
            if not self._left and self._kind:
                self._deliver()
        return size

    def _begin(self) -> None:
        self._kind = self._head[:1]
        self._left = int.from_bytes(self._head[1:], "big")
        if self._kind not in self._handlers or self._left > _LARGEST:
            raise NoFrameError(f"{self._head!r} does not begin a frame")
        self._head = b""

    def _deliver(self) -> None:
        kind, self._kind = self._kind, b""
        pieces, self._pieces = self._pieces, []
        self._handlers[kind](pieces)
