"""The streams of a process: descriptors, pipes, and `communicate()`."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import selectors
import stat
import time
from typing import IO, Any, Protocol, TypeAlias

LARGEST_INPUT = 16 << 20  # octets to send with a command; remctld needs three times the memory

_READ_SIZE = 1 << 16


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


Stream: TypeAlias = "int | _HasFileno | None"


class Exchange:
    """The state of a `communicate()`, which can be interrupted and continued.

    Args:
        data: the data to write.
        stdin, stdout, stderr: the files; each is closed at its end.  A closed file counts as None.
    """

    def __init__(
        self,
        data: bytes | None,
        stdin: IO[bytes] | None,
        stdout: IO[bytes] | None,
        stderr: IO[bytes] | None,
    ) -> None:
        self._left = memoryview(data or b"")
        self._stdin, *self._files = (
            None if file is None or file.closed else file for file in (stdin, stdout, stderr)
        )
        self._read = {file: bytearray() for file in self._files if file is not None}
        if self._stdin is not None and self._left:
            self._stdin.flush()
            os.set_blocking(self._stdin.fileno(), False)

    def run(self, deadline: float | None) -> bool:
        """Continue until all streams have ended; return False if the deadline comes before."""
        with selectors.PollSelector() as selector:
            for file in (self._stdin, *self._read):
                if file is not None and not file.closed:
                    writes = file is self._stdin
                    selector.register(
                        file, selectors.EVENT_WRITE if writes else selectors.EVENT_READ
                    )
            while selector.get_map():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                for key, _ in selector.select(left):
                    ready: Any = key.fileobj
                    if self._is_done(ready):
                        selector.unregister(ready)
                        close_quietly(ready)
        return True

    def _is_done(self, file: IO[bytes]) -> bool:
        """Write to a file or read from it once; return whether that was the last time."""
        if file is not self._stdin:
            octets = os.read(file.fileno(), _READ_SIZE)
            self._read[file] += octets
            return not octets
        try:
            self._left = self._left[os.write(file.fileno(), self._left) :]
        except BlockingIOError:
            return False
        except BrokenPipeError:
            return True
        return not self._left

    def output(self) -> tuple[bytes | None, bytes | None]:
        """Return the output so far; None for a stream without a pipe."""
        stdout, stderr = (None if file is None else bytes(self._read[file]) for file in self._files)
        return stdout, stderr


def close_quietly(file: IO[bytes]) -> None:
    """Close a file even if data cannot be flushed because the reader is gone."""
    with contextlib.suppress(BrokenPipeError):
        file.close()


def known_input(fd: int) -> bytes | None:
    """Return all input of /dev/null or a file of limited size; None for others."""
    status = os.fstat(fd)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev:
        return b""
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_size - os.lseek(fd, 0, os.SEEK_CUR) > LARGEST_INPUT:
        return None
    return b"".join(iter(lambda: os.read(fd, 1 << 20), b""))


def open_pipe(size: int) -> tuple[int, int]:
    """Return the reader and writer of a pipe, of that size if the system permits it."""
    reader, writer = os.pipe()
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
    return reader, writer


def duplicate(stream: Stream, own: int) -> int:
    """Return a new descriptor for a descriptor or file; None is this process's own stream."""
    if stream is None:
        try:
            return os.dup(own)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            return os.open(os.devnull, os.O_RDWR)  # This process has closed its own.
    return os.dup(stream if isinstance(stream, int) else stream.fileno())
