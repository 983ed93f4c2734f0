"""File descriptors 0, 1 and 2, on their way to a command of the far side and back."""

from __future__ import annotations

import os
import select
import threading
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from queue import SimpleQueue

    from remctl_toolkit.machine.channel.channel import Channel

__all__ = ["Input", "Over", "Pumps", "StreamError"]

_PIECE = 1 << 18  # octets


class Input(Enum):
    """What a command gets on standard input."""

    OURS = "what we get"
    NONE = "nothing: it ends at once"
    SILENT = "nothing: it does not end"


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
        input: what the command gets on standard input.
    """

    def __init__(self, channel: Channel, events: SimpleQueue[Any], input: Input) -> None:
        self._channel = channel
        self._events = events
        self._over, self._wake = os.pipe()
        targets: list[Callable[[], None]] = [self._errors, self._output]
        if input is Input.OURS:
            targets.append(self._input)
        elif input is Input.NONE:
            channel.close_write()
        self._threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Let the threads end; the channel has to be closed."""
        os.close(self._wake)
        # Those that write may wait for somebody to read what was written.
        for thread in self._threads[2:]:
            thread.join()
        os.close(self._over)

    def _input(self) -> None:
        try:
            while octets := self._read_input():
                self._channel.write(octets)
            self._channel.close_write()
        except BrokenPipeError:
            pass  # The command wants no more of it, which is its business.
        except Exception as error:
            self._events.put(error)

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
        try:
            self._pass_on(self._channel.read_stderr, 2, "error")
        except Exception as error:
            self._events.put(error)

    def _output(self) -> None:
        try:
            self._pass_on(self._channel.read, 1, "output")
            self._threads[0].join()
            self._events.put(Over(self._channel.wait()))
        except Exception as error:
            self._events.put(error)

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
