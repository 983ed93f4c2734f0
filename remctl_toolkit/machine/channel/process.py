"""A command on the far side in the shape of subprocess.Popen."""

from __future__ import annotations

import contextlib
import fcntl
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
from typing import IO, Any, Protocol, Self

from ..base.connection import Connection
from ..base.errors import ClosedError
from ..base.program import Environment, Word
from .exchange import Exchange, close_quietly
from .feeds import PIECE
from .keeper import Keeper, Target, describe
from .pipes import Drain, Pump

__all__ = ["DEVNULL", "PIPE", "STDOUT", "ChannelProcess"]


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


_Stream = int | _HasFileno | None

_PIPE_SIZE = 1 << 18


class ChannelProcess:
    """A command of the far side with the interface of `subprocess.Popen`, in octets.

    Its streams are real pipes of this process (they have a fileno()), or go to and come from files
    directly.  Standard input that is no pipe is read here as soon as there is any.

    Args:
        connection: the way there.
        argv: the program and its arguments, see `Connection.run()`.
        stdin, stdout, stderr: PIPE, DEVNULL, a file or descriptor, or None for this process's own;
            STDOUT, for stderr, to have it among standard output.
        cwd, env, extend_env: see `Connection.run()`.
        label, beat, patience: see `Channel`.

    Attributes:
        args: the command as it was given, a list.
        pid: its process over there.
        stdin, stdout, stderr: binary files over pipes, or None.
        returncode: None until `poll()` or `wait()` has seen its end; -N if signal N ended it.

    Raises:
        See `Channel`.
    """

    def __init__(
        self,
        connection: Connection,
        argv: Iterable[Word],
        *,
        stdin: _Stream = None,
        stdout: _Stream = None,
        stderr: _Stream = None,
        cwd: Word | None = None,
        env: Mapping[str, Word] | None = None,
        extend_env: Environment | None = None,
        label: str | None = None,
        beat: float = 2.0,
        patience: float = 10.0,
    ) -> None:
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        self.args: Any = argv if isinstance(argv, str | bytes) else list(argv)
        self.connection = connection
        self._process = os.getpid()
        self._exchange: Exchange | None = None
        self._keeper: Keeper | None = None
        self._pump: Pump | None = None
        self._closing = threading.Lock()
        self._closed = False
        spec = describe(
            connection, self.args, None, b"", cwd, env, extend_env, label, beat, patience
        )
        self._shown = spec["label"]  # Arguments may be secret.
        spec["nulls"] = [kind for kind, to in ((b"O", stdout), (b"E", stderr)) if to == DEVNULL]
        spec.update(merge=stderr == STDOUT, stdin=stdin != DEVNULL)
        with contextlib.ExitStack() as undo:
            source = self._open_stdin(stdin, undo)
            out = self._open_output("stdout", stdout, undo)
            err = None if stderr == STDOUT else self._open_output("stderr", stderr, undo)
            keeper = Keeper(connection, spec, threading.Condition(), out, err)
            undo.callback(keeper.drop)
            self._pump = Pump(keeper, source)
            self._keeper = keeper
            undo.pop_all()

    # The streams.

    def _open_stdin(self, stdin: _Stream, undo: contextlib.ExitStack) -> int:
        """Return a descriptor that standard input is to be read from."""
        if stdin == DEVNULL:
            fd = os.open(os.devnull, os.O_RDONLY)
        elif stdin == PIPE:
            fd, writer = _pipe(PIECE)
            self.stdin = undo.enter_context(os.fdopen(writer, "wb"))
        else:
            fd = _duplicate(stdin, 0)
        undo.callback(os.close, fd)
        return fd

    def _open_output(self, name: str, to: _Stream, undo: contextlib.ExitStack) -> Target | None:
        """Return what takes a stream of output, and owns what it needs for that."""
        if to == DEVNULL:
            return None
        if to == STDOUT:
            raise ValueError(f"{name} cannot be STDOUT: only stderr can")
        if to == PIPE:
            reader, fd = _pipe(_PIPE_SIZE)
            setattr(self, name, undo.enter_context(os.fdopen(reader, "rb")))
        else:
            fd = _duplicate(to, ("stdout", "stderr").index(name) + 1)
        drain = Drain(fd)
        undo.callback(drain.finish, None)
        return drain

    # The process.

    def poll(self) -> int | None:
        """Return the exit status if the command has ended.

        Raises:
            ChannelError: the channel was lost.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command's end, and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it did not end within `timeout` seconds; of the command, it
                has the label alone.
            ChannelError: the channel was lost.
        """
        if self.returncode is None:
            try:
                self.returncode = self._own().wait(timeout)
            except TimeoutError:
                raise subprocess.TimeoutExpired(self._shown, timeout or 0.0) from None
        return self.returncode

    def communicate(
        self, input: bytes | None = None, timeout: float | None = None
    ) -> tuple[bytes | None, bytes | None]:
        """Write `input`, read all output there are pipes for, and wait for the end.

        Returns:
            Standard output and standard error; None for what there is no pipe of.

        Raises:
            ValueError: there is input, but no pipe for it.
            subprocess.TimeoutExpired: it took more than `timeout` seconds, see `wait()`; nothing is
                lost if this is called again.
            ChannelError: the channel was lost.
        """
        if input and self.stdin is None:
            raise ValueError("input needs stdin=PIPE")
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._exchange is None:
            self._exchange = Exchange(input, self.stdin, self.stdout, self.stderr)
        if not self._exchange.run(deadline):
            output, errors = self._exchange.output()
            raise subprocess.TimeoutExpired(self._shown, timeout or 0.0, output, errors)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return self._exchange.output()

    def send_signal(self, sig: int) -> None:
        """Send a signal to the command, and to all that it has started; nothing if it has ended.

        Raises:
            ChannelError: the channel was lost.
        """
        if self.poll() is None:
            self._own().send_signal(sig)

    def terminate(self) -> None:
        """Ask the command to end: SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the command: SIGKILL."""
        self.send_signal(signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The command's process over there."""
        return self._own().pid

    def _own(self) -> Keeper:
        if self._process != os.getpid():
            raise ClosedError(f"command belongs to process {self._process}: start one after a fork")
        assert self._keeper is not None
        return self._keeper

    # The end.

    def close(self) -> None:
        """End the command if it still runs, and close the pipes; again does nothing.

        What it has started goes on if the command itself has ended, but nobody hears of it.
        """
        keeper, pump = self._keeper, self._pump
        if keeper is None or pump is None or self._process != os.getpid():
            return
        with self._closing:
            if self._closed:
                return
            self._closed = True
            try:
                keeper.close()
            finally:
                pump.stop()
                self._close_pipes()
        if self.returncode is None:
            self.returncode = keeper.returncode

    def drop(self) -> None:
        """Give it up, as where garbage is collected: the far side notices, and ends the command."""
        if self._keeper is not None and not self._closed and self._process == os.getpid():
            self._closed = True
            self._keeper.drop()
            self._close_pipes()

    def _close_pipes(self) -> None:
        for file in (self.stdout, self.stderr, self.stdin):
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
            self._close_pipes()
            if kind is None:
                self.wait()
        finally:
            self.close()

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else f"ended with {self.returncode}"
        return f"<ChannelProcess on {self.connection.host}, process {self.pid}, {state}>"

    def __del__(self) -> None:
        keeper = getattr(self, "_keeper", None)
        if keeper is None or self._closed or self._process != os.getpid() or sys.is_finalizing():
            return
        if keeper.returncode is None and not keeper.ended:
            text = f"command {keeper.pid} on {self.connection.host} is still running"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
        self.drop()


def _pipe(size: int) -> tuple[int, int]:
    """Return a pipe, large if the system lets us: its reader and its writer."""
    reader, writer = os.pipe()
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
    return reader, writer


def _duplicate(stream: _Stream, own: int) -> int:
    """Return a descriptor for what may be a descriptor, a file or None, our own."""
    if stream is None:
        return os.dup(own)
    return os.dup(stream if isinstance(stream, int) else stream.fileno())
