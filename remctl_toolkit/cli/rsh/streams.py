"""Copy file descriptors 0, 1 and 2 to and from a command on the server."""

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

__all__ = ["Ended", "StreamCopier", "StreamError"]

_READ_SIZE = 1 << 18  # octets


class Ended:
    """Event: the command has ended, and all of its output is written.

    Attributes:
        status: the exit status, or -N for signal N.
    """

    def __init__(self, status: int) -> None:
        self.status = status


class StreamError(Exception):
    """Our input cannot be read, or our output cannot be written."""


class StreamCopier:
    """Threads that copy input and output until the command ends.

    Args:
        channel: the command.
        events: queue for an `Ended`, or for the exception of a thread.
        reads: whether to copy standard input, too.
    """

    def __init__(self, channel: Channel, events: SimpleQueue[Any], *, reads: bool) -> None:
        self._channel = channel
        self._events = events
        self._closed, self._wake = os.pipe()
        targets = [self._errors, self._output, *([self._input] if reads else ())]
        self._threads = [
            threading.Thread(target=self._report, args=[target], daemon=True) for target in targets
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads; close the channel first."""
        os.close(self._wake)
        # Do not join the writers: they may wait for a reader of our output.
        for thread in self._threads[2:]:
            thread.join()
        os.close(self._closed)

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
        """Return input, or b"" at its end and when the command has ended."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self._closed, select.POLLIN)
        while True:
            if any(fd == self._closed for fd, _ in poll.poll()):
                return b""
            try:
                return os.read(0, _READ_SIZE)
            except BlockingIOError:
                pass  # Another process has read it.
            except OSError as error:
                raise StreamError(f"cannot read standard input: {error.strerror}") from None

    def _errors(self) -> None:
        self._pass_on(self._channel.read_stderr, 2, "error")

    def _output(self) -> None:
        self._pass_on(self._channel.read, 1, "output")
        self._threads[0].join()
        self._events.put(Ended(self._channel.wait()))

    def _pass_on(self, read: Callable[[int], bytes], fd: int, name: str) -> None:
        """Copy output until it ends; after an error, read and discard the rest."""
        writes = True
        while octets := read(_READ_SIZE):
            try:
                if writes:
                    _write(fd, octets, name)
            except (BrokenPipeError, StreamError) as error:
                self._events.put(error)
                writes = False


def _write(fd: int, octets: bytes, name: str) -> None:
    """Write all octets, even to a non-blocking descriptor, which rsync may leave behind.

    Raises:
        BrokenPipeError: the reader is gone.
        StreamError: any other error.
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
