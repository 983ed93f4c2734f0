"""Between a channel and file descriptors of this process: a command's streams as real pipes."""

from __future__ import annotations

import os
import select
import stat
import threading

from .feeding import Feeds
from .keeping import Keeper
from .outbox import PIECE

_GULP = 1 << 16
# POSIX: what poll() calls writable takes as much without making the writer wait.  Linux: PIPE_BUF.
_SIP = select.PIPE_BUF


class Stop:
    """An event that poll() can wait for, beside a descriptor."""

    def __init__(self) -> None:
        """Not set."""
        self._reader, self._writer = os.pipe()
        self._lock = threading.Lock()
        self._is_set = False

    def set(self) -> None:
        """Wake whoever waits, now and later."""
        with self._lock:
            if not self._is_set:
                self._is_set = True
                os.close(self._writer)

    def wait(self, fd: int, events: int, timeout: float | None = None) -> bool:
        """Wait until a descriptor is ready; False if set, or not ready after `timeout` s."""
        poller = select.poll()
        poller.register(fd, events)
        poller.register(self._reader, 0)  # That its writer is closed, poll() always tells.
        ready = dict(poller.poll(None if timeout is None else timeout * 1000))
        return fd in ready and self._reader not in ready

    def close(self) -> None:
        """Give up the descriptors, when nobody waits any more."""
        self.set()
        with self._lock:
            if self._reader >= 0:
                os.close(self._reader)
                self._reader = -1


class Nowhere:
    """A target for a stream that nobody wants, or that there is none of."""

    def put(self, pieces: list[bytes]) -> None:
        """Forget them."""

    def finish(self, failure: BaseException | None) -> None:
        """Do nothing."""

    def discard(self) -> None:
        """Do nothing."""


class Drain:
    """A target that writes to a descriptor: what comes, as it comes."""

    def __init__(self, fd: int) -> None:
        """Own a descriptor."""
        self._fd = fd
        self._stop = Stop()
        self._finished = False
        self._waits = not stat.S_ISREG(os.fstat(fd).st_mode)

    def put(self, pieces: list[bytes]) -> None:
        """Write them; wait while nobody reads.

        Raises:
            BrokenPipeError: nobody will.
        """
        if self._finished:
            return
        try:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    if self._waits and not self._stop.wait(self._fd, select.POLLOUT):
                        return
                    try:
                        view = view[os.write(self._fd, view[:_SIP]) :]
                    except BlockingIOError:  # Whoever shares it has set that, and was quicker.
                        continue
        except BrokenPipeError:
            self.finish(None)
            raise

    def finish(self, failure: BaseException | None) -> None:
        """Close the descriptor."""
        if not self._finished:
            self._finished = True
            os.close(self._fd)
            self._stop.close()

    def discard(self) -> None:
        """Write nothing more."""
        self._stop.set()


class Pump:
    """Feeds a command with what is read from a descriptor, in a thread of its own."""

    def __init__(self, keeper: Keeper, fd: int, stop: Stop) -> None:
        """Own a descriptor, until the stop is set or its end was read."""
        self._keeper = keeper
        self._fd = fd
        self._stop = stop
        self._feeds = Feeds(keeper.connection, keeper.folder)
        self._thread = threading.Thread(target=self._run, name="remctl-pump", daemon=True)
        self._thread.start()
        keeper.when_done(lambda _: self.stop())

    def stop(self) -> None:
        """Feed nothing more."""
        self._stop.set()
        self._feeds.stop()

    def join(self) -> None:
        """Wait for the thread."""
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._pump()
        except BaseException as error:
            if not self._keeper.ended and self._keeper.returncode is None:
                self._keeper.fail(error)
        finally:
            os.close(self._fd)
            self._stop.close()

    def _pump(self) -> None:
        end = False
        while not end and self._stop.wait(self._fd, select.POLLIN):
            data, end = self._gather()
            if (data or end) and not self._feeds.feed(data, end):
                return

    def _gather(self) -> tuple[bytes, bool]:
        """Read all that is there at once, and tell whether its end is there, too."""
        taken: list[bytes] = []
        left = PIECE
        while left > 0 and (not taken or self._stop.wait(self._fd, select.POLLIN, 0)):
            try:
                piece = os.read(self._fd, min(left, _GULP))
            except BlockingIOError:  # Somebody else, who shares it, was quicker.
                break
            if not piece:
                return b"".join(taken), True
            taken.append(piece)
            left -= len(piece)
        return b"".join(taken), False
