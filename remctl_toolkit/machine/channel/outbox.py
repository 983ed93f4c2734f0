"""What was written to a command and is still to be sent, and the thread that sends it."""

from __future__ import annotations

import errno
import os
import threading
from collections import deque

from .errors import lost
from .feeding import Feeds
from .keeping import Keeper

PIECE = 1 << 20  # Octets in a feed at most: each costs the far side a process.


class Outbox:
    """Takes what is written, and feeds all that waits at once."""

    def __init__(self, keeper: Keeper) -> None:
        """Belong to a keeper; the thread starts with the first write."""
        self._keeper = keeper
        self._feeds = Feeds(keeper.connection, keeper.folder)
        self._changed = threading.Condition()
        self._pieces: deque[bytes | memoryview] = deque()
        self._size = 0
        self._ended = False  # Nothing more is to be written.
        self._unread = False  # The command reads no more, or there is no way to it.
        self._thread: threading.Thread | None = None
        keeper.when_done(lambda _: self._stop())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send octets; wait while much is waiting.

        Raises:
            TypeError: it is something else than octets.
            ValueError: the end was written.
            BrokenPipeError: the command does not read any more.
            ChannelError: the channel was lost.
        """
        # What it holds may be changed before it is sent.
        octets = memoryview(data if isinstance(data, bytes) else bytes(memoryview(data)))
        for place in range(0, len(octets), PIECE):
            piece = octets[place : place + PIECE]
            with self._changed:
                self._changed.wait_for(lambda: self._size < PIECE or self._unread)
                self._check()
                self._pieces.append(piece)
                self._size += len(piece)
                self._notify()
        if not octets:
            with self._changed:
                self._check()

    def end(self) -> None:
        """Send the end, after all that was written."""
        with self._changed:
            if not self._ended:
                self._ended = True
                self._notify()

    def stop(self) -> None:
        """Send nothing more, and wait for the thread."""
        self._stop()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _stop(self) -> None:
        with self._changed:
            self._unread = True
            self._pieces.clear()
            self._changed.notify_all()
        self._feeds.stop()

    def _check(self) -> None:
        if self._ended:
            raise ValueError("write after the end of the command's input")
        if self._unread:
            failure = self._keeper.failure
            if failure is not None:
                raise lost(self._keeper.connection, failure)
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._thread is None and not self._unread:
            self._thread = threading.Thread(target=self._send, name="remctl-feed", daemon=True)
            self._thread.start()

    # In the thread that sends.

    def _send(self) -> None:
        end = False
        while not end:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self._ended or self._unread)
                if self._unread:
                    return
                data, end = self._take()
            try:
                read = self._feeds.feed(data, end)
            except BaseException as error:
                if not self._unread:
                    self._keeper.fail(error)
                read = False
            if not read:
                self._stop()
                return

    def _take(self) -> tuple[bytes, bool]:
        """Take as much as goes into one feed, and whether that is the last."""
        taken: list[bytes | memoryview] = []
        size = 0
        while self._pieces and size + len(self._pieces[0]) <= PIECE:
            taken.append(self._pieces.popleft())
            size += len(taken[-1])
        self._size -= size
        self._changed.notify_all()
        return b"".join(taken), self._ended and not self._pieces
