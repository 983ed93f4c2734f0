"""What the transfer of files says when it cannot be done, and what it takes from the far side."""

from __future__ import annotations

import errno
import os
from typing import Any

from _remctl_text import printable

from ..base.connection import Connection
from ..base.errors import MachineError
from ..base.program import Word, literal, octets

_LONGEST_TEXT = 200
_LONGEST_ANSWER = 1 << 18
_TAIL = 4096


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


def far_error(connection: Connection, name: str, text: str, path: bytes) -> OSError:
    """Return a far side's error as the exception that it would be here.

    `name` is that of its number, as numbers are not the same on all systems.
    """
    number = getattr(errno, name, None) if name.startswith("E") else None
    shown = printable(text[:_LONGEST_TEXT])
    if not isinstance(number, int):
        number = errno.EIO
    where = os.fsdecode(path)
    return OSError(number, f"{shown or os.strerror(number)} (on {connection.host})", where)


def failure_of(connection: Connection, body: bytes) -> OSError:
    """Return the error that a frame tells of.

    Raises:
        ValueError: it tells of none.
    """
    name, rest = body.split(b" ", 1)
    text, path = rest.split(b"\0", 1)
    return far_error(connection, name.decode("ascii"), text.decode("utf-8", "replace"), path)


def malformed(connection: Connection, reason: str) -> TransferError:
    """Return the error for a far side that does not do as it has to."""
    error = TransferError(f"{connection.host} does not transfer files as it must: {reason}")
    error.host = connection.host
    return error


def incomplete(connection: Connection, left_out: list[OSError], count: int) -> TransferError:
    """Return the error for what had to be left out."""
    more = f", and {count - 1} more" if count > 1 else ""
    error = TransferError(f"not all could be transferred: {left_out[0]}{more}")
    error.host = connection.host
    error.left_out = tuple(left_out)
    return error


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
        if self._count:
            raise incomplete(self._connection, self._errors, self._count)


class Tail:
    """A file that keeps the last of what is written to it: enough for the reason of a failure."""

    def __init__(self) -> None:
        self._octets = b""

    def write(self, octets: bytes) -> int:
        """Take more."""
        self._octets = (self._octets + octets)[-_TAIL:]
        return len(octets)

    def reason(self, status: int | None) -> str:
        """Return the last line of it."""
        lines = self._octets.decode("utf-8", "replace").strip().splitlines()
        said = lines[-1][:_LONGEST_TEXT] if lines else "no word"
        return f"status {status}, and {said!r}" if lines else f"status {status}, and {said}"


class Bounded:
    """A file for what is to be kept in memory: it takes no more than it should."""

    def __init__(self, connection: Connection, limit: int | None = _LONGEST_ANSWER) -> None:
        self._connection = connection
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, octets: bytes) -> int:
        """Take more.

        Raises:
            TransferError: there is too much.
        """
        self._size += len(octets)
        if self._limit is not None and self._size > self._limit:
            raise malformed(self._connection, "it sends more than was asked for")
        self._pieces.append(octets)
        return len(octets)

    def octets(self) -> bytes:
        """Return what was written."""
        return b"".join(self._pieces)


def ask(
    connection: Connection,
    program: str,
    payload: bytes,
    *,
    label: str,
    timeout: float | None,
) -> dict[str, Any]:
    """Run a program that answers with a dictionary, or an error in one.

    Raises:
        OSError: what went wrong there.
        TransferError: the answer is none.
        RemctlError: see `Connection.run()`.
    """
    answer, errors = Bounded(connection), Tail()
    result = connection.python_run(
        program, payload, label=label, timeout=timeout, stdout=answer, stderr=errors
    )
    return reply_of(connection, answer.octets(), errors.reason(result.status))


def reply_of(connection: Connection, answer: bytes, instead: str) -> dict[str, Any]:
    """Return what a program answered; `instead` is why it did not.

    Raises:
        OSError, TransferError: see `ask()`.
    """
    try:
        reply = literal(answer, _LONGEST_ANSWER)
    except ValueError:
        raise malformed(connection, instead) from None
    if not isinstance(reply, dict):
        raise malformed(connection, "its answer is none")
    if "malformed" in reply:
        raise malformed(connection, str(reply["malformed"])[:_LONGEST_TEXT])
    if "error" in reply:
        raise _told(connection, reply["error"])
    return reply


def _told(connection: Connection, told: object) -> Exception:
    match told:
        case (str(name), str(text), bytes(path)):
            return far_error(connection, name, text, path)
    return malformed(connection, "its answer is none")
