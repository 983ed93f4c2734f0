"""Sends the frames of an upload: as many to a command as may be."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import remctl
from _remctl_text import printable

from ..base.connection import Connection
from ..wire.both_frames import frame
from .answers import Asking, answer_of, ask, malformed

__all__ = ["Frame", "send"]

Frame: TypeAlias = tuple[bytes, int, bytes]

# The server has three times this in memory while it takes a command.
_BATCH = 8 << 20
# A temporary file may be about to be made by a command that was interrupted; then its removal
# waits for it so long.
_LATE = 2.0  # seconds

_PROGRAM = ("both_place", "both_receive", "far_answer", "far_receive")


class _Upload:
    """Frames that wait for the next command, commands under way, and what those before have left.

    One command follows the other, but while octets of a large file are being written, the next may
    be on their way already: by another session, if the server lets us have it.
    """

    def __init__(
        self,
        connection: Connection,
        spec: dict[str, Any],
        timeout: float | None,
        done: Callable[[int], object],
    ) -> None:
        self._connection = connection
        self._spec = spec
        self._timeout = timeout
        self._done = done
        self._waiting = bytearray()
        self._contents = 0  # octets of files among them, holes included
        self._asked: list[tuple[Asking, int]] = []  # under way; octets of files in each
        # Where among the waiting the file begins that is not complete; 0 if it was begun before.
        self._file: int | None = None
        self._position = 0  # in that file
        # Seconds within which a temporary file may come to be over there; 0 if it is there.
        self._left: float | None = None
        self.into = False

    def add(self, letter: bytes, number: int, octets: bytes) -> None:
        """Take one more."""
        contents = len(octets) if letter == b"b" else int(octets) if letter == b"h" else 0
        if letter == b"f":
            self._file, self._position = len(self._waiting), 0
        self._waiting += frame(letter, number, octets)
        self._contents += contents
        self._position += contents
        if letter in b"ca":
            self._file = None
        if len(self._waiting) >= _BATCH and self._file:
            # A command that begins a file and does not end it begins with that: so it is known
            # where the temporary file is.
            rest, contents = self._waiting[self._file :], self._contents - self._position
            del self._waiting[self._file :]
            self._file, self._contents = None, contents
            self._send()
            self._waiting, self._contents, self._file = rest, self._position, 0
        if len(self._waiting) >= _BATCH:
            self._send()

    def finish(self) -> None:
        """Send what waits."""
        if self._waiting:
            self._send()
        self._wait(0)

    def _send(self) -> None:
        self._waiting += frame(b"z")
        payload = bytes(self._waiting)
        contents, self._contents = self._contents, 0
        self._waiting = bytearray()
        stays = self._file is not None
        # With a time limit, no other session is opened: connecting has one of its own.
        most = 1 if stays and self._left == 0.0 and self._timeout is None else 0
        if not most:
            self._wait(0)
        if stays and self._left is None:
            self._left = _LATE
        try:
            asking = self._ask(payload)
        except remctl.RemctlError:
            if not self._asked:
                raise
            self._wait(0)  # There is no other session.
            asking = self._ask(payload)
        self._asked.append((asking, contents))
        if stays:
            self._file, self._spec["position"] = 0, self._position
        self._wait(most)
        self._left = 0.0 if stays else None

    def _ask(self, payload: bytes) -> Asking:
        how: dict[str, Any] = {"label": "upload", "timeout": self._timeout}
        asking = ask(self._connection, _PROGRAM, f"receive({self._spec!a})", payload, **how)
        next(asking)
        return asking

    def _wait(self, most: int) -> None:
        while len(self._asked) > most:
            asking, contents = self._asked.pop(0)
            try:
                into, self._spec["state"] = answer_of(asking)
            except OSError as error:
                if self._left == _LATE and not isinstance(error, remctl.RemctlError):
                    self._left = None  # What says so has begun nothing.
                raise
            if not self._spec["state"]:
                raise malformed(self._connection, "its answer is none")
            self.into = bool(into)
            self._done(contents)

    def abandon(self, error: BaseException) -> None:
        """Take away what the error has left."""
        for asking, _ in self._asked:
            asking.close()
        if self._left is None:
            return
        why: BaseException = error
        if not isinstance(error, TimeoutError):  # Who is silent now will be so for longer.
            self._spec["abandon"] = self._left
            self._timeout = _LATE if self._timeout is None else min(self._timeout, _LATE)
            try:
                answer_of(self._ask(b""))
            except Exception as another:
                why = another
            else:
                return
        name = f".remctl-{self._spec['token']}.part"
        text = f"a temporary file {name} may be left on {self._connection.host}: {why}"
        error.add_note(printable(text))


def send(
    connection: Connection,
    destination: bytes,
    name: str,
    frames: Iterable[Frame],
    *,
    timeout: float | None,
    done: Callable[[int], object] = lambda octets: None,
    replaces: tuple[bool, int | None] | None = None,
) -> str:
    """Send them all; return the path of what was made.

    Args:
        destination: a folder, or what the path is to be.
        name: what it is called in a folder.
        done: called after each command with how many octets of files it had, holes included.
        replaces: for a file that keeps the owner and mode of the one that is there: whether there
            must be none, and the mode; None keeps that.

    Raises:
        OSError, TransferError, RemctlError: see `ask()`; and what `frames` and `done` raise.
    """
    spec: dict[str, Any] = {
        "destination": destination,
        "name": os.fsencode(name),
        "token": secrets.token_hex(8),
        "replaces": replaces,
        "state": b"",
        "position": 0,
        "abandon": None,
    }
    upload = _Upload(connection, spec, timeout, done)
    try:
        for each in frames:
            upload.add(*each)
        upload.finish()
    except BaseException as error:
        upload.abandon(error)
        raise
    path = os.fsdecode(destination)
    return os.path.normpath(os.path.join(path, name) if upload.into else path)
