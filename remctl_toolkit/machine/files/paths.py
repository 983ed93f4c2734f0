"""Files of the far side as if they were here: read, write, append, open."""

from __future__ import annotations

import io
import os
import secrets
import zlib
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, TypeVar

import remctl

from ..base.connection import Connection
from ..base.program import Word, literal, source
from .answers import Bounded, ask, far_path, malformed, reply_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["append", "open", "read", "write"]

T = TypeVar("T")

_CHUNK = 8 << 20  # The server has three times this in memory while it takes a command.
_BUFFER = 1 << 20
_LATE = 2.0  # seconds; see transfer.py
_LONGEST_WORD = 1 << 10  # octets


class _Far:
    """One file of the far side, and the commands that read and change it."""

    def __init__(self, connection: Connection, path: Word, timeout: float | None) -> None:
        self.connection = connection
        self.path = far_path(connection, path)
        self.timeout = timeout

    def _program(self, verb: str, arguments: tuple[object, ...]) -> str:
        words = ", ".join(map(ascii, (verb, self.path, *arguments)))
        return f"{source('files/far_files')}\nmain({words})\n"

    def do(self, verb: str, *arguments: object, data: bytes | memoryview = b"") -> dict[str, Any]:
        """Run a verb of files.py; return what it answers."""
        return ask(
            self.connection,
            self._program(verb, arguments),
            bytes(data),
            label=verb,
            timeout=self.timeout,
        )

    def told(self, kind: type[T], name: str, verb: str, *arguments: object) -> T:
        """Run a verb; return one thing of what it answers."""
        return self.part_of(self.do(verb, *arguments), kind, name)

    def part_of(self, reply: dict[str, Any], kind: type[T], name: str) -> T:
        """Return one thing of an answer, which has to be of this kind."""
        found = reply.get(name)
        if not isinstance(found, kind):
            raise malformed(self.connection, "its answer is none")
        return found

    def range(self, path: bytes, position: int, length: int | None, file: object = None) -> bytes:
        """Return octets of a file, checked."""
        limit = None if length is None else length + 256
        taken, errors = Bounded(self.connection, limit), Bounded(self.connection)
        result = self.connection.python_run(
            self._program("range", (path, position, length, file)),
            label="read",
            timeout=self.timeout,
            stdout=taken,
            stderr=errors,
        )
        if result.status != 0:
            said = errors.octets()
            reply_of(self.connection, said, f"status {result.status}, and {said[-200:]!r}")
            raise malformed(self.connection, f"status {result.status}")
        return self._checked(taken.octets(), length)

    def _checked(self, octets: bytes, length: int | None) -> bytes:
        try:
            size = int(octets[-8:], 16)
            data, told = octets[: -8 - size], literal(octets[-8 - size : -8], _LONGEST_WORD)
            right = told == {"length": len(data), "crc": zlib.crc32(data)}
        except ValueError:
            right = False
        if not right or (length is not None and len(data) > length):
            raise malformed(self.connection, "what arrived is not what was sent")
        return data

    def put(self, path: bytes, position: int | None, data: memoryview) -> int:
        """Write octets at a position; None is the end.  Return the file's size then."""
        reply = self.do("put", path, position, len(data), zlib.crc32(data), data=data)
        return self.part_of(reply, int, "size")


def read(connection: Connection, path: Word, *, timeout: float | None = None) -> bytes:
    """Return what a file has.

    Args:
        path: see `transfer.upload()`; any file that can be read to its end.
        timeout: seconds that the network may be silent for; None is for ever.

    Raises:
        OSError: it cannot be read; `filename` is its path.
        TransferError: the far side did not do as it must.
        RemctlError: see `Connection.run()`.
    """
    far = _Far(connection, path, timeout)
    return far.range(far.path, 0, None)


def write(
    connection: Connection,
    path: Word,
    data: bytes,
    *,
    mode: int | None = None,
    timeout: float | None = None,
) -> None:
    """Make data what a file has.

    A file that is there is replaced by one with the same owner and mode, at once: nobody sees a
    part.  Where that cannot be done, it is written to in place: a device, a file with another name
    or of another user, one in /proc or in a folder where no file can be made.  A link is followed.

    Args:
        mode: who may do what with it; None is as it was, or as the far side's umask has it.

    Raises:
        OSError, TransferError, RemctlError: see `read()`.
    """
    view = memoryview(data).cast("B")
    far = _Far(connection, path, timeout)
    if len(view) <= _CHUNK:
        token = secrets.token_hex(8)
        far.do("write", far.path, token, mode, len(view), zlib.crc32(view), data=view)
        return
    with open(connection, path, "wb", buffering=0, mode_bits=mode, timeout=timeout) as file:
        while view:
            view = view[file.write(view) :]


def append(
    connection: Connection, path: Word, data: bytes, *, timeout: float | None = None
) -> None:
    """Add data to the end of a file, which is made if it is not there.

    Up to 8 MiB are added without those of others in between.

    Raises:
        OSError, TransferError, RemctlError: see `read()`.
    """
    view = memoryview(data).cast("B")
    far = _Far(connection, path, timeout)
    for start in range(0, len(view) or 1, _CHUNK):
        far.put(far.path, None, view[start : start + _CHUNK])


class _RawFile(io.RawIOBase):
    """A file of the far side without a buffer: each read and write is a command."""

    _final: bytes | None = None  # what its temporary file is to become
    _ended = False  # Nothing is to become of it any more.

    def __init__(
        self, connection: Connection, path: Word, mode: str, bits: int | None, timeout: float | None
    ) -> None:
        self._far = _Far(connection, path, timeout)
        self.name = os.fsdecode(self._far.path)
        self.mode = mode
        self._kind = next(letter for letter in mode if letter in "rwax")
        self._position = 0
        self._file: object = None
        self._where = self._far.path
        if self._kind in "wx":
            self._begin(bits)
        elif self._kind == "a":
            self._position = self._far.put(self._where, None, memoryview(b""))
        else:
            self._file = self._far.told(tuple, "file", "look", self._where)

    def _begin(self, bits: int | None) -> None:
        self._token = secrets.token_hex(8)
        self._ended = True  # Until there is something to end.
        try:
            target = self._far.do("begin", self._far.path, self._token, bits, self._kind == "x")
            self._where = self._far.part_of(target, bytes, "path")
            if target.get("final") is not None:
                self._final = self._far.part_of(target, bytes, "final")
                self._bits = self._far.part_of(target, int, "mode")
        except BaseException as error:
            if isinstance(error, remctl.RemctlError) or not isinstance(error, OSError):
                self._drop(error, _LATE)
            raise
        self._ended = False

    def _drop(self, error: BaseException, patience: float = 0.0) -> None:
        """Take the temporary file away: an error came up."""
        self._ended = True
        try:
            self._far.do("drop", self._far.path, self._token, patience)
        except Exception as another:
            name = f".remctl-{self._token}.part"
            host = self._far.connection.host
            error.add_note(f"a temporary file {name} may be left on {host}: {another}")

    def readable(self) -> bool:
        """Tell whether it can be read."""
        return self._kind == "r" or "+" in self.mode

    def writable(self) -> bool:
        """Tell whether it can be written."""
        return self._kind != "r" or "+" in self.mode

    def seekable(self) -> bool:
        """Tell that one can go to any place in it."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read some octets into a buffer, 8 MiB at most."""
        self._check(self.readable(), "read")
        view = memoryview(buffer).cast("B")
        size = min(len(view), _CHUNK)
        data = self._far.range(self._where, self._position, size, self._file)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Read all there is from here on, in one command."""
        self._check(self.readable(), "read")
        data = self._far.range(self._where, self._position, None, self._file)
        self._position += len(data)
        return data

    def write(self, data: ReadableBuffer, /) -> int:
        """Write octets, 8 MiB at most; return how many."""
        self._check(self.writable(), "written")
        view = memoryview(data).cast("B")[:_CHUNK]
        if self._ended:
            return len(view)  # What a buffer still had, of a file that is not to be.
        position = None if self._kind == "a" else self._position
        try:
            size = self._far.put(self._where, position, view)
        except BaseException as error:
            self.drop(error)
            raise
        self._position = size if position is None else position + len(view)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to another place, as in any file."""
        self._check(True, "")
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += self._far.told(int, "size", "size", self._where)
        if offset < 0:
            raise ValueError(f"a position cannot be negative: {offset}")
        self._position = offset
        return offset

    def tell(self) -> int:
        """Return the place where the next octets are read or written."""
        self._check(True, "")
        return self._position

    def truncate(self, size: int | None = None, /) -> int:
        """Make the file as long as this, or end it here."""
        self._check(self.writable(), "written")
        size = self._position if size is None else size
        self._far.do("truncate", self._where, size)
        return size

    def _check(self, allowed: bool, verb: str) -> None:
        if self.closed:
            raise ValueError(f"{self.name!r} was closed")
        if not allowed:
            raise io.UnsupportedOperation(f"{self.name!r} is not open to be {verb}")

    def drop(self, error: BaseException) -> None:
        """Leave the file as it was, if what is written is not in place already."""
        if self._final is not None and not self._ended:
            self._drop(error)

    def close(self) -> None:
        """End it: what was written takes its place."""
        if self.closed:
            return
        super().close()
        if self._final is None or self._ended:
            return
        self._ended = True
        try:
            new = self._kind == "x"
            self._far.do("commit", self._where, self._final, self._bits, new)
        except BaseException as error:
            self._drop(error)
            raise


class _DropsOnError:
    """A file whose `with` block leaves the old file there if it ends by an exception."""

    far_file: _RawFile

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.far_file.drop(error)
        self.close()  # type: ignore[attr-defined]


class _Raw(_DropsOnError, _RawFile):
    @property
    def far_file(self) -> _RawFile:  # type: ignore[override]
        return self


class _Reader(io.BufferedReader):
    pass


class _Writer(_DropsOnError, io.BufferedWriter):
    pass


class _Random(_DropsOnError, io.BufferedRandom):
    pass


class _Text(_DropsOnError, io.TextIOWrapper):
    pass


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
    """Open a file of the far side: as the builtin, but for when what is written can be seen.

    With ``w`` and ``x`` it is seen at once and complete when the file is closed, see `write()`; a
    ``with`` block that ends by an exception leaves the old file.  ``a`` and ``r+`` write in place.
    Each time the buffer is filled or emptied is a command: about 10 ms.

    Args:
        mode: as for the builtin.
        buffering: octets of the buffer; 0 is none (octets only), -1 is 1 MiB.
        encoding: None is UTF-8.
        errors, newline: as for the builtin.
        mode_bits: see `write()`.
        timeout: see `read()`.

    Raises:
        ValueError: the mode is none, or does not go with the rest.
        OSError, TransferError, RemctlError: see `read()`.
    """
    letters = set(mode)
    kinds = letters & set("rwax")
    if len(mode) != len(letters) or letters - set("rwax+bt") or len(kinds) != 1:
        raise ValueError(f"mode must be r, w, x or a, with + and b or t, not {mode!r}")
    text = "b" not in letters
    if not text and ("t" in letters or encoding or errors or newline is not None):
        raise ValueError("a file of octets has no text, encoding, errors or newline")
    if text and buffering == 0:
        raise ValueError("text cannot go without a buffer")
    raw = _Raw(connection, path, mode, mode_bits, timeout)
    if buffering == 0:
        return raw  # type: ignore[return-value]
    size = _BUFFER if buffering < 2 else buffering
    buffered: Any
    file: IO[Any]
    if "+" in letters:
        buffered = _Random(raw, size)
    else:
        buffered = _Reader(raw, size) if "r" in letters else _Writer(raw, size)
    buffered.far_file = raw
    if not text:
        file = buffered
        return file
    wrapped = _Text(buffered, encoding or "utf-8", errors, newline, buffering == 1)
    wrapped.far_file = raw
    return wrapped
