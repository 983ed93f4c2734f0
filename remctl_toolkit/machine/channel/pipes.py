"""Connect a channel with file descriptors of this process."""

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

# A pipe that poll() reports as writable takes this many octets without blocking.
_WRITE_SIZE = select.PIPE_BUF


class Stop:
    """An event that poll() can wait for, together with a descriptor."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._writers = [self._writer]  # The thread that removes it closes it.

    def set(self) -> None:
        """Wake current and later waiters; this takes no lock."""
        with contextlib.suppress(IndexError):  # It is already set.
            os.close(self._writers.pop())

    def wait(self, fd: int, events: int) -> bool:
        """Wait until a descriptor is ready; return False if the event is set."""
        poller = select.poll()
        poller.register(fd, events)
        poller.register(self._reader, 0)  # poll() always reports that the writer is closed.
        ready = dict(poller.poll())
        return fd in ready and self._reader not in ready

    def close(self) -> None:
        """Close the descriptors, when no thread waits any more."""
        self.set()
        reader, self._reader = self._reader, -1
        if reader >= 0:
            os.close(reader)


class Drain(Target):
    """A target that writes to a descriptor, which it owns."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._stop = Stop()
        self._finished = False
        self._waits = not stat.S_ISREG(os.fstat(fd).st_mode)

    def write(self, octets: bytes, /) -> int:
        """Write octets; wait for the reader.

        Raises:
            BrokenPipeError: the reader has closed the pipe.
        """
        view = memoryview(octets)
        try:
            while view and not self._finished:
                if self._waits and not self._stop.wait(self._fd, select.POLLOUT):
                    break
                try:
                    view = view[os.write(self._fd, view[:_WRITE_SIZE]) :]
                except BlockingIOError:  # Another process that shares the pipe has filled it.
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
    """An outbox with a thread that reads its data from a descriptor, which it owns."""

    def __init__(self, keeper: Keeper, fd: int) -> None:
        self._fd = fd
        self._over = Stop()
        super().__init__(keeper)
        threading.Thread(target=self._pump, name="remctl-pump", daemon=True).start()

    def stop(self, over: bool = True) -> None:
        """Stop reading as soon as the command itself has ended."""
        super().stop()
        self._over.set()

    def _pump(self) -> None:
        # Another process may share the descriptor, make it non-blocking and read first.
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
