r"""A command on the far side whose standard input, output and error stay open all the time.

    with Channel(connection, ["bc", "-q"]) as bc:
        bc.write(b"6 * 7\n")
        bc.read()  # b"42\n"

remctl has no such thing: a command gets its input at once, and that is all.  So a channel is one
command that stays, the *keeper* (`far_keeper.py`), and one more for each piece of input, which
writes that into a FIFO over there.  Output comes as it is produced.  Both sides send a sign of
life: whichever side, or whatever is between, goes away, the other notices and cleans up.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Literal, Self

from ..base.connection import Connection
from ..base.errors import ClosedError
from ..base.program import Environment, Program, Word, check_label
from .engine import Target
from .feeds import Outbox
from .keeper import ChannelError, Keeper

__all__ = ["Channel", "ChannelError"]

LIMIT = 1 << 22  # octets of a stream that wait at most; then the command has to

_LOOK = 0.2  # seconds between two looks whether a stream is still wanted that nobody reads


class _Inbox(Target):
    """A stream in memory: written to by the keeper's thread, read by any; see `Target`.

    Attributes:
        octets: those that wait.
        failure: why it ended, unless that was all.
    """

    def __init__(self, changed: threading.Condition) -> None:
        """Share a condition."""
        super().__init__()
        self._changed = changed
        self.failure: BaseException | None = None
        self._finished = self._discarding = False

    def write(self, octets: bytes, /) -> int:
        with self._changed:
            while len(self.octets) >= LIMIT and not self._discarding:
                self._changed.wait(_LOOK)
            if not self._discarding:
                self.octets += octets
                self._changed.notify_all()
        return len(octets)

    def finish(self, failure: BaseException | None) -> None:
        with self._changed:
            if not self._finished:
                self._finished, self.failure = True, failure
                self._changed.notify_all()

    def discard(self) -> None:
        self._discarding = True

    def read(self, size: int, timeout: float | None) -> bytes:
        """Return up to so many octets (-1: all) as soon as there are any, b"" at the end."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.octets or self._finished, timeout):
                raise TimeoutError(f"nothing came within {timeout:g} seconds")
            taken = bytes(memoryview(self.octets)[: size if size >= 0 else None])
            del self.octets[: len(taken)]
            self._changed.notify_all()
        return taken


class Channel:
    """A command of the far side, and a stream each way.

    One thread may write while another reads; several that write (or read the same stream) take
    turns, in no order.  `close()` from another thread ends what waits.  A forked child cannot use
    it, and is told so.

    The command is the leader of a session of its own, and its standard streams are pipes.  When it
    is asked to end (`close()`, or the client is gone), so is all that it has started, except what
    has left both it and its session, as daemons do.  What it has left running when it ended by
    itself goes on, as after a login.

    Args:
        connection: the way there.
        argv: the program and its arguments, see `Connection.run()`.
        source: instead of a program, Python text (3.8 and up, nothing but the standard library) to
            run as ``__main__``, with ``python -I -S``.  It has file descriptors 0, 1 and 2 (also as
            sys.stdin and so on), the variable `payload`, and nothing else.
        payload: octets for that variable.
        cwd, env, extend_env: see `Connection.run()`.
        stderr: "stdout" to have standard error among standard output, in the order of writing.
        label: what remctld's log shows of it; None is the program's name, or "channel".
        beat: seconds between two signs of life, either way.
        patience: seconds without one after which the other side is given up.

    Attributes:
        connection: the connection.
        pid: the command's process over there.
        returncode: the exit status, 0 to 255; -N if signal N ended it; None before.

    Raises:
        TypeError, ValueError: an argument cannot be right; nothing was sent.
        WorkingFolderError: `cwd` cannot be entered; nothing was started.
        ClosedError: the connection was closed.
        RemctlError: see `remctl.Remctl.open()`.
        ChannelError: the channel was lost as soon as it was there.
    """

    def __init__(
        self,
        connection: Connection,
        argv: Iterable[Word] | None = None,
        *,
        source: str | Program | None = None,
        payload: bytes = b"",
        cwd: Word | None = None,
        env: Mapping[str, Word] | None = None,
        extend_env: Environment | None = None,
        stderr: Literal["stdout"] | None = None,
        label: str | None = None,
        beat: float = 2.0,
        patience: float = 10.0,
    ) -> None:
        self._keeper: Keeper | None = None
        if stderr not in (None, "stdout"):
            raise ValueError(f"stderr must be None or 'stdout', not {stderr!r}")
        if (argv is None) == (source is None):
            raise ValueError("a channel needs either argv, a program, or source, Python text")
        if argv is not None and payload:
            raise ValueError("payload is for source: write() gives a program its input")
        program = Program(source) if isinstance(source, str) else source
        if not isinstance(program, Program | None):
            raise TypeError(f"source must be text, not {type(program).__name__}")
        command = connection.command_of(["python"] if argv is None else argv, cwd, env, extend_env)
        if label is None:
            label = "channel" if argv is None else command.label
        spec = {
            "label": check_label(label),
            "payload": bytes(payload),
            "merge": stderr is not None,
            "beat": beat,
            "patience": patience,
        }
        self.connection = connection
        self._process = os.getpid()
        self._closed = False
        self._closing = threading.Lock()
        changed = threading.Condition()
        self._stdout, self._stderr = _Inbox(changed), _Inbox(changed)
        keeper = Keeper(connection, self._stdout, self._stderr, command, spec, program)
        self._outbox = Outbox(keeper)
        try:
            keeper.start()
            if not keeper.await_start():
                keeper.check()
        except BaseException:
            keeper.drop()
            raise
        self._keeper = keeper

    # Writing.

    def write(self, data: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """Write to the command's standard input.

        What is written is sent by another thread, as much as has gathered meanwhile at once; this
        waits only while a mebibyte is waiting.

        Args:
            data: what to write.
            timeout: seconds to wait at most; None is for ever.

        Raises:
            TypeError: it is something else than octets.
            ValueError: `close_write()` was called.
            TimeoutError: the command did not read in that time; of data above a mebibyte, some may
                have been sent.
            BrokenPipeError: the command has ended, or closed its standard input.
            ChannelError: the channel was lost.
            ClosedError: it was closed.
        """
        self._check()
        try:
            self._outbox.write(data, timeout)
        except (BrokenPipeError, ChannelError):
            self._check()
            raise
        self._check()  # What waited for close() has gone nowhere: the far side drains the FIFO.

    def close_write(self) -> None:
        """Let the command's standard input end after what was written; again does nothing."""
        self._check()
        self._outbox.end()

    # Reading.

    def read(self, n: int = -1, timeout: float | None = None) -> bytes:
        """Read standard output: up to `n` octets, as soon as there are any; b"" at its end.

        Args:
            n: how many octets at most; -1 for all that are there.
            timeout: seconds to wait at most; None is for ever.

        Raises:
            TimeoutError: nothing came in that time.
            ChannelError: the channel was lost; what had arrived was read before.
            ClosedError: it was closed.
        """
        return self._read(self._stdout, n, timeout)

    def read_exactly(self, n: int) -> bytes:
        """Read so many octets of standard output, and wait for all of them.

        Raises:
            EOFError: it ended before; what there was is lost.
            ChannelError, ClosedError: see `read()`.
        """
        pieces: list[bytes] = []
        left = n
        while left > 0:
            piece = self.read(left)
            if not piece:
                raise EOFError(f"standard output ended {left} octets before {n}")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def read_stderr(self, n: int = -1, timeout: float | None = None) -> bytes:
        """Read standard error; see `read()`."""
        return self._read(self._stderr, n, timeout)

    def _read(self, inbox: _Inbox, size: int, timeout: float | None) -> bytes:
        keeper = self._check()
        octets = inbox.read(size, timeout) if size else b""
        if not octets and size:
            self._check()
            if inbox.failure is not None:
                raise keeper.lost(inbox.failure)
        return octets

    # The command's end.

    @property
    def returncode(self) -> int | None:
        """The exit status, 0 to 255, or -N if signal N ended it; None before."""
        return None if self._keeper is None else self._keeper.returncode

    @property
    def pid(self) -> int:
        """The command's process over there."""
        return 0 if self._keeper is None else self._keeper.pid

    def poll(self) -> int | None:
        """Return the exit status if the command has ended.

        All that the command itself wrote has arrived before.

        Raises:
            ChannelError: the channel was lost.
        """
        try:
            return self.wait(0)
        except TimeoutError:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command's end, and return its exit status.

        As with a pipe, a command that has much to say does not end while nobody reads it.

        Args:
            timeout: seconds to wait at most; None is for ever.

        Raises:
            TimeoutError: it did not end in that time.
            ChannelError: the channel was lost.
            ClosedError: it was closed before the command ended.
        """
        if self.returncode is not None:
            return self.returncode
        try:
            return self._check().wait(timeout)
        except ChannelError:
            self._check()
            raise

    def send_signal(self, number: int) -> None:
        """Send a signal to the command, and to all that it has started; nothing if it has ended.

        Raises:
            ValueError: there is no such signal.
            ChannelError: the channel was lost.
            ClosedError: it was closed.
        """
        keeper = self._check()
        if self.poll() is None:
            keeper.send_signal(number)

    def terminate(self) -> None:
        """Ask the command to end: SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the command: SIGKILL."""
        self.send_signal(signal.SIGKILL)

    # The channel's.

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def close(self) -> None:
        """End the command if it still runs, and wait until nothing of it is left over there.

        It gets SIGTERM, and SIGKILL two seconds later.  Whatever waits in other threads ends with
        ClosedError.  Closing again does nothing.  Never raises because of the far side, and takes
        less than ten seconds even if that does not answer: what was lost cleans up after itself.
        """
        keeper = self._keeper
        if keeper is None or self._process != os.getpid():
            return
        with self._closing:
            if not self._closed:
                self._closed = True
                try:
                    keeper.close()
                finally:
                    self._outbox.stop()

    def drop(self) -> None:
        """Give the channel up: the far side notices within a few beats, and ends the command.

        Nothing is waited for, and no lock is taken: for where garbage is collected.
        """
        if self._keeper is not None and self._process == os.getpid():
            self._closed = True
            self._keeper.drop()

    def _check(self) -> Keeper:
        if self._process != os.getpid():
            text = f"channel belongs to process {self._process}: open one after a fork"
            raise ClosedError(text)
        if self._closed or self._keeper is None:
            raise ClosedError("the channel was closed")
        return self._keeper

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        if self.returncode is not None:
            state = f"ended with {self.returncode}"
        return f"<Channel to {self.connection.host}, process {self.pid}, {state}>"

    def __del__(self) -> None:
        keeper = getattr(self, "_keeper", None)
        if keeper is None or self._closed or self._process != os.getpid():
            return
        if not sys.is_finalizing():
            text = f"unclosed {self!r}: use it in a with statement, or call close()"
            self.drop()
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)  # It may raise.
