"""Read, write, append to and open files of the remote host."""

from __future__ import annotations

import functools
import io
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any
from zlib import crc32

from ..base.connection import Connection
from ..base.program import Word
from .answers import ask, check_mode, far_path, malformed
from .sending import Frame, send

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["append", "open", "read", "write"]

_CHUNK = 8 << 20  # octets sent by one command; the server needs three times the memory
_BUFFER = 1 << 20
_PIECE = 1 << 18  # octets of a frame


class _RemoteFile:
    """A file on the remote host, and the commands that read and change it."""

    file: tuple[int, int] | None = None  # the device and inode it must have

    def __init__(self, connection: Connection, path: Word, timeout: float | None) -> None:
        self.connection = connection
        self.path = far_path(connection, path)
        self.timeout = timeout

    def ask(self, call: str, payload: bytes = b"", **how: Any) -> bytes:
        """Call a function of far_files.py; return the octets of its reply."""
        program = ("both_place", "far_answer", "far_files")
        how = {"label": "file", "timeout": self.timeout, **how}
        return ask(self.connection, program, f"main({call})", payload, **how)[1]

    def use(
        self,
        mode: str,
        position: int = 0,
        *,
        read: int | None = 0,
        data: memoryview | None = None,
        size: int | None = None,
    ) -> tuple[bytes, int, tuple[int, int]]:
        """Read, write or append; return octets, the size, and the device and inode."""
        taken = bytearray()

        def take(letter: bytes, crc: int, octets: bytes) -> None:
            nonlocal taken
            if crc32(octets) != crc:
                raise malformed(self.connection, "data is corrupt")
            taken += octets
            if read is not None and len(taken) > read:
                raise malformed(self.connection, "more data than requested")

        payload = b"" if data is None else bytes(data)
        written = None if data is None else len(payload)
        words = (mode, self.file, position, read, written, crc32(payload), size)
        call = f"use, {self.path!a}, {str(words)[1:-1]}"
        answer = self.ask(call, payload, take=take, letters=b"b")
        if not re.fullmatch(rb"\d{1,20} \d{1,20} \d{1,20}", answer):
            raise malformed(self.connection, "unexpected result")
        length, device, number = map(int, answer.split())
        return bytes(taken), length, (device, number)

    def replace(self, read: Callable[[int], bytes], new: bool, mode: int | None) -> None:
        """Replace the file by the data that `read` returns; keep owner and mode."""
        frames, how = _frames(read, mode), (new, mode)
        send(self.connection, self.path, ".", frames, timeout=self.timeout, replaces=how)


def _frames(read: Callable[[int], bytes], mode: int | None) -> Iterator[Frame]:
    length = 0
    yield b"f", 0, b"."
    while octets := read(_PIECE):
        length += len(octets)
        yield b"b", crc32(octets), octets
    yield b"c", mode or 0, b"%d" % length


def read(connection: Connection, path: Word, *, timeout: float | None = None) -> bytes:
    """Return the contents of a file.

    Args:
        path: see `transfer.upload()`; any file that can be read to its end.
        timeout: seconds that the network may be silent for; None is for ever.

    Raises:
        OSError: the file cannot be read; `filename` is its path.
        TransferError: the host sent malformed data.
        RemctlError: see `Connection.run()`.
    """
    return _RemoteFile(connection, path, timeout).use("r", read=None)[0]


def write(
    connection: Connection,
    path: Word,
    data: bytes,
    *,
    mode: int | None = None,
    timeout: float | None = None,
) -> None:
    """Write data to a file, replacing its contents.

    An existing file is replaced atomically by one with the same owner and mode.  If that is not
    possible, it is written in place: devices, files with several names or of another user, files in
    /proc or in folders where no file can be created.  Links are followed.

    Args:
        mode: the permissions; None keeps those of an existing file, or uses the remote umask.

    Raises:
        OSError, TransferError, RemctlError: see `read()`.
    """
    check_mode(mode)
    octets = io.BytesIO(data)
    _RemoteFile(connection, path, timeout).replace(octets.read, False, mode)


def append(
    connection: Connection, path: Word, data: bytes, *, timeout: float | None = None
) -> None:
    """Append data to a file, which is created if it does not exist.

    Up to 8 MiB are appended at once, without data of other writers in between.

    Raises:
        OSError, TransferError, RemctlError: see `read()`.
    """
    view = memoryview(data).cast("B")
    far = _RemoteFile(connection, path, timeout)
    for start in range(0, len(view) or 1, _CHUNK):
        far.use("a", data=view[start : start + _CHUNK])


class _InPlaceFile(io.RawIOBase):
    """A file that is read, or written in place; each read and write is a command."""

    def __init__(self, far: _RemoteFile, mode: str) -> None:
        self._far = far
        self.name = os.fsdecode(far.path)
        self.mode = mode
        self._appends = "a" in mode
        _, size, far.file = far.use("a" if self._appends else "r")
        self._position = size if self._appends else 0

    def readable(self) -> bool:
        return not self._appends or "+" in self.mode

    def writable(self) -> bool:
        return self._appends or "+" in self.mode

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._read(min(len(view), _CHUNK))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(None)

    def _read(self, length: int | None) -> bytes:
        self._check(self.readable(), "reading")
        data = self._far.use("r", self._position, read=length)[0]
        self._position += len(data)
        return data

    def write(self, data: ReadableBuffer, /) -> int:
        self._check(self.writable(), "writing")
        view = memoryview(data).cast("B")[:_CHUNK]
        size = self._far.use("a" if self._appends else "w", self._position, data=view)[1]
        self._position = size if self._appends else self._position + len(view)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._check()
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += self._far.use("r")[1]
        if offset < 0:
            raise ValueError(f"a position cannot be negative: {offset}")
        self._position = offset
        return offset

    def tell(self) -> int:
        self._check()
        return self._position

    def truncate(self, size: int | None = None, /) -> int:
        self._check(self.writable(), "writing")
        size = self._position if size is None else size
        self._far.use("w", size=size)
        return size

    def _check(self, allowed: bool = True, verb: str = "") -> None:
        if self.closed:
            raise ValueError(f"{self.name!r} was closed")
        if not allowed:
            raise io.UnsupportedOperation(f"{self.name!r} is not open for {verb}")


class _SpooledFile(io.FileIO):
    """An unnamed local temporary file that is uploaded when it is closed."""

    def __init__(self, far: _RemoteFile, mode: str, bits: int | None) -> None:
        self._far = far
        self._new, self._bits = "x" in mode, bits
        self.discarded = False
        far.ask(f"can_write, {far.path!a}, {self._new}")
        with tempfile.TemporaryFile() as file:
            super().__init__(os.dup(file.fileno()), "w+" if "+" in mode else "w")
        self.name = os.fsdecode(far.path)

    def close(self) -> None:
        try:
            if not self.closed and not self.discarded:
                self.discarded = True
                os.lseek(self.fileno(), 0, os.SEEK_SET)
                read = functools.partial(os.read, self.fileno())
                self._far.replace(read, self._new, self._bits)
        finally:
            super().close()

    def _dealloc_warn(self, source: object) -> None:
        # Python calls this for a file that was not closed.  It must not wait for the network.
        self.discarded = True
        text = f"unclosed file {self.name!r}: nothing was written; use it in a with statement"
        warnings.warn(text, ResourceWarning, stacklevel=2, source=source)

    def __del__(self) -> None:
        if not self.closed:
            self._dealloc_warn(self)
            self.close()


class _DropsOnError:
    """A file whose `with` block uploads nothing if it ends with an exception."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            top: Any = self
            getattr(self, "new_file", top).discarded = True
        self.close()  # type: ignore[attr-defined]


@functools.cache
def _dropping(kind: type) -> Any:
    return type(kind.__name__, (_DropsOnError, kind), {})


def open(
    connection: Connection,
    path: Word,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    *,
    mode_bits: int | None = None,
    timeout: float | None = None,
) -> IO[Any]:
    """Open a file of the remote host, like the builtin.

    With ``w`` and ``x``, data gathers in a local temporary file and is sent when the file is
    closed, see `write()`.  If a ``with`` block ends with an exception, or the file is never closed,
    the old file stays.  ``a`` and ``r+`` write in place; each time the buffer is filled or flushed
    is a command, which takes about 10 ms.

    Args:
        mode: as for the builtin.
        buffering: octets of the buffer; 0 disables it (binary files only), -1 is 1 MiB.
        encoding: None is UTF-8.
        errors, newline: as for the builtin.
        mode_bits: see `write()`.
        timeout: see `read()`.

    Raises:
        ValueError: the mode is invalid, or contradicts other arguments.
        OSError, TransferError, RemctlError: see `read()`.
    """
    letters = set(mode)
    kinds = letters & set("rwax")
    if len(mode) != len(letters) or letters - set("rwax+bt") or len(kinds) != 1:
        raise ValueError(f"mode must be r, w, x or a, with + and b or t, not {mode!r}")
    text = "b" not in letters
    if not text and ("t" in letters or encoding or errors or newline is not None):
        raise ValueError("a binary file takes neither t nor encoding, errors or newline")
    if text and buffering == 0:
        raise ValueError("text files must be buffered")
    check_mode(mode_bits)
    far = _RemoteFile(connection, path, timeout)
    new = bool(letters & set("wx"))
    kind = _dropping if new else lambda kind: kind
    file: Any = kind(_SpooledFile)(far, mode, mode_bits) if new else _InPlaceFile(far, mode)
    raw = file
    if buffering != 0:
        buffer: Any = io.BufferedReader if letters <= set("rbt") else io.BufferedWriter
        buffer = io.BufferedRandom if "+" in letters else buffer
        file = kind(buffer)(raw, _BUFFER if buffering < 2 else buffering)
    if text:
        file = kind(io.TextIOWrapper)(file, encoding or "utf-8", errors, newline, buffering == 1)
    if file is not raw:
        file.new_file = raw
    opened: IO[Any] = file
    return opened
