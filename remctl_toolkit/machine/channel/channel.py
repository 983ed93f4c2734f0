r"""A command on the remote host whose standard input, output and error stay open.

    with Channel(connection, ["bc", "-q"]) as bc:
        bc.write(b"6 * 7\n")
        bc.read()  # b"42\n"

A remctl command gets all its input at the start.  So a channel is one long-running remctl command,
the *keeper* (`far_keeper.py`), and another one for each piece of input, which it writes into a FIFO
on the host.  Output is sent as it is produced.  Both sides send heartbeats: if one side or the
network fails, the other side notices and cleans up.
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

LIMIT = 1 << 22  # octets of a stream that are buffered; then the command must wait

_LOOK = 0.2  # poll interval for whether an unread stream is still wanted


class _Inbox(Target):
    """A buffer that the keeper's thread writes and any thread reads; see `Target`.

    Attributes:
        octets: the unread data.
        failure: the error that ended the stream, if any.
    """

    def __init__(self, changed: threading.Condition) -> None:
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
        """Wait for data and return up to `size` octets (-1: all); b"" at the end."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.octets or self._finished, timeout):
                raise TimeoutError(f"no data within {timeout:g} seconds")
            taken = bytes(memoryview(self.octets)[: size if size >= 0 else None])
            del self.octets[: len(taken)]
            self._changed.notify_all()
        return taken


class Channel:
    """A command on the remote host whose streams stay open.

    One thread may write while another reads; several that write (or read the same stream) take
    turns, in no order.  `close()` from another thread wakes all that wait.  A forked child gets a
    ClosedError.

    The command is the leader of a session of its own, and its standard streams are pipes.  When it
    is ended (by `close()`, or because the client is gone), its descendants and its session are
    ended as well, but not processes that have left both, as daemons do.  If it ends by itself,
    processes that it leaves go on, as after a login.

    Args:
        connection: the connection to the host.
        argv: the program and its arguments, see `Connection.run()`.
        source: instead of a program, Python text (for 3.8 and later, with the standard library
            only) to run as ``__main__``, with ``python -I -S``.  It has file descriptors 0, 1 and 2
            (also as sys.stdin and so on), the variable `payload`, and nothing else.
        payload: octets for that variable.
        cwd, env, extend_env: see `Connection.run()`.
        stderr: "stdout" to merge standard error into standard output, in the order of writing.
        label: the name in remctld's log; None is the program's name, or "channel".
        beat: seconds between heartbeats, in each direction.
        patience: seconds without a heartbeat after which a side gives up.

    Attributes:
        connection: the connection.
        pid: the command's process id on the host.
        returncode: the exit status, 0 to 255; -N if signal N ended it; None before.

    Raises:
        TypeError, ValueError: an argument is invalid; nothing was sent.
        WorkingFolderError: `cwd` cannot be entered; nothing was started.
        ClosedError: the connection was closed.
        RemctlError: see `remctl.Remctl.open()`.
        ChannelError: the channel was lost while it was opened.
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
            raise ValueError("a channel needs either argv= (a program) or source= (Python text)")
        if argv is not None and payload:
            raise ValueError("payload= is only for source=: send input to a program with write()")
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

        Another thread sends the data, in pieces as large as have gathered.  This method waits only
        while 1 MiB is unsent.

        Args:
            data: the data to write.
            timeout: seconds to wait at most; None is for ever.

        Raises:
            TypeError: `data` is not octets.
            ValueError: `close_write()` was called.
            TimeoutError: the command did not read in that time; a part of data above 1 MiB may
                have been sent.
            BrokenPipeError: the command has ended, or closed its standard input.
            ChannelError: the channel was lost.
            ClosedError: the channel was closed.
        """
        self._check()
        try:
            self._outbox.write(data, timeout)
        except (BrokenPipeError, ChannelError):
            self._check()
            raise
        self._check()  # Data that was written during close() is discarded.

    def close_write(self) -> None:
        """End the command's standard input after the data so far; again does nothing."""
        self._check()
        self._outbox.end()

    # Reading.

    def read(self, n: int = -1, timeout: float | None = None) -> bytes:
        """Wait for data of standard output and return up to `n` octets; b"" at its end.

        Args:
            n: the number of octets at most; -1 for all that have arrived.
            timeout: seconds to wait at most; None is for ever.

        Raises:
            TimeoutError: no data arrived in that time.
            ChannelError: the channel was lost, and all data that had arrived was read.
            ClosedError: the channel was closed.
        """
        return self._read(self._stdout, n, timeout)

    def read_exactly(self, n: int) -> bytes:
        """Wait for exactly `n` octets of standard output, and return them.

        Raises:
            EOFError: standard output ended before; the octets so far are lost.
            ChannelError, ClosedError: see `read()`.
        """
        pieces: list[bytes] = []
        left = n
        while left > 0:
            piece = self.read(left)
            if not piece:
                raise EOFError(f"standard output ended {left} octets short of {n}")
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
        """The command's process id on the remote host."""
        return 0 if self._keeper is None else self._keeper.pid

    def poll(self) -> int | None:
        """Return the exit status if the command has ended; its output has arrived before.

        Raises:
            ChannelError: the channel was lost.
        """
        try:
            return self.wait(0)
        except TimeoutError:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command's end, and return its exit status.

        As with a pipe, a command with much output does not end until the output is read.

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
        """Send a signal to the command and everything that it started, unless it has ended.

        Raises:
            ValueError: there is no such signal.
            ChannelError: the channel was lost.
            ClosedError: the channel was closed.
        """
        keeper = self._check()
        if self.poll() is None:
            keeper.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM to the command and everything that it started."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the command and everything that it started."""
        self.send_signal(signal.SIGKILL)

    # The channel's.

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._closed

    def close(self) -> None:
        """End the command if it still runs, and wait until nothing of it is left on the host.

        It gets SIGTERM, and SIGKILL two seconds later.  Methods that wait in other threads raise
        ClosedError.  Closing again does nothing.  Failures of the host raise nothing, and it takes
        less than ten seconds even if the host does not answer: the keeper then cleans up by itself.
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
        """Abandon the channel: the host notices within a few beats, and ends the command.

        This does not wait and takes no lock, so finalizers may call it.
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
