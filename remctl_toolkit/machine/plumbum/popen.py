"""A command of a machine in the shape of subprocess.Popen, as plumbum wants it.

What a command needs is known only when it is used.  So a command whose standard input is a pipe is
not started at once: `communicate()`, which comes next as a rule, says that all of its input is
known, and makes it one remctl command.  So does closing the pipe unused.  Writing to the pipe, or
waiting for output, makes it a channel; so do a few milliseconds in which nothing of all this
happens.  Input from a file is known, from a pipe it is not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
from subprocess import DEVNULL, PIPE, STDOUT
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal, Self

import plumbum.commands.processes

import remctl

from ..base.connection import Connection
from ..base.program import Command
from .addons import Addons
from .oneshot import LARGEST, Collected, Descriptor, Nowhere, OneShot, Writable
from .starter import starter
from .streams import Input, duplicate, feed, known_input, open_one

if TYPE_CHECKING:
    from ..channel.channel import ChannelProcess

GRACE = 0.01
"""Seconds for which a command waits for what comes next."""

_State = Literal["waiting", "at once", "live", "channel", "over"]


class Popen(Addons):
    """A command of the far side.

    Args:
        connection: the way there.
        command: what to run.
        stdin, stdout, stderr: as for `subprocess.Popen`.
        encoding: what plumbum decodes the output with; None has it as octets.
        keep: what must not be deleted as long as this is there: the machine closes itself then.

    Attributes:
        args, argv: the command as text.
        stdin, stdout, stderr: binary files over pipes, or None.
        returncode: None until the end was seen; then 0 to 255, or -N for signal N.  What is no
            channel, and was ended by a signal that does not come from here, has 255.
        custom_encoding: the encoding.

    Raises:
        TypeError, ValueError: an argument cannot be right.
        ClosedError: the connection was closed.
    """

    def __init__(
        self,
        connection: Connection,
        command: Command,
        *,
        stdin: Any = PIPE,
        stdout: Any = PIPE,
        stderr: Any = PIPE,
        encoding: str | None = "utf8",
        keep: object = None,
    ) -> None:
        self._keep = keep
        self._state: _State = "over"
        self._connection = connection
        self._command = command
        self.argv = [os.fsdecode(word) for word in command.argv]
        self.args = self.argv
        self.custom_encoding = encoding
        self.returncode: int | None = None
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._detached: int | None = None
        self._signalled = False
        self._oneshot: OneShot | None = None
        self._channel: ChannelProcess | None = None
        self._merged = stderr == STDOUT
        self._files: dict[int, IO[bytes] | None] = {}
        self._writers: dict[int, int] = {}  # where output goes
        self._source: int | None = None  # where input comes from, if it is not known
        self._data: bytes | None = None  # the input, if it is known
        if stdout == STDOUT:
            raise ValueError("stdout cannot be STDOUT: only stderr can")
        self._piped = {1} if stdout == PIPE else set()
        if stderr == PIPE:
            self._piped.add(2)
        try:
            self._open_input(stdin)
            for number, target in ((1, stdout), (2, stderr)):
                if target not in (PIPE, STDOUT):
                    self._writers[number] = duplicate(target, number)
        except BaseException:
            self._close_writers()
            raise
        self._stdin: Any = Input(self) if stdin == PIPE else None
        self._state = "waiting"
        starter.add(self, GRACE)

    @classmethod
    def ended(cls, connection: Connection, command: Command, pid: int) -> Self:
        """Make one that has ended with status 0, for a command that goes on by itself."""
        self = cls(connection, command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        self._detached = pid
        self._finish(0)
        return self

    def _open_input(self, stdin: Any) -> None:
        if stdin == PIPE:
            return
        if stdin == DEVNULL:
            self._data = b""
            return
        fd = duplicate(stdin, 0)
        self._data = known_input(fd)
        if self._data is None:
            self._source = fd
        else:
            os.close(fd)

    # Streams.

    @property
    def stdin(self) -> Any:
        """A binary file that leads to standard input, or None."""
        return self._stdin

    @stdin.setter
    def stdin(self, file: Any) -> None:
        self._stdin = file  # plumbum puts the file of a pipeline's first command here.

    @property
    def stdout(self) -> IO[bytes] | None:
        """A binary file over a pipe from standard output, or None."""
        return self._reader(1)

    @property
    def stderr(self) -> IO[bytes] | None:
        """The same for standard error."""
        return self._reader(2)

    def _reader(self, number: int) -> IO[bytes] | None:
        with self._lock:
            if number not in self._files and number in self._piped and self._state == "waiting":
                self._make_pipe(number)
            return self._files.get(number)

    def _make_pipe(self, number: int) -> None:
        reader, self._writers[number] = os.pipe()
        self._files[number] = os.fdopen(reader, "rb")

    def _close_writers(self) -> None:
        writers = list(self._writers.values())
        self._writers.clear()
        if self._source is not None:
            writers.append(self._source)
            self._source = None
        for fd in writers:
            os.close(fd)

    # Starting it.

    def is_waiting(self) -> bool:
        """Whether it is not started, and not over."""
        return self._state == "waiting"

    def start_late(self) -> None:
        """Start it, if it still waits."""
        with contextlib.suppress(Exception):  # It is kept, for whoever asks how it went.
            self._start()

    def _start(self) -> None:
        """Start it, unless it is; it goes on without this thread."""
        with self._lock:
            if self._state != "waiting":
                return
            for number in sorted(self._piped):
                if number not in self._files:
                    self._make_pipe(number)
            try:
                if self._data is not None and len(self._data) <= LARGEST:
                    self._start_live(self._data)
                else:
                    self._start_channel()
            except BaseException as error:
                self._failure = error
                self._finish(None)
                raise

    def _start_live(self, data: bytes) -> None:
        oneshot = self._oneshot = self._new_oneshot(data)
        stdout = self._target(1, oneshot)
        stderr = self._target(2, oneshot)
        self._state = "live"
        arguments = (oneshot, stdout, stderr)
        threading.Thread(
            target=self._run_live, args=arguments, name="remctl-live", daemon=True
        ).start()

    def _run_live(self, oneshot: OneShot, stdout: Writable, stderr: Writable) -> None:
        try:
            returncode = oneshot.run(stdout, stderr)
        except BaseException as error:
            self._failure = error
            self._finish(None)
        else:
            self._finish(returncode)

    def _start_channel(self) -> None:
        from ..channel.channel import ChannelProcess  # Not every command needs one.

        command = self._command
        channel = self._channel = ChannelProcess(
            self._connection,
            command.argv,
            stdin=PIPE if self._source is None else self._source,
            stdout=self._writers.get(1, DEVNULL),
            stderr=STDOUT if self._merged else self._writers.get(2, DEVNULL),
            cwd=command.cwd,
            env={os.fsdecode(name): value for name, value in (command.env or {}).items()}
            if command.env is not None
            else None,
            extend_env={os.fsdecode(name): value for name, value in command.extend_env.items()},
        )
        self._state = "channel"
        self._close_writers()
        if self._data is not None:
            threading.Thread(
                target=feed, args=(channel.stdin, self._data), name="remctl-feed", daemon=True
            ).start()
        self._data = None

    def _new_oneshot(self, data: bytes) -> OneShot:
        return OneShot(self._connection, self._command, data, merged=self._merged)

    def _target(self, number: int, oneshot: OneShot) -> Writable:
        fd = self._writers.get(number)
        return Nowhere() if fd is None else Descriptor(fd, oneshot)

    def _channel_stdin(self) -> IO[bytes]:
        """Return the file that leads to standard input, for which there has to be a channel."""
        self._start()
        if self._channel is None or self._channel.stdin is None:
            raise BrokenPipeError(errno.EPIPE, "command does not read from here any more")
        return self._channel.stdin

    def _end_input(self) -> None:
        """Let there be no input."""
        with self._lock:
            if self._state == "waiting":
                self._data = b""
                self._start()

    # How it ends.

    def _finish(self, returncode: int | None) -> None:
        with self._lock:
            if self.returncode is None:
                self.returncode = returncode
            self._state = "over"
            self._ended.set()
            self._close_writers()

    def poll(self) -> int | None:
        """Return the exit status if the command has ended.

        Raises:
            RemctlError: it is not known how it ended.
        """
        try:
            self._start()
            if self._failure is None and self._channel is not None and self.returncode is None:
                self._take(self._channel.poll())
        except remctl.RemctlError as error:
            self._failure = error
        if self._failure is not None:
            if _on_plumbums_clock():
                raise OSError(errno.EIO, "command was lost") from self._failure
            raise self._failure
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it did not end within `timeout` seconds.
            RemctlError: it is not known how it ended.
        """
        self._start()
        if self._channel is not None:
            if self.returncode is None:
                self._take(self._channel.wait(timeout))
        elif not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        if self._failure is not None:
            raise self._failure
        assert self.returncode is not None
        return self.returncode

    def _take(self, returncode: int | None) -> None:
        if returncode is not None:
            self._finish(returncode)

    def communicate(
        self, input: bytes | None = None, timeout: float | None = None
    ) -> tuple[bytes | None, bytes | None]:
        """Give it its input, read all of its output, and wait for its end.

        Returns:
            Standard output and standard error; None for what there is no pipe of.

        Raises:
            ValueError: there is input, but no pipe for it.
            subprocess.TimeoutExpired: it did not end within `timeout` seconds.
            WorkingFolderError: its folder cannot be entered.
            RemctlError: see `Connection.run()`.
        """
        if input and self._stdin is None:
            raise ValueError("input needs stdin=PIPE")
        if timeout is None and self._begin_at_once(input):
            output = self._run_at_once()
        else:
            output = self._exchange(input, timeout)
        self.wait()  # plumbum puts a function here that waits for the other half of a pipeline.
        return output

    def _begin_at_once(self, input: bytes | None) -> bool:
        with self._lock:
            if self._state != "waiting" or self._files or self._source is not None:
                return False
            data = self._data if self._data is not None else bytes(input or b"")
            if len(data) > LARGEST:
                return False
            self._oneshot = self._new_oneshot(data)
            self._state = "at once"
            return True

    def _run_at_once(self) -> tuple[bytes | None, bytes | None]:
        assert self._oneshot is not None
        kept = {number: Collected() for number in self._piped}
        targets = (kept.get(number) or self._target(number, self._oneshot) for number in (1, 2))
        try:
            returncode = self._oneshot.run(*targets)
        except BaseException as error:
            self._failure = error
            self._finish(None)
            raise
        self._finish(returncode)
        stdout, stderr = (kept[n].octets() if n in kept else None for n in (1, 2))
        return stdout, stderr

    def _exchange(
        self, input: bytes | None, timeout: float | None
    ) -> tuple[bytes | None, bytes | None]:
        from ..channel.exchange import Exchange

        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            if self._state == "waiting" and self._source is None and self._data is None:
                self._data = bytes(input or b"")  # All that there will be.
                input = None
                self._stdin.closed = True
        self._start()
        files = (open_one(file) for file in (self._stdin, *map(self._files.get, (1, 2))))
        exchange = Exchange(input, *files)
        if not exchange.run(deadline):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0, *exchange.output())
        if deadline is not None:
            self.wait(max(0.0, deadline - time.monotonic()))
        return exchange.output()

    # Ending it.

    @property
    def pid(self) -> int | None:
        """Its process over there, if that is known yet."""
        if self._channel is not None:
            return self._channel.pid
        return self._detached if self._oneshot is None else self._oneshot.pid

    def send_signal(self, sig: int) -> None:
        """Send a signal to the command and what it has started; nothing if it has ended.

        Raises:
            OSError: it could not be sent.
        """
        self._start()
        if _on_plumbums_clock():
            # plumbum sets this itself, but after the signal: the command's end could be noticed
            # before.  And of a pipeline it ends the last command alone.
            self._timed_out = True
            source = getattr(self, "srcproc", None)
            if source is not None and source.poll() is None:
                source.send_signal(sig)
        self._signalled = True
        try:
            if self._channel is not None:
                self._channel.send_signal(sig)
            elif self._oneshot is not None:
                self._oneshot.send_signal(sig)
        except remctl.RemctlError as error:
            reason = f"cannot send a signal to a command on {self._connection.host}"
            raise OSError(errno.EIO, reason) from error

    def terminate(self) -> None:
        """Ask the command to end: SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the command: SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End the command if it still runs, and close the pipes; again does nothing."""
        with self._lock:
            if self._state == "waiting":
                self._finish(-signal.SIGKILL)
        if self._channel is not None:
            self._channel.close()
        elif not self._ended.is_set():
            with contextlib.suppress(OSError):
                self.kill()
        for file in self._files.values():
            if file is not None:
                file.close()

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            file.close()
        # As a shell session ends: by a signal, and without waiting for what comes of it.  A channel
        # whose command nobody has asked to end complains about that.
        if getattr(self, "_signalled", False) and self._channel is not None:
            self._channel.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in (self.stdout, self.stderr, self._stdin):
            if file is not None:
                file.close()
        self.wait()

    def __repr__(self) -> str:
        state = self._state if self.returncode is None else f"ended with {self.returncode}"
        return f"<{type(self).__name__} on {self._connection.host}, {state}>"


def _on_plumbums_clock() -> bool:
    """Whether this is the thread that ends what takes too long; only OSError is good there."""
    return threading.current_thread() is plumbum.commands.processes.bgthd
