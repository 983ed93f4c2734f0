"""Write a channel's standard input: each piece takes a remctl command of its own."""

from __future__ import annotations

import errno
import os
import threading
import time

import remctl

from ..base.connection import Connection
from ..base.outputs import Tail
from ..base.program import SHELL_LOADER
from .engine import Errand
from .keeper import Keeper, quote, shell_command

PIECE = 1 << 20  # octets of a piece at most: each costs the host a process

# Opening a FIFO for writing waits for a reader, so it is first opened for both.  Writing then ends
# with SIGPIPE if the command does not read any more.
_OPEN = b'exec 3<>"$d/data" 4>"$d/data" 3>&-;'
_END = b'echo e 1<>"$d/control"'

# Up to this size, the shell's own printf is faster than starting cat.
_SMALL = 1024
_PLAIN = b" +,./:=@_" + bytes(range(48, 58)) + bytes(range(65, 91)) + bytes(range(97, 123))
_PRINTF = tuple(bytes([n]) if n in _PLAIN else b"\\%03o" % n for n in range(256))

_GONE = (1, 2)  # exit statuses of shells that cannot open a FIFO
_UNREAD = (141, 255)  # statuses for SIGPIPE: of sh for cat, and of remctld


def _feed_command(
    connection: Connection, folder: bytes, data: bytes, end: bool
) -> tuple[str | bytes, ...]:
    text = b"d=%b;" % quote(folder)
    if len(data) > _SMALL:
        text += _OPEN + (b"cat >&4;s=$?;%b;exit $s" % _END if end else b"exec cat >&4")
        words = ["-c", SHELL_LOADER, "feed"]
        return shell_command(connection, words, b"%b\n%b" % (text, data))
    if data:
        text += _OPEN + b"printf '%b' >&4;" % b"".join([_PRINTF[octet] for octet in data])
    return shell_command(connection, ["-s", "feed"], text + _END if end else text)


class Outbox:
    """A buffer of unsent input, which a thread sends in large pieces.

    It shares its keeper's condition.  The thread starts with the first write.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._errand = Errand(keeper.connection)
        self._changed = keeper.changed
        self._pieces: list[bytes | memoryview] = []
        self._size = 0
        self._ended = False  # whether the input is complete
        self._unread = False  # whether the command does not read any more, or is lost
        self._started = False
        keeper.attach(self)

    def write(self, data: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """Send octets; wait while the buffer is full.  See `Channel.write()`."""
        # The caller may change a bytearray before it is sent.
        octets = memoryview(data if isinstance(data, bytes) else bytes(memoryview(data)))
        until = None if timeout is None else time.monotonic() + timeout
        for place in range(0, len(octets) or 1, PIECE):
            piece = octets[place : place + PIECE]
            with self._changed:
                left = None if until is None else max(until - time.monotonic(), 0.0)
                if not self._changed.wait_for(lambda: self._size < PIECE or self._unread, left):
                    raise TimeoutError(f"the command did not read within {timeout:g} seconds")
                if self._ended:
                    raise ValueError("write after the end of the command's input")
                if self._unread:
                    self._keeper.check()
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
                if piece:
                    self._pieces.append(piece)
                    self._size += len(piece)
                    self._notify()

    def end(self) -> None:
        """Send the end of the input, after all data."""
        with self._changed:
            if not self._ended:
                self._ended = True
                self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        if not self._started and not self._unread:
            self._started = True
            threading.Thread(target=self._run, name="remctl-feed", daemon=True).start()

    # In a thread.

    def _run(self) -> None:
        end = False
        try:
            self._keeper.await_start()
            while not end and (taken := self._take()) is not None:
                data, end = taken
                if (data or end) and not self._feed(data, end):
                    break
        except BaseException as error:
            if not self._errand.stopped:
                self._keeper.fail(error)
        finally:
            self.stop()

    def _take(self) -> tuple[bytes, bool] | None:
        """Wait for the next piece; return it and whether it is the last, or None to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._ended or self._unread)
            if self._unread:
                return None
            count = size = 0
            while count < len(self._pieces) and size + len(self._pieces[count]) <= PIECE:
                size += len(self._pieces[count])
                count += 1
            data = b"".join(self._pieces[:count])
            del self._pieces[:count]
            self._size -= size
            self._changed.notify_all()
            return data, self._ended and not self._pieces

    def _feed(self, data: bytes, end: bool) -> bool:
        """Write to the command, waiting for it to read; return False if it never will."""
        command = _feed_command(self._keeper.connection, self._keeper.folder, data, end)
        said = Tail()
        status = self._errand.run(command, stderr=said)
        if status == 0:
            return True
        if status in _GONE or (status in _UNREAD and not str(said)):
            return False
        raise remctl.RemctlError(f"cannot write to the command: {str(said) or status}")

    def stop(self, over: bool = True) -> None:
        """Send nothing more, if the keeper has ended as well."""
        if not over:
            return
        self._errand.stop()
        with self._changed:
            self._unread = True
            self._pieces.clear()
            self._changed.notify_all()
