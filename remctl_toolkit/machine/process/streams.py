"""The streams of a process: its descriptors, and writing and reading them all at once."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import selectors
import stat
import time
from typing import IO, Any, Protocol, TypeAlias

LARGEST_INPUT = 16 << 20  # octets that are sent with a command; remctld has them three times

_READ_SIZE = 1 << 16


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


Stream: TypeAlias = "int | _HasFileno | None"


class Exchange:
    """The progress of a `communicate()`, which can be interrupted and go on.

    Args:
        data: what to write.
        stdin, stdout, stderr: the files; each is closed when it has ended.  One that is closed
            already counts as None.
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
        """Go on until all has ended; False if the time (time.monotonic()) comes before."""
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
        """Write to a file, or read from it, as much as it takes or has now."""
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
        """Return what was read; None for what there is no pipe of."""
        stdout, stderr = (None if file is None else bytes(self._read[file]) for file in self._files)
        return stdout, stderr


def close_quietly(file: IO[bytes]) -> None:
    """Close a file whose other side may have gone."""
    with contextlib.suppress(BrokenPipeError):  # Something was left to be flushed.
        file.close()


def known_input(fd: int) -> bytes | None:
    """Return all that can be read, if that is known without waiting; None if it is not."""
    status = os.fstat(fd)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev:
        return b""
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_size - os.lseek(fd, 0, os.SEEK_CUR) > LARGEST_INPUT:
        return None
    return b"".join(iter(lambda: os.read(fd, 1 << 20), b""))


def open_pipe(size: int) -> tuple[int, int]:
    """Return a pipe, large if the system lets us: its reader and its writer."""
    reader, writer = os.pipe()
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
    return reader, writer


def duplicate(stream: Stream, own: int) -> int:
    """Return a descriptor of our own for a descriptor, a file, DEVNULL or this process's stream."""
    if stream is None:
        try:
            return os.dup(own)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            return os.open(os.devnull, os.O_RDWR)  # This process has none.
    return os.dup(stream if isinstance(stream, int) else stream.fileno())
