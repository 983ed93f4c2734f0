"""Remote commands with the interface of subprocess.Popen."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Mapping
from subprocess import DEVNULL, PIPE, STDOUT
from types import TracebackType
from typing import IO, Any, Self

from ..base.connection import Connection
from ..base.errors import ClosedError
from ..base.program import Environment, Word, check_label
from ..channel.engine import Engine, Target
from ..channel.feeds import PIECE
from ..channel.keeper import Keeper
from ..channel.pipes import Drain, Pump
from .oneshot import OneShot
from .streams import Exchange, Stream, close_quietly, duplicate, known_input, open_pipe

__all__ = ["DEVNULL", "PIPE", "STDOUT", "ChannelProcess", "Process"]


_PIPE_SIZE = 1 << 18
_BEAT, _PATIENCE = 2.0, 10.0  # seconds


class Process:
    """A command with the interface of `subprocess.Popen`, in octets; it is started at once.

    It runs as one remctl command if its standard input is known beforehand (DEVNULL, or a file),
    and in a channel otherwise.

    Args:
        connection: the connection.
        argv: the program and its arguments, see `Connection.run()`.
        stdin, stdout, stderr: PIPE, DEVNULL, a file or descriptor, or None for this process's own;
            STDOUT, for stderr, merges it into standard output.
        cwd, env, extend_env: see `Connection.run()`.
        label: the name in remctld's log; None is the program's name.
        whole: whether `communicate()` comes next; then a command without a channel is started by
            that, or by the first use of another method.
        beat, patience: see `Channel`.

    Attributes:
        connection: the connection.
        args: the command as it was given, a list.
        pid: its process id on the remote host.
        stdin, stdout, stderr: binary files over pipes, or None.
        returncode: None until `poll()` or `wait()` has seen its end; then 0 to 255, or -N for
            signal N.  Without a channel, it is 255 for a signal that this program did not send.

    Raises:
        TypeError, ValueError: an argument is invalid; nothing was sent.
        See `Channel`.
    """

    _is_channel = False  # whether to use a channel even if the input is known

    def __init__(
        self,
        connection: Connection,
        argv: Iterable[Word],
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        cwd: Word | None = None,
        env: Mapping[str, Word] | None = None,
        extend_env: Environment | None = None,
        label: str | None = None,
        whole: bool = False,
        beat: float = _BEAT,
        patience: float = _PATIENCE,
    ) -> None:
        self._closed = self._waiting = False
        self.returncode: int | None = None
        self.stdin: Any = None
        self.connection = connection
        self.args: Any = argv if isinstance(argv, str | bytes) else list(argv)
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._pump: Pump | None = None
        self._exchange: Exchange | None = None
        self._readers: dict[int, IO[bytes]] = {}
        self._targets: dict[int, Target] = {}
        if stdout == STDOUT:
            raise ValueError("stdout cannot be STDOUT, only stderr can")
        self._command = connection.command_of(self.args, cwd, env, extend_env)
        self._label = self._command.label if label is None else check_label(label)
        outputs = {1: stdout, 2: stderr}
        self._piped = [number for number, to in outputs.items() if to == PIPE]
        self._spec: dict[str, Any] = {
            "label": self._label,
            "nulls": [b" OE"[n : n + 1] for n, to in outputs.items() if to == DEVNULL],
            "merge": stderr == STDOUT,
            "stdin": stdin != DEVNULL,
            "beat": beat,
            "patience": patience,
        }
        self._input = b"" if stdin == DEVNULL and not self._is_channel else None
        with contextlib.ExitStack() as undo:
            self._source: int | None = None
            if stdin not in (PIPE, DEVNULL):
                self._source = duplicate(stdin, 0)
                undo.callback(os.close, self._source)
                self._input = None if self._is_channel else known_input(self._source)
            for number, to in outputs.items():
                if to not in (PIPE, DEVNULL, STDOUT):
                    drain = self._targets[number] = Drain(duplicate(to, number))
                    undo.callback(drain.finish, None)
            self._undo = undo.pop_all()
        self._waiting = True
        if not whole or self._input is None:
            self._begin()

    # Starting it.

    def _begin(self) -> None:
        """Start it in the background, unless it was started."""
        with self._lock:
            if not self._waiting:
                return
            self._waiting = False
            with self._undo as undo:
                for number in self._piped:
                    reader, writer = open_pipe(_PIPE_SIZE)
                    self._readers[number] = undo.enter_context(os.fdopen(reader, "rb"))
                    drain = self._targets[number] = Drain(writer)
                    undo.callback(drain.finish, None)
                source = self._source
                if source is None and self._spec["stdin"]:
                    source, writer = open_pipe(PIECE)
                    undo.callback(os.close, source)
                    self.stdin = undo.enter_context(os.fdopen(writer, "wb"))
                self._engine = engine = self._new_engine()
                engine.start()
                if source is not None and isinstance(engine, Keeper):
                    self._pump = Pump(engine, source)
                elif source is not None:
                    os.close(source)
                undo.pop_all()

    def _new_engine(self) -> OneShot | Keeper:
        connection, command, spec = self.connection, self._command, self._spec
        out, err = self._targets.get(1), self._targets.get(2)
        if self._input is None:
            return Keeper(connection, out, err, command, spec)
        return OneShot(connection, out, err, command, self._input, self._label, spec["merge"])

    @property
    def stdout(self) -> IO[bytes] | None:
        """A binary file over a pipe from standard output, or None."""
        self._begin()
        return self._readers.get(1)

    @property
    def stderr(self) -> IO[bytes] | None:
        """A binary file over a pipe from standard error, or None."""
        self._begin()
        return self._readers.get(2)

    @property
    def pid(self) -> int | None:
        """The command's process id on the remote host."""
        engine = self._own()
        return engine.pid if engine.await_start() else None

    def _own(self) -> Engine:
        if self._owner != os.getpid():
            raise ClosedError(f"command belongs to process {self._owner}: start one after a fork")
        self._begin()
        if self._engine is None:
            raise ClosedError("the command was closed before it was started")
        return self._engine

    # Its end.

    def poll(self) -> int | None:
        """Return the exit status if the command has ended.

        Raises:
            ChannelError, RemctlError: the exit status is unknown.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command's end, and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it did not end within `timeout` seconds; `cmd` is the label.
            ChannelError, RemctlError: the exit status is unknown.
        """
        if self.returncode is None:
            if sys.is_finalizing() and (self._engine is None or self._engine.returncode is None):
                # At exit, the command's thread does not run any more.
                raise subprocess.TimeoutExpired(self._label, timeout or 0.0)
            try:
                self.returncode = self._own().wait(timeout)
            except TimeoutError:
                raise subprocess.TimeoutExpired(self._label, timeout or 0.0) from None
        return self.returncode

    def communicate(
        self, input: bytes | None = None, timeout: float | None = None
    ) -> tuple[bytes | None, bytes | None]:
        """Write `input`, read all output of pipes, and wait for the end.

        Returns:
            Standard output and standard error; None for a stream without a pipe.

        Raises:
            ValueError: there is input, but no pipe for it.
            subprocess.TimeoutExpired: it took more than `timeout` seconds, see `wait()`; nothing is
                lost if you call this again.
            ChannelError, RemctlError: the exit status is unknown.
        """
        if input and self.stdin is None:
            raise ValueError("input needs stdin=PIPE")
        if timeout is None and (whole := self._run_whole()) is not None:
            self.wait()  # plumbum replaces wait() to wait for the rest of a pipeline.
            return whole
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._exchange is None:
            self._exchange = Exchange(input, self.stdin, self.stdout, self.stderr)
        if not self._exchange.run(deadline):
            output, errors = self._exchange.output()
            raise subprocess.TimeoutExpired(self._label, timeout or 0.0, output, errors)
        if deadline is None:
            self.wait()
        else:
            self.wait(max(0.0, deadline - time.monotonic()))
        return self._exchange.output()

    def _run_whole(self) -> tuple[bytes | None, bytes | None] | None:
        """Run it in this thread, without pipes, if it was not started."""
        with self._lock:
            if not self._waiting or self._input is None:
                return None
            self._waiting = False
            buffers = {number: Target() for number in self._piped}
            self._targets.update(buffers)
            self._engine = oneshot = self._new_engine()
        with self._undo:
            oneshot.run()
        oneshot.wait()
        found = [bytes(buffers[n].octets) if n in buffers else None for n in (1, 2)]
        return found[0], found[1]

    def send_signal(self, sig: int) -> None:
        """Send a signal to the command and everything that it started, unless it has ended.

        Raises:
            ValueError: there is no such signal.
            ChannelError, RemctlError: the signal could not be sent.
        """
        if self.poll() is None:
            self._own().send_signal(sig)

    def terminate(self) -> None:
        """Send SIGTERM to the command and everything that it started."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the command and everything that it started."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End the command if it still runs, and close the pipes; again does nothing.

        If the command itself has ended, processes that it left in a channel go on, and their output
        is discarded.
        """
        if self._owner != os.getpid() or sys.is_finalizing():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._waiting:
                self._waiting = False
                self._undo.close()
        try:
            if self._engine is not None:
                self._engine.close()
        finally:
            self._close_pipes()
        if self.returncode is None and self._engine is not None:
            self.returncode = self._engine.returncode

    def _close_pipes(self) -> None:
        if self._closed and self._pump is not None:
            self._pump.stop()
        for file in (*self._readers.values(), self.stdin):
            if file is not None:
                close_quietly(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the pipes and wait for the command, as subprocess.Popen does."""
        try:
            self._begin()
            self._close_pipes()
            if kind is None:
                self.wait()
        finally:
            self.close()

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"ended with {self.returncode}"
        pid = None if self._engine is None else self._engine.pid
        return f"<{type(self).__name__} on {self.connection.host}, process {pid}, {state}>"

    def __del__(self) -> None:
        if getattr(self, "_waiting", False):
            self._undo.close()
        engine = getattr(self, "_engine", None)
        if engine is None or self._closed or self._owner != os.getpid():
            return
        # A command without a channel goes on, as with subprocess.Popen.
        if isinstance(engine, Keeper) and not sys.is_finalizing():
            if engine.returncode is None and not engine.ended and not self._was_asked_to_end():
                text = f"command {engine.pid} on {self.connection.host} is still running"
                warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
            engine.drop()
        self._close_pipes()

    def _was_asked_to_end(self) -> bool:
        return False


class ChannelProcess(Process):
    """A `Process` that always uses a channel; it reads its standard input as soon as possible."""

    _is_channel = True
