"""Run programs that move files on the remote host, and read their replies."""

from __future__ import annotations

import errno
import functools
import os
import re
import time
from collections.abc import Callable

import remctl
from _remctl_text import printable

from ..base.connection import STARTS_AND_ENDS, Connection
from ..base.errors import MachineError
from ..base.outputs import Tail
from ..base.program import Word, octets, source
from ..wire.both_frames import FrameError, Frames
from .both_place import check_name
from .both_receive import LONGEST

_LONGEST_TEXT = 200
_IMPORTS = re.compile(r"^from (__future__|\.).*\n", re.MULTILINE)


class TransferError(MachineError):
    """The remote host sent malformed data, or some entries of a tree could not be read.

    In the second case, all other entries were transferred.

    Attributes:
        left_out: an `OSError` for each entry that could not be read (the first hundred).
    """

    left_out: tuple[OSError, ...] = ()


def far_path(connection: Connection, path: Word) -> bytes:
    """Return an absolute remote path as octets.

    Relative paths, ``~`` and paths that begin with ``~/`` start at the account's home.

    Raises:
        TypeError, ValueError: the path is invalid.
    """
    if isinstance(path, int):
        raise TypeError(f"a path must be text, octets or a path, not {type(path).__name__}")
    taken = octets(path, "a path")
    if not taken:
        raise ValueError("a path cannot be empty")
    if taken == b"~" or taken.startswith(b"~/"):
        taken = taken[2:]
    return os.path.join(os.fsencode(connection.far.home), taken)


def check_mode(mode: int | None) -> None:
    """Raise ValueError unless a mode is None or has permission bits only."""
    if mode is not None and not 0 <= mode <= 0o777:
        raise ValueError(f"mode must be from 0 to 0o777, not {mode!r}")


def malformed(connection: Connection, reason: str) -> TransferError:
    """Return the error for malformed data from the host."""
    said = reason[: 2 * _LONGEST_TEXT]
    error = TransferError(f"malformed reply from {connection.host} to a file transfer: {said}")
    error.host = connection.host
    return error


def entries_below(connection: Connection, folder: str, found: str, *, deep: bool) -> list[str]:
    """Check paths that a remote host found in a folder, and return them relative to it.

    Args:
        folder: the folder that was searched.
        found: the paths, each followed by a NUL.
        deep: whether entries of folders below are allowed.

    Raises:
        TransferError: a path leads out of the folder, or has an empty part, "." or "..".
    """
    prefix = f"{folder.rstrip('/')}/"
    *paths, rest = found.split("\0")
    try:
        if rest:
            raise ValueError(f"incomplete path {rest!r}")
        for path in paths:
            if not path.startswith(prefix):
                raise ValueError(f"{path!r} is not in {folder}")
            name = path[len(prefix) :]
            for each in name.split("/") if deep else [name]:
                check_name(each)
    except ValueError as error:
        raise malformed(connection, str(error)) from None
    return [path[len(prefix) :] for path in paths]


def failure_of(connection: Connection, body: bytes) -> OSError:
    """Return a remote error from its frame, as the exception that it would be locally.

    Raises:
        FrameError: the frame is malformed.
    """
    name, _, rest = body.decode("utf-8", "surrogateescape").partition(" ")
    text, separator, path = rest.partition("\0")
    if not separator:
        raise FrameError("an error without a path")
    # Numbers are not the same on all systems.
    number = getattr(errno, name, None) if name.startswith("E") else None
    if not isinstance(number, int):
        number = errno.EIO
    shown = printable(text[:_LONGEST_TEXT]) or os.strerror(number)
    return OSError(number, f"{shown} (on {connection.host})", path)


class LeftOut:
    """Collect the errors of entries that could not be read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._errors: list[OSError] = []
        self._count = 0

    def add(self, error: OSError) -> None:
        """Add an error."""
        self._count += 1
        if self._count <= 100:
            self._errors.append(error)

    def check(self) -> None:
        """Raise a `TransferError` if there are any."""
        if not self._count:
            return
        more = f", and {self._count - 1} more" if self._count > 1 else ""
        error = TransferError(f"some files were not transferred: {self._errors[0]}{more}")
        error.host = self._connection.host
        error.left_out = tuple(self._errors)
        raise error


@functools.cache
def program_of(names: tuple[str, ...]) -> str:
    """Return the text of source files, each after those that it needs."""
    paths = ("wire/both_frames", *(f"files/{name}" for name in names))
    texts = [_IMPORTS.sub("", source(path)) for path in paths]
    return "\n".join(["from __future__ import annotations", *texts, ""])


class Reply:
    """A reply as it arrives: frames, of which the last says how it went.

    Args:
        connection: the connection to the host that replies.
        take, letters: called for each frame before the last, and the letters allowed there.

    Attributes:
        errors: the end of the program's standard error, a file.
        since: when the last frame arrived, on the monotonic clock.
    """

    def __init__(
        self,
        connection: Connection,
        take: Callable[[bytes, int, bytes], object] = lambda *frame: None,
        letters: bytes = b"",
    ) -> None:
        self.errors = Tail()
        self.since = time.monotonic()
        self._connection = connection
        self._take = take
        self._frames = Frames(self._take_any, b"zem" + letters, LONGEST)
        self._last: tuple[int, bytes] | Exception | None = None

    def write(self, octets: bytes) -> None:
        """Take the next octets.

        Raises:
            TransferError: they are malformed.
        """
        try:
            self._frames.write(octets)
        except FrameError as error:
            raise malformed(self._connection, str(error)) from None

    def _take_any(self, letter: bytes, number: int, octets: bytes) -> None:
        self.since = time.monotonic()
        if self._last is not None:
            raise FrameError("data after the end")
        if letter == b"z":
            self._last = number, octets
        elif letter == b"e":
            self._last = failure_of(self._connection, octets)
        elif letter == b"m":
            self._last = malformed(self._connection, octets.decode("utf-8", "replace"))
        else:
            self._take(letter, number, octets)

    def result(self, status: int | None) -> tuple[int, bytes]:
        """Return the number and octets of the last frame.

        Raises:
            OSError: an error on the remote host.
            TransferError: the reply is incomplete.
        """
        if self._last is None:
            said = f"'{self.errors}'" if str(self.errors) else "no output"
            raise malformed(self._connection, f"it ended early (status {status}, {said})")
        if isinstance(self._last, Exception):
            raise self._last
        return self._last


def ask(
    connection: Connection,
    names: tuple[str, ...],
    call: str,
    payload: bytes = b"",
    *,
    label: str,
    timeout: float | None,
    take: Callable[[bytes, int, bytes], object] = lambda *frame: None,
    letters: bytes = b"",
) -> tuple[int, bytes]:
    """Run a program on the remote host; return the number and octets of its last frame.

    Args:
        names: see `program_of()`.
        call: the expression that the program ends with.
        payload: octets for its standard input.
        label, timeout: see `Connection.python_stream()`; the timeout also ends a reply that
            makes no progress.
        take, letters: see `Reply`.

    Raises:
        OSError: an error on the remote host.
        TransferError: the reply is malformed or incomplete.
        RemctlError: see `Connection.python_stream()`.
    """
    program = f"{program_of(names)}{call}\n"
    status = None
    with connection.python_stream(program, payload, label=label, timeout=timeout) as tokens:
        del payload
        reply = Reply(connection, take, letters)
        for token in tokens:
            if token.stream == 1:
                reply.write(token.output or b"")
            elif token.stream == 2:
                reply.errors.write(token.output or b"")
            status = token.status
            # A host that sends output but no frames would never run into the network timeout.
            if timeout is not None and time.monotonic() - reply.since > timeout + STARTS_AND_ENDS:
                late = remctl.RemctlTimeoutError(f"{connection.host} sent no reply in time")
                late.host = connection.host
                raise late
    return reply.result(status)
