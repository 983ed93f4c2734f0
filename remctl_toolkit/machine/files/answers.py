"""Run programs that move files on the remote host, and read their replies."""

from __future__ import annotations

import errno
import functools
import os
import re
import time
from collections.abc import Callable, Generator, Iterable
from typing import TypeAlias

import remctl
from _remctl_text import printable

from ..base.connection import STARTS_AND_ENDS, Connection
from ..base.errors import MachineError
from ..base.program import Word, octets, source
from ..wire.both_frames import FrameError, Frames
from .both_place import check_name
from .both_receive import LONGEST

_LONGEST_TEXT = 200
_TAIL = 4096
_IMPORTS = re.compile(r"^from (__future__|\.).*\n", re.MULTILINE)

Reply: TypeAlias = Generator[None, None, tuple[int, bytes]]


class TransferError(MachineError):
    """Something was not transferred, for a reason that is not a single file's.

    Either the far side did not do as it has to, or some entries of a tree could not be read: all
    the others were transferred.

    Attributes:
        left_out: what could not be read, an `OSError` each (the first hundred).
    """

    left_out: tuple[OSError, ...] = ()


def far_path(connection: Connection, path: Word) -> bytes:
    """Return a path of the far side as octets, from its root.

    What does not begin with a slash is in the account's home; so is ``~`` and what begins with
    ``~/``.

    Raises:
        TypeError, ValueError: it can be no path.
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
        raise ValueError(f"mode must be 0 to 0o777, not {mode!r}")


def malformed(connection: Connection, reason: str) -> TransferError:
    """Return the error for a far side that does not do as it has to."""
    said = reason[: 2 * _LONGEST_TEXT]
    error = TransferError(f"{connection.host} does not transfer files as it must: {said}")
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
            raise ValueError(f"{rest!r} has no end")
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
    """Remembers what could not be read, or at least how much."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._errors: list[OSError] = []
        self._count = 0

    def add(self, error: OSError) -> None:
        """Remember one more."""
        self._count += 1
        if self._count <= 100:
            self._errors.append(error)

    def check(self) -> None:
        """Raise a `TransferError` if there is something."""
        if not self._count:
            return
        more = f", and {self._count - 1} more" if self._count > 1 else ""
        error = TransferError(f"not all could be transferred: {self._errors[0]}{more}")
        error.host = self._connection.host
        error.left_out = tuple(self._errors)
        raise error


@functools.cache
def _text_of(names: tuple[str, ...]) -> str:
    texts = [_IMPORTS.sub("", source(name)) for name in names]
    return "\n".join(["from __future__ import annotations", *texts])


def ask(
    connection: Connection,
    names: Iterable[str],
    call: str,
    payload: bytes = b"",
    *,
    label: str,
    timeout: float | None,
    take: Callable[[bytes, int, bytes], object] = lambda *frame: None,
    letters: bytes = b"",
) -> Reply:
    """Send a program and read its reply; return the number and octets of the last frame.

    The first `next()` sends the program, the second waits for the reply; `close()` cancels.

    Args:
        names: source files of the program, each after those that it needs.
        call: the expression that the program ends with.
        payload: octets for its standard input.
        label, timeout: see `Connection.python_stream()`; the timeout also ends a reply that
            makes no progress.
        take, letters: called for each frame before the last, and the letters allowed there.

    Raises:
        OSError: an error on the remote host.
        TransferError: the reply is malformed or incomplete.
        RemctlError: see `Connection.python_stream()`.
    """
    last: tuple[int, bytes] | Exception | None = None
    errors, status, since = b"", None, 0.0

    def take_any(letter: bytes, number: int, octets: bytes) -> None:
        nonlocal last, since
        since = time.monotonic()
        if last is not None:
            raise FrameError("something comes after the end")
        if letter == b"z":
            last = number, octets
        elif letter == b"e":
            last = failure_of(connection, octets)
        elif letter == b"m":
            last = malformed(connection, octets.decode("utf-8", "replace"))
        else:
            take(letter, number, octets)

    frames = Frames(take_any, b"zem" + letters, LONGEST)
    program = f"{_text_of(('wire/both_frames', *(f'files/{name}' for name in names)))}\n{call}\n"
    with connection.python_stream(program, payload, label=label, timeout=timeout) as tokens:
        del payload
        yield
        since = time.monotonic()
        for token in tokens:
            try:
                if token.stream == 1:
                    frames.write(token.output or b"")
            except FrameError as error:
                raise malformed(connection, str(error)) from None
            if token.stream == 2:
                errors = (errors + (token.output or b""))[-_TAIL:]
            status = token.status
            # A host that sends output but no frames would never run into the network timeout.
            if timeout is not None and time.monotonic() - since > timeout + STARTS_AND_ENDS:
                late = remctl.RemctlTimeoutError(f"{connection.host} sent no reply in time")
                late.host = connection.host
                raise late
    if last is None:
        lines = errors.decode("utf-8", "replace").strip().splitlines()
        said = repr(lines[-1][:_LONGEST_TEXT]) if lines else "no word"
        raise malformed(connection, f"it stopped (status {status}, and {said})")
    if isinstance(last, Exception):
        raise last
    return last


def wait_for(reply: Reply) -> tuple[int, bytes]:
    """Send the program unless that was done, and return its reply; see `ask()`."""
    try:
        while True:
            next(reply)
    except StopIteration as end:
        answer: tuple[int, bytes] = end.value
        return answer
