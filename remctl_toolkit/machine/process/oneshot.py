"""One remctl command that can be sent signals while it runs.

A session is busy while its command runs, so a signal goes by another one; for that the command
tells its process number as the first line of its standard error, which is kept from everybody else.
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
    """A command whose input is known.

    If a signal ends it that does not come from here, its status is 255.

    Args:
        connection, stdout, stderr: see `Engine`.
        command: the command.
        data: its standard input.
        label: what remctld's log shows of it.
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
        self._early: list[int] = []  # signals from before the process was known
        self._signal: int | None = None  # the last one that was sent
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
            if self.connection.closed:  # That says more than what came of it.
                return ClosedError(f"the connection to {self.connection.host} was closed")
            raise
        except BaseException:  # Ctrl-C, or a file that cannot be written to.
            with contextlib.suppress(remctl.RemctlError):
                self.send_signal(signal.SIGKILL)
            raise
        if self._refusal is not None:
            return self.connection._no_folder(self._folder, self._refusal)
        # The server tells of no signals: 255 is the status for all of them.
        self.returncode = -self._signal if status == 255 and self._signal else status
        return None

    def _take(self, letter: bytes, octets: bytes) -> int:
        size = len(octets)
        if letter == b"E" and not self.pid:
            line, _, rest = octets.partition(b"\n")
            if line.isdigit():
                self._announce(int(line))
                octets = rest
        if octets.startswith(self._mark):
            self._refusal = octets[len(self._mark) :]
        elif octets:
            self._put(letter, octets)
        return size

    def _announce(self, pid: int) -> None:
        with self.changed:
            self._change(pid=pid, started=True)
            early, self._early = self._early, []
        for number in early:
            self.send_signal(number)

    def send_signal(self, number: int) -> None:
        """Send a signal to the command and all that it has started; nothing once it is over.

        Before the process is known, it is sent as soon as that is.

        Raises:
            RemctlError: it could not be sent.
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
        """End it, and forget its output."""
        self._discard()
        with contextlib.suppress(remctl.RemctlError):
            self.send_signal(signal.SIGKILL)
