"""Running commands with plumbum's additions to subprocess.Popen."""

from __future__ import annotations

import errno
import os
import selectors
import sys
import threading
from collections.abc import Callable, Container, Generator, Iterator
from typing import Any, Self

from plumbum.commands import processes
from plumbum.commands.processes import ProcessLineTimedOut
from plumbum.machines.base import PopenAddons

import remctl
from _remctl_text import printable

from ..base.connection import Connection
from ..process.popen import Process

_READ_SIZE = 1 << 16
POLL_INTERVAL = 0.1  # seconds


class ProcessExecutionError(processes.ProcessExecutionError):  # type: ignore[misc]
    """A command ended with an unexpected exit status.

    The text has the command and its output, as in plumbum, with escapes for unprintable characters;
    the attributes have both unchanged.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), lines=True)


class Popen(Process, PopenAddons):  # type: ignore[misc]
    """A command of a machine.

    Args:
        encoding: the encoding of its output; None returns octets.
        keep: an object to keep alive, the machine.
        connection, argv, how: see `Process`.

    Attributes:
        args, argv: the command as text.
        custom_encoding: the encoding.
    """

    _signalled = False

    def __init__(
        self,
        connection: Connection,
        argv: list[Any],
        *,
        encoding: str | None = "utf8",
        keep: object = None,
        **how: Any,
    ) -> None:
        self._keep = keep
        self._detached: int | None = None
        self._timed_out = False
        self.custom_encoding = encoding
        super().__init__(connection, argv, **how)
        self.args = self.argv = [os.fsdecode(word) for word in self._command.argv]

    @classmethod
    def detached(cls, connection: Connection, argv: list[Any], pid: int) -> Self:
        """Return a process that has ended with status 0, for a command that runs on by itself."""
        self = cls(connection, argv, whole=True)
        self.close()
        self._detached, self.returncode = pid, 0
        return self

    @property
    def pid(self) -> int | None:
        """The command's process id on the remote host."""
        return super().pid if self._detached is None else self._detached

    @property
    def _proc(self) -> Self:
        return self

    @property
    def machine(self) -> str:
        """The host, as plumbum's exceptions name it."""
        return self.connection.host

    def poll(self) -> int | None:
        """Return the exit status if the command has ended.

        Raises:
            ChannelError, RemctlError: the exit status is unknown.
        """
        try:
            return super().poll()
        except remctl.RemctlError as error:
            if _in_plumbums_timer():
                raise OSError(errno.EIO, "the connection to the command was lost") from error
            raise

    def send_signal(self, sig: int) -> None:
        """Send a signal to the command and everything that it started, unless it has ended.

        Raises:
            OSError: the signal could not be sent.
        """
        if sys.is_finalizing():
            return
        if _in_plumbums_timer():
            # plumbum sets this only after the signal, when another thread may have seen the end.
            # Also, plumbum signals only the last command of a pipeline.
            self._timed_out = True
            source = getattr(self, "srcproc", None)
            if source is not None and source.poll() is None:
                source.send_signal(sig)
        self._signalled = True
        try:
            super().send_signal(sig)
        except remctl.RemctlError as error:
            reason = f"cannot send a signal to a command on {self.machine}"
            raise OSError(errno.EIO, reason) from error

    def forget(self) -> None:
        """End the command when this object is deleted, without a warning and without waiting."""
        self._signalled = True

    def _was_asked_to_end(self) -> bool:
        # plumbum ends shell sessions by a signal, without waiting for their end.
        return self._signalled

    def verify(
        self,
        retcode: int | Container[int] | None,
        timeout: float | None,
        stdout: str | bytes,
        stderr: str | bytes,
    ) -> None:
        """Raise plumbum's exception for a timeout or an unexpected exit status.

        Raises:
            ProcessTimedOut: the command was ended after `timeout` seconds.
            ProcessExecutionError: its status is not in `retcode`.
        """
        try:
            super().verify(retcode, timeout, stdout, stderr)
        except processes.ProcessExecutionError as error:
            raise ProcessExecutionError(*error.args, host=self.machine) from None

    def iter_lines(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Iterate over lines of output as they arrive; see plumbum's function."""
        lines: Iterator[Any] = processes.iter_lines(self, *args, _iter_lines=_read_lines, **kwargs)
        return lines

    def __iter__(self) -> Iterator[Any]:
        return self.iter_lines()


def _in_plumbums_timer() -> bool:
    """Return whether this is plumbum's thread for timeouts, which survives only OSError."""
    return threading.current_thread() is processes.bgthd


def _read_lines(
    process: Any, decode: Callable[[bytes], str], linesize: int, line_timeout: float | None = None
) -> Generator[tuple[int, str], None, None]:
    """Yield (0, line) for standard output and (1, line) for standard error, at once.

    plumbum's own function may wait for a descriptor although a buffer has complete lines.  Standard
    error of the other commands of a pipeline is read as well.
    """
    with selectors.DefaultSelector() as selector:
        buffers: dict[Any, bytearray] = {}
        for kind, stream in processes._get_piped_streams(process):
            selector.register(stream, selectors.EVENT_READ, kind)
            buffers[stream] = bytearray()
        while selector.get_map():
            ready = selector.select(POLL_INTERVAL if line_timeout is None else line_timeout)
            if not ready and line_timeout is not None:
                text = "popen line timeout expired"
                raise ProcessLineTimedOut(text, process.argv, process.machine)
            if not ready and process.poll() is not None:
                ready = selector.select(0)  # By now, the pipes have all output of the command.
                if not ready:
                    break  # Its children may hold the pipes open.
            for key, _ in ready:
                file: Any = key.fileobj
                piece: bytes = file.read1(_READ_SIZE)
                buffers[file] += piece
                for line in _split(buffers[file], linesize, last=not piece):
                    yield key.data, decode(line)
                if not piece:
                    selector.unregister(file)


def _split(buffer: bytearray, linesize: int, *, last: bool) -> Iterator[bytes]:
    """Remove complete lines from a buffer and yield them; `last` includes an incomplete one."""
    while buffer:
        end = buffer.find(b"\n") + 1
        if linesize > 0 and (end == 0 or end > linesize) and len(buffer) >= linesize:
            end = linesize
        if end == 0 and not last:
            return
        line = bytes(buffer[: end or None])
        del buffer[: len(line)]
        yield line
