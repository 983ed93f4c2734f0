"""Between a channel and file descriptors of this process: a command's streams as real pipes."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import threading

from ..base.errors import MachineError
from .engine import Target
from .feeds import PIECE, Outbox
from .keeper import Keeper

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

    def wait(self, fd: int, events: int) -> bool:
        """Wait until a descriptor is ready; False if set."""
        poller = select.poll()
        poller.register(fd, events)
        poller.register(self._reader, 0)  # That its writer is closed, poll() always tells.
        ready = dict(poller.poll())
        return fd in ready and self._reader not in ready

    def close(self) -> None:
        """Give up the descriptors, when nobody waits any more."""
        self.set()
        reader, self._reader = self._reader, -1
        if reader >= 0:
            os.close(reader)


class Drain(Target):
    """A target that writes to a descriptor: what comes, as it comes."""

    def __init__(self, fd: int) -> None:
        """Own a descriptor."""
        super().__init__()
        self._fd = fd
        self._stop = Stop()
        self._finished = False
        self._waits = not stat.S_ISREG(os.fstat(fd).st_mode)

    def write(self, octets: bytes, /) -> int:
        """Write them; wait while nobody reads.

        Raises:
            BrokenPipeError: nobody will.
        """
        view = memoryview(octets)
        try:
            while view and not self._finished:
                if self._waits and not self._stop.wait(self._fd, select.POLLOUT):
                    break
                try:
                    view = view[os.write(self._fd, view[:_WRITE_SIZE]) :]
                except BlockingIOError:  # Whoever shares it has set that, and was quicker.
                    continue
        except BrokenPipeError:
            self.finish(None)
            raise
        return len(octets)

    def finish(self, failure: BaseException | None) -> None:
        """Close the descriptor."""
        if not self._finished:
            self._finished = True
            os.close(self._fd)
            self._stop.close()

    def discard(self) -> None:
        """Write nothing more."""
        self._stop.set()


class Pump(Outbox):
    """Feeds a command with what is read from a descriptor, in a thread of its own."""

    def __init__(self, keeper: Keeper, fd: int) -> None:
        """Own a descriptor, until the command has ended or the end of its input was read."""
        self._fd = fd
        self._over = Stop()
        super().__init__(keeper)
        threading.Thread(target=self._pump, name="remctl-pump", daemon=True).start()

    def stop(self, over: bool = True) -> None:
        """Feed nothing more, as soon as the command itself has ended."""
        super().stop()
        self._over.set()

    def _pump(self) -> None:
        # Whoever shares the descriptor may have set that it does not block, and be quicker.
        with contextlib.suppress(BrokenPipeError, MachineError):
            while self._over.wait(self._fd, select.POLLIN):
                with contextlib.suppress(BlockingIOError):
                    octets = os.read(self._fd, PIECE)
                    if not octets:
                        self.end()
                        break
                    self.write(octets)
        os.close(self._fd)
        self._over.close()
