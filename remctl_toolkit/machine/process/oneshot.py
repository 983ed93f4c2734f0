"""Run a command as one remctl command, and send signals to it.

A session is busy while its command runs, so signals use another session.  For this, the command
prints its process id as the first line of its standard error, which is removed from its output.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import types

import remctl

from ..base.connection import Connection
from ..base.errors import ClosedError
from ..base.outputs import new_mark
from ..base.program import SHELL_LOADER, Command, python_arguments, python_payload, source
from ..channel.engine import Engine, Target

SIGNAL_TIMEOUT = 10.0  # seconds

_IN_PYTHON = 'import os\nos.setsid()\nos.write(2, b"%d\\n" % os.getpid())\n'


class OneShot(Engine):
    """A command whose input is known beforehand.

    If it is ended by a signal that this program did not send, its status is 255.

    Args:
        connection, stdout, stderr: see `Engine`.
        command: the command.
        data: its standard input.
        label: the name in remctld's log.
        merged: whether its standard error goes to standard output.
    """

    def __init__(
        self,
        connection: Connection,
        stdout: Target | None,
        stderr: Target | None,
        command: Command,
        data: bytes,
        label: str,
        merged: bool,
    ) -> None:
        super().__init__(connection, stdout, stderr)
        self._folder = command.cwd
        self._mark = new_mark()
        self._refusal: bytes | None = None
        self._early: list[int] = []  # signals to send when the process id is known
        self._signal: int | None = None  # the last signal
        payload = command.shell_payload(self._mark, data) if connection.shell else None
        if payload is None:
            program = _IN_PYTHON + ("os.dup2(1, 2)\n" if merged else "")
            payload = python_payload(program + command.python_program(self._mark), data)
            words = [connection.python, *python_arguments(label)]
        else:
            assert connection.shell is not None
            payload = b"echo $$>&2;%b%b" % (b"exec 2>&1;" if merged else b"", payload)
            words = [connection.shell, "-c", SHELL_LOADER, label]
        self._words = (*words, payload)

    def _run(self) -> BaseException | None:
        takes = (functools.partial(self._take, letter) for letter in (b"O", b"E"))
        stdout, stderr = (types.SimpleNamespace(write=take) for take in takes)
        try:
            status = self._errand.run(self._words, stdout, stderr)
        except remctl.RemctlError:
            if self.connection.closed:
                return ClosedError(f"the connection to {self.connection.host} was closed")
            raise
        except BaseException:  # KeyboardInterrupt, or an error of an output file
            with contextlib.suppress(remctl.RemctlError):
                self.send_signal(signal.SIGKILL)
            raise
        if self._refusal is not None:
            return self.connection._no_folder(self._folder, self._refusal)
        # The server reports status 255 for all signals.
        self.returncode = -self._signal if status == 255 and self._signal else status
        return None

    def _take(self, letter: bytes, octets: bytes) -> int:
        size = len(octets)
        if letter == b"E" and not self.pid:
            line, _, rest = octets.partition(b"\n")
            if line.isdigit():
                self._on_pid(int(line))
                octets = rest
        if octets.startswith(self._mark):
            self._refusal = octets[len(self._mark) :]
        elif octets:
            self._put(letter, octets)
        return size

    def _on_pid(self, pid: int) -> None:
        with self.changed:
            self._change(pid=pid, started=True)
            early, self._early = self._early, []
        for number in early:
            self.send_signal(number)

    def send_signal(self, number: int) -> None:
        """Send a signal to the command and everything that it started, unless it has ended.

        If the process id is not known yet, the signal is sent as soon as it is.

        Raises:
            RemctlError: the signal could not be sent.
        """
        with self.changed:
            if self.ended:
                return
            self._signal = number
            if not self.pid:
                self._early.append(number)
                return
        payload = b"%d %d" % (self.pid, number)
        program = source("base/far_supervise", "process/far_signal")
        self.connection.python_run(program, payload, label="signal", timeout=SIGNAL_TIMEOUT).check()

    def close(self) -> None:
        """Kill it, and discard its output."""
        self._discard()
        with contextlib.suppress(remctl.RemctlError):
            self.send_signal(signal.SIGKILL)
