"""A stream of a command's output in memory, until somebody reads it."""

from __future__ import annotations

import threading
from collections import deque

from ..base.connection import Connection
from .errors import lost

LIMIT = 1 << 22  # Octets that wait at most, and a frame; then the command has to.


class Inbox:
    """One stream: put into by the thread of the channel, read by any."""

    def __init__(self, connection: Connection) -> None:
        """Belong to a connection, which errors name."""
        self._connection = connection
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._finished = False
        self._discarding = False
        self._failure: BaseException | None = None

    def put(self, pieces: list[bytes]) -> None:
        """Take the next octets; wait until there is room for them."""
        with self._changed:
            self._changed.wait_for(lambda: self._size < LIMIT or self._discarding)
            if not self._discarding:
                self._pieces.extend(pieces)
                self._size += sum(map(len, pieces))
                self._changed.notify_all()

    def finish(self, failure: BaseException | None) -> None:
        """Nothing more will come, because of a failure or because that was all."""
        with self._changed:
            if not self._finished:
                self._finished, self._failure = True, failure
                self._changed.notify_all()

    def discard(self) -> None:
        """Take what comes from now on, and keep none of it."""
        with self._changed:
            self._discarding = True
            self._pieces.clear()
            self._size = 0
            self._changed.notify_all()

    def read(self, size: int) -> bytes:
        """Return up to so many octets (-1: all) as soon as there are any, b"" at the end.

        Raises:
            ChannelError: the channel was lost; what had arrived was read before.
        """
        if size == 0:
            return b""
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._finished)
            if not self._pieces:
                if self._failure is not None:
                    raise lost(self._connection, self._failure)
                return b""
            taken = self._take(self._size if size < 0 else size)
            self._changed.notify_all()
        return taken

    def _take(self, size: int) -> bytes:
        pieces = self._pieces
        taken = []
        while size > 0 and pieces:
            piece = pieces.popleft()
            if len(piece) > size:
                pieces.appendleft(piece[size:])
                piece = piece[:size]
            taken.append(piece)
            size -= len(piece)
            self._size -= len(piece)
        return taken[0] if len(taken) == 1 else b"".join(taken)
