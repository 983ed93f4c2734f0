"""What goes into a command of a machine, and from where."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
from typing import IO, TYPE_CHECKING, Any, Self

from .oneshot import LARGEST

if TYPE_CHECKING:
    from .popen import Popen


class Input:
    """The file that leads to standard input: there is a channel as soon as it is used."""

    def __init__(self, process: Popen) -> None:
        self._process: Popen | None = process
        self._file: IO[bytes] | None = None
        self.closed = False

    def _open(self) -> IO[bytes]:
        if self.closed or self._process is None:
            raise ValueError("I/O operation on closed file")
        if self._file is None:
            self._file = self._process._channel_stdin()
        return self._file

    def write(self, data: Any) -> int:
        return self._open().write(data)

    def writelines(self, lines: Any) -> None:
        self._open().writelines(lines)

    def flush(self) -> None:
        self._open().flush()

    def fileno(self) -> int:
        return self._open().fileno()

    def writable(self) -> bool:
        return not self.closed

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        process, self._process = self._process, None
        assert process is not None
        channel = process._channel
        if channel is not None and channel.stdin is not None:
            channel.stdin.close()
        else:
            process._end_input()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_one(file: Any) -> Any:
    return None if file is None or file.closed else file


def feed(file: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), file:
        file.write(data)


def duplicate(target: Any, inherited: int) -> int:
    """Return a descriptor of our own: what plumbum gives us, it closes at once."""
    if target == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDWR)
    try:
        if target is None:
            return os.dup(inherited)
        return os.dup(target if isinstance(target, int) else target.fileno())
    except OSError as error:
        if target is None and error.errno == errno.EBADF:
            return os.open(os.devnull, os.O_RDWR)  # This process has none.
        raise


def known_input(fd: int) -> bytes | None:
    """Return all that can be read, if that is known without waiting; None if it is not."""
    status = os.fstat(fd)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev:
        return b""
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_size - os.lseek(fd, 0, os.SEEK_CUR) > LARGEST:
        return None
    pieces = []
    while piece := os.read(fd, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)
