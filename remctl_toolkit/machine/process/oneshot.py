"""One remctl command that can be sent signals while it runs.

A session is busy while its command runs, so a signal goes by another one; for that the command
tells its process number as the first line of its standard error, which is kept from everybody else.
"""

from __future__ import annotations

import contextlib
import signal
import threading

import remctl

from ..base.connection import Connection
from ..base.errors import ClosedError, WorkingFolderError, describe_folder
from ..base.outputs import new_mark
from ..base.program import (
    SHELL_LOADER,
    Command,
    check_label,
    python_arguments,
    python_payload,
    source,
)
from ..channel.keeper import Target

SIGNAL_TIMEOUT = 10.0  # seconds

_IN_PYTHON = 'import os\nos.setsid()\nos.write(2, b"%d\\n" % os.getpid())\n'


class Buffer:
    """A target that keeps a stream in memory."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def put(self, octets: bytes) -> None:
        """Keep some of it."""
        self._pieces.append(octets)

    def finish(self, failure: BaseException | None) -> None:
        """Do nothing."""

    def discard(self) -> None:
        """Do nothing."""

    def octets(self) -> bytes:
        """Return all of it."""
        return b"".join(self._pieces)


class _Stream:
    """A stream of the command's output: a file, as far as `remctl.Remctl.run()` needs one."""

    def __init__(self, oneshot: OneShot, target: Target | None, *, has_pid: bool) -> None:
        self._oneshot = oneshot
        self._target = target
        self._has_pid = has_pid

    def write(self, octets: bytes) -> int:
        size = len(octets)
        if self._has_pid:
            self._has_pid = False
            line, _, rest = octets.partition(b"\n")
            if line.isdigit():
                self._oneshot._announce(int(line))
                octets = rest
        if octets and not self._oneshot._is_refusal(octets) and self._target is not None:
            try:
                self._target.put(octets)
            except BrokenPipeError:  # As when the command itself writes to a pipe without reader.
                self._target = None
                with contextlib.suppress(remctl.RemctlError):
                    self._oneshot.send_signal(signal.SIGPIPE)
        return size


class OneShot:
    """A command whose input is known.

    Args:
        connection: the connection.
        command: the command.
        data: its standard input.
        stdout, stderr: where its output goes; None is nowhere.
        merged: whether its standard error goes to standard output.
        label: what remctld's log shows of it; None is the program's name.

    Attributes:
        pid: its process on the remote host, as soon as that is known.
        returncode: its status, 0 to 255, or -N if our signal N ended it; None before.
    """

    def __init__(
        self,
        connection: Connection,
        command: Command,
        data: bytes,
        stdout: Target | None,
        stderr: Target | None,
        *,
        merged: bool = False,
        label: str | None = None,
    ) -> None:
        self.pid: int | None = None
        self.returncode: int | None = None
        self._connection = connection
        self._targets = [target for target in (stdout, stderr) if target is not None]
        self._stdout = _Stream(self, stdout, has_pid=False)
        self._stderr = _Stream(self, stderr, has_pid=True)
        self._cwd = command.cwd
        self._mark = new_mark()
        self._refusal: bytes | None = None
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._started, self._over = threading.Event(), threading.Event()
        self._early: list[int] = []  # signals from before the process was known
        self._signal: int | None = None  # the last one that was sent
        shown = command.label if label is None else check_label(label)
        payload = command.shell_payload(self._mark, data) if connection.shell else None
        if payload is None:
            program = _IN_PYTHON + ("os.dup2(1, 2)\n" if merged else "")
            payload = python_payload(program + command.python_program(self._mark), data)
            words = [connection.python, *python_arguments(shown)]
        else:
            assert connection.shell is not None
            payload = b"echo $$>&2;%b%b" % (b"exec 2>&1;" if merged else b"", payload)
            words = [connection.shell, "-c", SHELL_LOADER, shown]
        self._remctl_command = (*words, payload)

    # Running it.

    def start(self) -> None:
        """Run it in another thread; return when it was started.

        Raises:
            See `run()`; what comes up later is raised by `wait()`.
        """
        thread = threading.Thread(target=self._run_there, name="remctl-command", daemon=True)
        thread.start()
        try:
            self._started.wait()
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if self.pid is None and self._failure is not None:
            raise self._failure

    def _run_there(self) -> None:
        with contextlib.suppress(BaseException):  # wait() raises it.
            self.run()

    def run(self) -> None:
        """Run it in this thread, to its end.

        An exception that comes from elsewhere (Ctrl-C, or a file that cannot be written to) ends
        the command on the remote host, if it has told its number by then.

        Raises:
            WorkingFolderError: its working directory cannot be entered.
            ClosedError: the connection was closed.
            RemctlError: see `remctl.Remctl.run()`.
        """
        try:
            with self._connection.session() as session:
                session.set_timeout(0)
                command = self._remctl_command
                self._end(session.run(command, stdout=self._stdout, stderr=self._stderr).status)
        except BaseException as error:
            failure: BaseException = error
            if not isinstance(error, remctl.RemctlError):
                with contextlib.suppress(remctl.RemctlError):
                    self.send_signal(signal.SIGKILL)
            elif self._connection.closed:  # That says more than what came of it.
                failure = ClosedError(f"the connection to {self._connection.host} was closed")
            self._failure = failure
            raise failure from None
        finally:
            for target in self._targets:
                target.finish(self._failure)
            with self._lock:
                self._over.set()
            self._started.set()

    def _end(self, status: int | None) -> None:
        if self._refusal is not None:
            text = describe_folder(self._cwd, self._refusal, self._connection.host)
            error = WorkingFolderError(text)
            error.host = self._connection.host
            raise error
        # The server tells of no signals: 255 is the status for all of them.
        by_signal = status == 255 and self._signal is not None
        self.returncode = -(self._signal or 0) if by_signal else status

    def _is_refusal(self, octets: bytes) -> bool:
        if octets.startswith(self._mark):
            self._refusal = octets[len(self._mark) :]
        return self._refusal is not None

    def _announce(self, pid: int) -> None:
        with self._lock:
            self.pid = pid
            early, self._early = self._early, []
        self._started.set()
        for number in early:
            self.send_signal(number)

    # For other threads.

    @property
    def ended(self) -> bool:
        """Whether it has ended, or was lost."""
        return self._over.is_set()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its status.

        Raises:
            TimeoutError: it did not end within `timeout` seconds.
            See `run()`.
        """
        if not self._over.wait(timeout):
            raise TimeoutError(f"the command did not end within {timeout} seconds")
        if self._failure is not None:
            raise self._failure
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the command and all that it has started; nothing once it is over.

        Before the process is known, it is sent as soon as that is.

        Raises:
            RemctlError: it could not be sent.
        """
        with self._lock:
            if self.ended:
                return
            self._signal = number
            if self.pid is None:
                self._early.append(number)
                return
        payload = b"%d %d" % (self.pid, number)
        program = source("base/far_supervise", "process/far_signal")
        self._connection.python_run(
            program, payload, label="signal", timeout=SIGNAL_TIMEOUT
        ).check()

    def close(self) -> None:
        """End it, and forget its output."""
        for target in self._targets:
            target.discard()
        with contextlib.suppress(remctl.RemctlError):
            self.send_signal(signal.SIGKILL)

    def drop(self) -> None:
        """Do nothing: it goes on by itself, as the commands of subprocess.Popen do."""
