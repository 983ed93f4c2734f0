"""File descriptors 0, 1 and 2, on their way to a command of the far side and back."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from queue import SimpleQueue

    from remctl_toolkit.machine.channel.channel import Channel

__all__ = ["Over", "Pumps", "StreamError"]

_PIECE = 1 << 18  # octets


class Over:
    """The command has ended, and all of its output is written: its status, -N for signal N."""

    def __init__(self, status: int) -> None:
        self.status = status


class StreamError(Exception):
    """Our input cannot be read, or our output not be written."""


class Pumps:
    """Threads that pass on what there is to read, until the command ends.

    What happens goes into a queue: an `Over`, or the exception that ended it.

    Args:
        channel: the command.
        events: where to tell.
        reads: whether to pass on standard input, too.
    """

    def __init__(self, channel: Channel, events: SimpleQueue[Any], *, reads: bool) -> None:
        self._channel = channel
        self._events = events
        self._over, self._wake = os.pipe()
        targets = [self._errors, self._output, *([self._input] if reads else ())]
        self._threads = [
            threading.Thread(target=self._report, args=[target], daemon=True) for target in targets
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Let the threads end; the channel has to be closed."""
        os.close(self._wake)
        # Those that write may wait for somebody to read what was written.
        for thread in self._threads[2:]:
            thread.join()
        os.close(self._over)

    def _report(self, target: Callable[[], None]) -> None:
        try:
            target()
        except Exception as error:
            self._events.put(error)

    def _input(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # The command has closed its standard input.
            while octets := self._read_input():
                self._channel.write(octets)
            self._channel.close_write()

    def _read_input(self) -> bytes:
        """Return b"" at the end, and when the command has ended."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self._over, select.POLLIN)
        while True:
            if any(fd == self._over for fd, _ in poll.poll()):
                return b""
            try:
                return os.read(0, _PIECE)
            except BlockingIOError:
                pass  # Somebody else has read it.
            except OSError as error:
                raise StreamError(f"cannot read standard input: {error.strerror}") from None

    def _errors(self) -> None:
        self._pass_on(self._channel.read_stderr, 2, "error")

    def _output(self) -> None:
        self._pass_on(self._channel.read, 1, "output")
        self._threads[0].join()
        self._events.put(Over(self._channel.wait()))

    def _pass_on(self, read: Callable[[int], bytes], fd: int, name: str) -> None:
        """Write all that there is to read; what cannot be written is read all the same."""
        writes = True
        while octets := read(_PIECE):
            try:
                if writes:
                    _write(fd, octets, name)
            except (BrokenPipeError, StreamError) as error:
                self._events.put(error)
                writes = False


def _write(fd: int, octets: bytes, name: str) -> None:
    """Write all of it, also where the descriptor does not block: rsync, for one, sets that.

    Raises:
        BrokenPipeError: nobody reads it any more.
        StreamError: it cannot be written.
    """
    rest = memoryview(octets)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StreamError(f"cannot write standard {name}: {error.strerror}") from None
