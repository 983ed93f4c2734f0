"""Between a channel and file descriptors of this process: a command's streams as real pipes."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import threading

from .feeds import PIECE, Feeder
from .keeper import Keeper

_READ_SIZE = 1 << 16
# POSIX: what poll() calls writable takes as much without making the writer wait.  Linux: PIPE_BUF.
_WRITE_SIZE = select.PIPE_BUF


class Stop:
    """An event that poll() can wait for, besides a descriptor."""

    def __init__(self) -> None:
        """Not set."""
        self._reader, self._writer = os.pipe()
        self._writers = [self._writer]  # Whoever takes it from here closes it.

    def set(self) -> None:
        """Wake whoever waits, now and later; this takes no lock."""
        with contextlib.suppress(IndexError):  # It is set.
            os.close(self._writers.pop())

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
        reader, self._reader = self._reader, -1
        if reader >= 0:
            os.close(reader)


class Drain:
    """A target that writes to a descriptor: what comes, as it comes."""

    def __init__(self, fd: int) -> None:
        """Own a descriptor."""
        self._fd = fd
        self._stop = Stop()
        self._finished = False
        self._waits = not stat.S_ISREG(os.fstat(fd).st_mode)

    def put(self, octets: bytes) -> None:
        """Write them; wait while nobody reads.

        Raises:
            BrokenPipeError: nobody will.
        """
        view = memoryview(octets)
        try:
            while view and not self._finished:
                if self._waits and not self._stop.wait(self._fd, select.POLLOUT):
                    return
                try:
                    view = view[os.write(self._fd, view[:_WRITE_SIZE]) :]
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


class Pump(Feeder):
    """Feeds a command with what is read from a descriptor, in a thread of its own."""

    def __init__(self, keeper: Keeper, fd: int) -> None:
        """Own a descriptor, until the command has ended or the end of its input was read."""
        super().__init__(keeper)
        self._fd = fd
        self._ended = Stop()
        threading.Thread(target=self._run, name="remctl-pump", daemon=True).start()
        keeper.attach(self)

    def command_ended(self) -> None:
        """Read nothing more."""
        self.stop()

    def stop(self) -> None:
        """Feed nothing more."""
        super().stop()
        self._ended.set()

    def _run(self) -> None:
        self.run()
        os.close(self._fd)
        self._ended.close()

    def take(self) -> tuple[bytes, bool] | None:
        """Wait for something to read, and return all that is there, and whether that is the end."""
        if not self._ended.wait(self._fd, select.POLLIN):
            return None
        taken: list[bytes] = []
        left = PIECE
        while left > 0 and (not taken or self._ended.wait(self._fd, select.POLLIN, 0)):
            try:
                piece = os.read(self._fd, min(left, _READ_SIZE))
            except BlockingIOError:  # Somebody else, who shares it, was quicker.
                break
            if not piece:
                return b"".join(taken), True
            taken.append(piece)
            left -= len(piece)
        return b"".join(taken), False
