"""One remctl command that can be sent signals while it runs.

A session is busy while its command runs, so a signal goes by another one; for that the command
tells its process number as the first line of its standard error, which is kept from everybody else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Protocol

import remctl

from ..base.connection import Connection, _new_mark
from ..base.errors import ClosedError
from ..base.program import Command, source

_SIGNAL = ("base/far_supervise", "plumbum/far_signal")
LARGEST = 16 << 20  # octets of input; remctld has them three times in memory

_NUMBER_LIMIT = 20  # octets in the line with the process number


class Writable(Protocol):
    """What takes a stream."""

    def write(self, octets: bytes, /) -> object:
        """Take some of it."""


class _Announced(Command):
    """A command that tells its process number first."""

    def __init__(self, command: Command, merged: bool) -> None:
        """Be that command; `merged` is whether its standard error goes to standard output."""
        vars(self).update(vars(command))
        self.merged = merged

    def shell_payload(self, mark: bytes, data: bytes) -> bytes | None:
        payload = super().shell_payload(mark, data)
        merge = b"exec 2>&1;" if self.merged else b""
        return None if payload is None else b"echo $$>&2;%b%b" % (merge, payload)

    def python_program(self, mark: bytes, timeout: float | None = None) -> str:
        # A group of its own, and none of the daemon's signals.
        first = 'import os\nos.setsid()\nos.write(2, b"%d\\n" % os.getpid())\n'
        merge = "os.dup2(1, 2)\n" if self.merged else ""
        return first + merge + super().python_program(mark, timeout)


class _Beginning:
    """Keeps the start of a stream until it is known what it is."""

    def __init__(self, oneshot: OneShot, target: Writable, *, number: bool) -> None:
        self._oneshot = oneshot
        self._target = target
        self._number = number  # whether the process number comes first
        self._kept = b""
        self._passing = False

    def write(self, octets: bytes) -> None:
        if self._passing:
            self._target.write(octets)
            return
        self._kept += octets
        if self._number:
            line, end, rest = self._kept.partition(b"\n")
            if not end and len(line) < _NUMBER_LIMIT:
                return
            self._number = False
            if end and line.isdigit():
                self._kept = rest
                self._oneshot._announce(int(line))
        mark = self._oneshot._mark
        if not self._kept or (self._kept != mark and mark.startswith(self._kept)):
            return
        if not self._kept.startswith(mark):
            self.flush()

    def flush(self) -> None:
        """Pass on what was kept; from now on, all."""
        self._passing = True
        if self._kept:
            self._target.write(self._kept)
            self._kept = b""

    def word(self) -> bytes | None:
        """Return what the far side said to us in place of the command."""
        mark = self._oneshot._mark
        return self._kept[len(mark) :] if self._kept.startswith(mark) else None


class OneShot:
    """A command whose input is known; it is started by `run()`.

    Args:
        connection: the way there.
        command: what to run.
        data: what it gets on standard input.
        merged: whether its standard error goes to standard output.

    Attributes:
        pid: its process over there, as soon as that is known.
    """

    def __init__(
        self, connection: Connection, command: Command, data: bytes, *, merged: bool = False
    ) -> None:
        self.pid: int | None = None
        self._connection = connection
        self._label = command.label
        self._cwd = command.cwd
        self._mark = _new_mark()
        self._words, self._payload = connection._remctl_command(
            _Announced(command, merged), self._mark, data, None, None
        )
        self._merged = merged
        self._lock = threading.Lock()
        self._early: list[int] = []  # signals from before the process was known
        self._signals: list[int] = []
        self._over = False

    def run(self, stdout: Writable, stderr: Writable) -> int:
        """Run it to its end, and return its status: 0 to 255, or -N if our signal N ended it.

        An exception that comes from elsewhere (Ctrl-C, or a target that cannot be written to) ends
        the command over there, if it has told its number by then.

        Raises:
            WorkingFolderError: its folder cannot be entered.
            ClosedError: the connection was closed.
            RemctlError: see `remctl.Remctl.run()`.
        """
        errors = _Beginning(self, stderr, number=True)
        output = _Beginning(self, stdout, number=False)
        if not self._merged:
            output.flush()
        try:
            with self._connection.session() as session:
                session.set_timeout(0)
                command = (*self._words, self._payload)
                status = session.run(command, stdout=output, stderr=errors).status
        except remctl.RemctlError:
            self._give_up()
            self._connection._check_open()  # That it was closed says more than what came of it.
            raise
        except BaseException:
            self._give_up(end=True)
            raise
        with self._lock:
            self._over = True
        word = output.word() if self._merged else errors.word()
        if word is not None:
            raise self._connection._no_folder(self._cwd, word)
        output.flush()
        errors.flush()
        assert status is not None
        # The server tells of no signals: 255 is the status for all of them.
        return -self._signals[-1] if status == 255 and self._signals else status

    def _give_up(self, *, end: bool = False) -> None:
        if end:
            with contextlib.suppress(remctl.RemctlError):
                self.send_signal(signal.SIGKILL)
        with self._lock:
            self._over = True

    def _announce(self, pid: int) -> None:
        with self._lock:
            self.pid = pid
            early, self._early = self._early, []
        for number in early:
            self.send_signal(number)

    def send_signal(self, number: int) -> None:
        """Send a signal to the command and all that it has started; nothing once it is over.

        Before the process is known, it is sent as soon as that is.

        Raises:
            RemctlError: it could not be sent.
        """
        with self._lock:
            if self._over:
                return
            if self.pid is None:
                self._early.append(number)
                return
            self._signals.append(number)
        payload = b"%d %d" % (self.pid, number)
        self._connection.python_run(source(*_SIGNAL), payload, label="signal").check()


class Collected:
    """A target that keeps a stream."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._pieces: list[bytes] = []

    def write(self, octets: bytes) -> None:
        """Keep some."""
        self._pieces.append(octets)

    def octets(self) -> bytes:
        """Return all of it."""
        return b"".join(self._pieces)


class Descriptor:
    """A target that writes to a descriptor; when its reader has gone, the command gets SIGPIPE."""

    def __init__(self, fd: int, oneshot: OneShot) -> None:
        """Own nothing: whoever has opened the descriptor closes it."""
        self._fd: int | None = fd
        self._oneshot = oneshot

    def write(self, octets: bytes) -> None:
        """Write it all."""
        view = memoryview(octets)
        while view and self._fd is not None:
            try:
                view = view[os.write(self._fd, view) :]
            except BrokenPipeError:
                self._fd = None
                with contextlib.suppress(ClosedError):
                    self._oneshot.send_signal(signal.SIGPIPE)


class Nowhere:
    """A target that forgets."""

    def write(self, octets: bytes) -> None:
        """Forget it."""
