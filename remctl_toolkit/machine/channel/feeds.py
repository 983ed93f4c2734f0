"""Upwards: a command's input, and words to its keeper, each by a remctl command of its own."""

from __future__ import annotations

import errno
import os
import shlex
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import remctl

from ..base.connection import Connection
from ..base.outputs import Tail
from ..base.program import SHELL_LOADER, python_arguments, python_payload

if TYPE_CHECKING:
    from .keeper import Keeper

PIECE = 1 << 20  # octets in a feed at most: each costs the far side a process

# remctld logs commands as they stand: the folder is in the input, which it does not log.  Opening a
# FIFO waits for a reader, unless it is opened for both; as soon as it is open for writing alone,
# and the command reads no more, writing ends with SIGPIPE.
_OPEN = b'exec 3<>"$d/data" 4>"$d/data" 3>&-;'
_END = b'echo e 1<>"$d/control"'

# Up to here, printf in the shell itself takes less time than starting cat.
_SMALL = 1024
_PLAIN = b" +,./:=@_" + bytes(range(48, 58)) + bytes(range(65, 91)) + bytes(range(97, 123))
_PRINTF = tuple(bytes([n]) if n in _PLAIN else b"\\%03o" % n for n in range(256))

_GONE = (1, 2)  # from shells that cannot open a FIFO
_UNREAD = (141, 255)  # from sh about cat, from remctld about either

_EXEC_SHELL = """\
import posix,_signal
_signal.signal(_signal.SIGPIPE,_signal.SIG_DFL)
posix.execv('/bin/sh',%a)
"""


def _quoted(folder: bytes) -> bytes:
    return shlex.quote(folder.decode("latin-1")).encode("latin-1")


def _shell_command(
    connection: Connection, words: list[str], payload: bytes
) -> tuple[str | bytes, ...]:
    """Return the remctl command that runs sh; its last word, the label, is logged."""
    if connection.shell is not None:
        return (connection.shell, *words, payload)
    program = _EXEC_SHELL % ["sh", *words]
    loader = python_arguments(words[-1])
    return (connection.python, *loader, python_payload(program, payload))


def _feed_command(
    connection: Connection, folder: bytes, data: bytes, end: bool
) -> tuple[str | bytes, ...]:
    text = b"d=%b;" % _quoted(folder)
    if len(data) > _SMALL:
        text += _OPEN + (b"cat >&4;s=$?;%b;exit $s" % _END if end else b"exec cat >&4")
        words = ["-c", SHELL_LOADER, "feed"]
        return _shell_command(connection, words, b"%b\n%b" % (text, data))
    if data:
        text += _OPEN + b"printf '%b' >&4;" % b"".join([_PRINTF[octet] for octet in data])
    return _shell_command(connection, ["-s", "feed"], text + _END if end else text)


class Errand:
    """Remctl commands, one at a time, that another thread may stop.

    Attributes:
        stopped: whether `stop()` was called.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held: list[remctl.Remctl] = []  # Whoever takes the session from here may close it.
        self.stopped = False

    def run(
        self, command: Iterable[Any], *, timeout: float = 0.0, until: float = 0.0, **files: Any
    ) -> remctl.RemctlSimpleResult:
        """Run a remctl command; see `remctl.Remctl.run()` for `files`.

        Args:
            command: the command.
            timeout: seconds that the network may be silent; 0 is for ever.
            until: when all of it has to end, on the monotonic clock; 0 is never.
            files: where its output goes.
        """
        with self._connection.session(until) as session:
            self._held.append(session)
            try:
                if self.stopped:
                    raise remctl.RemctlNotOpenedError("stopped before the command was sent")
                session.set_timeout(timeout)
                deadline = max(until - time.monotonic(), 0.0) if until else None
                return session.run(command, deadline=deadline, **files)
            finally:
                if self._take() is None:  # As soon as it is given back, it may be another's.
                    session.close()

    def stop(self) -> None:
        """End a command that runs, and let no other begin.

        This takes no lock: it may be called where garbage is collected.
        """
        self.stopped = True
        session = self._take()
        if session is not None:
            session.close()

    def _take(self) -> remctl.Remctl | None:
        try:
            return self._held.pop()
        except IndexError:
            return None


def feed(errand: Errand, keeper: Keeper, data: bytes, end: bool) -> bool:
    """Write to a command's standard input, and end it, if that was all.

    Wait as long as the command does not read; return False if it does not read any more.
    """
    command = _feed_command(keeper.connection, keeper.folder, data, end)
    said = Tail()
    status = errand.run(command, stdout=remctl.DEVNULL, stderr=said).status
    if status == 0:
        return True
    if status in _GONE or (status in _UNREAD and not str(said)):
        return False
    raise remctl.RemctlError(f"cannot write to the command: {str(said) or status}")


def tell(connection: Connection, folders: Iterable[bytes], words: bytes, until: float) -> None:
    """Say something to keepers (see far_keeper.py) by some time of the monotonic clock.

    A keeper that has ended does not hear it.
    """
    listed = b" ".join(map(_quoted, folders))
    text = b'for d in %b;do echo %b 1<>"$d/control";done 2>/dev/null' % (listed, words)
    command = _shell_command(connection, ["-s", "control"], text)
    Errand(connection).run(command, until=until, stdout=remctl.DEVNULL, stderr=remctl.DEVNULL)


# -- The sign of life -----------------------------------------------------------------------------


class Pulse:
    """Signs of life for the keepers of a connection, from a thread that lives as long as they do.

    A beat is a command over there.  The first comes after one period: a channel that is not used
    for longer costs none.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._keepers: set[Keeper] = set()
        self._runs = False

    @classmethod
    def join(cls, keeper: Keeper) -> None:
        """Beat for a keeper until it has ended."""
        # A forked child has its own.
        self: Pulse = keeper.connection.parts.setdefault(("pulse", os.getpid()), cls())
        with self._changed:
            self._keepers.add(keeper)
            self._changed.notify_all()
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="remctl-pulse", daemon=True).start()

    def _run(self) -> None:
        arrived = time.monotonic()  # when the last beat did
        while keepers := self._next():
            sent = time.monotonic()
            patience = min(keeper.patience for keeper in keepers)
            try:
                folders = [keeper.folder for keeper in keepers]
                tell(keepers[0].connection, folders, b"b", sent + patience)
                arrived = sent
            except remctl.RemctlError as error:
                silence = time.monotonic() - arrived
                for keeper in keepers:
                    if keeper.connection.closed or silence > keeper.patience:
                        keeper.fail(error)
            del keepers

    def _next(self) -> list[Keeper]:
        """Wait until a beat is due, and return for whom; nobody is the end."""
        start = time.monotonic()
        with self._changed:
            while True:
                self._keepers = {keeper for keeper in self._keepers if not keeper.ended}
                left = start - time.monotonic()
                left += min((keeper.beat for keeper in self._keepers), default=0.0)
                if left <= 0:
                    self._runs = bool(self._keepers)
                    return list(self._keepers)
                self._changed.wait(left)


# -- Input ----------------------------------------------------------------------------------------


class Feeder:
    """Feeds a command, one piece after the other, until that is stopped."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self._errand = Errand(keeper.connection)

    def take(self) -> tuple[bytes, bool] | None:
        """Wait for the next piece; return it, and whether it is the last.  None stops."""
        raise NotImplementedError

    def run(self) -> None:
        """Feed it all; this is a thread."""
        end = False
        try:
            while not end and (taken := self.take()) is not None:
                data, end = taken
                if (data or end) and not feed(self._errand, self.keeper, data, end):
                    break
        except BaseException as error:
            if not self._errand.stopped:
                self.keeper.fail(error)
        finally:
            self.stop()

    def command_ended(self) -> None:
        """Do what is to be done when the command has ended; what it has started may still read."""

    def stop(self) -> None:
        """Feed nothing more."""
        self._errand.stop()


class Outbox(Feeder):
    """What was written to a command and is still to be sent; all that waits is sent at once.

    It shares its keeper's condition.  The thread starts with the first write.
    """

    def __init__(self, keeper: Keeper) -> None:
        super().__init__(keeper)
        self._changed = keeper.changed
        self._pieces: list[bytes | memoryview] = []
        self._size = 0
        self._ended = False  # Nothing more is to be written.
        self._unread = False  # The command reads no more, or there is no way to it.
        self._started = False
        keeper.attach(self)

    def write(self, data: bytes | bytearray | memoryview, timeout: float | None) -> None:
        """Send octets; wait while much is waiting.  See `Channel.write()`."""
        # What it holds may be changed before it is sent.
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
                    self.keeper.check()
                    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
                if piece:
                    self._pieces.append(piece)
                    self._size += len(piece)
                    self._notify()

    def end(self) -> None:
        """Send the end, after all that was written."""
        with self._changed:
            if not self._ended:
                self._ended = True
                self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        if not self._started and not self._unread:
            self._started = True
            threading.Thread(target=self.run, name="remctl-feed", daemon=True).start()

    def take(self) -> tuple[bytes, bool] | None:
        """Wait for the next piece; see `Feeder.take()`."""
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

    def stop(self) -> None:
        """Send nothing more."""
        super().stop()
        with self._changed:
            self._unread = True
            self._pieces.clear()
            self._changed.notify_all()
