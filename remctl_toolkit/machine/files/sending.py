"""Send the frames of an upload in commands of 8 MiB each."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import remctl
from _remctl_text import printable

from ..base.connection import Connection
from ..wire.both_frames import frame
from .answers import Reply, ask, malformed, wait_for

__all__ = ["Frame", "send"]

Frame: TypeAlias = tuple[bytes, int, bytes]

# The server has three times this in memory while it takes a command.
_BATCH = 8 << 20
# An interrupted command may still make its temporary file; the removal waits this long for it.
_LATE = 2.0  # seconds

_PROGRAM = ("both_place", "both_receive", "far_answer", "far_receive")


class _Upload:
    """Frames that wait for the next command, and commands whose replies are awaited.

    Commands run one after the other, with one exception: while a piece of a large file is being
    written, the next is sent over a second session, if the server allows one.
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
        self._contents = 0  # octets of files among the waiting, holes included
        self._replies: list[tuple[Reply, int]] = []  # each with the octets of files in its command
        # Offset of the incomplete file in the waiting frames; 0 if it was begun before them.
        self._file: int | None = None
        self._position = 0  # in that file
        # Seconds within which a temporary file may appear on the host; 0 if there is one.
        self._left: float | None = None
        self.into = False

    def add(self, letter: bytes, number: int, octets: bytes) -> None:
        """Add a frame; send a command if there is enough for one."""
        contents = len(octets) if letter == b"b" else int(octets) if letter == b"h" else 0
        if letter == b"f":
            self._file, self._position = len(self._waiting), 0
        self._waiting += frame(letter, number, octets)
        self._contents += contents
        self._position += contents
        if letter in b"ca":
            self._file = None
        if len(self._waiting) >= _BATCH and self._file:
            # A large file gets a command of its own, so that the state says which folder its
            # temporary file is in.
            rest, contents = self._waiting[self._file :], self._contents - self._position
            del self._waiting[self._file :]
            self._file, self._contents = None, contents
            self._send()
            self._waiting, self._contents, self._file = rest, self._position, 0
        if len(self._waiting) >= _BATCH:
            self._send()

    def finish(self) -> None:
        """Send the rest, and wait for all replies."""
        if self._waiting:
            self._send()
        self._wait(0)

    def _send(self) -> None:
        self._waiting += frame(b"z")
        payload = bytes(self._waiting)
        contents, self._contents = self._contents, 0
        self._waiting = bytearray()
        stays = self._file is not None
        # Opening a second session could take longer than a timeout allows.
        most = 1 if stays and self._left == 0.0 and self._timeout is None else 0
        if not most:
            self._wait(0)
        if stays and self._left is None:
            self._left = _LATE
        try:
            reply = self._ask(payload)
        except remctl.RemctlError:
            if not self._replies:
                raise
            self._wait(0)  # The server allows no second session.
            reply = self._ask(payload)
        self._replies.append((reply, contents))
        if stays:
            self._file, self._spec["position"] = 0, self._position
        self._wait(most)
        self._left = 0.0 if stays else None

    def _ask(self, payload: bytes) -> Reply:
        how: dict[str, Any] = {"label": "upload", "timeout": self._timeout}
        reply = ask(self._connection, _PROGRAM, f"receive({self._spec!a})", payload, **how)
        next(reply)
        return reply

    def _wait(self, most: int) -> None:
        while len(self._replies) > most:
            reply, contents = self._replies.pop(0)
            try:
                into, self._spec["state"] = wait_for(reply)
            except OSError as error:
                if self._left == _LATE and not isinstance(error, remctl.RemctlError):
                    self._left = None  # The host failed to begin the file.
                raise
            if not self._spec["state"]:
                raise malformed(self._connection, "its answer is none")
            self.into = bool(into)
            self._done(contents)

    def abandon(self, error: BaseException) -> None:
        """Remove the temporary file after an error."""
        for reply, _ in self._replies:
            reply.close()
        if self._left is None:
            return
        why: BaseException = error
        if not isinstance(error, TimeoutError):  # A silent host would not answer this either.
            self._spec["abandon"] = self._left
            self._timeout = _LATE if self._timeout is None else min(self._timeout, _LATE)
            try:
                wait_for(self._ask(b""))
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
    """Send frames; return the path of the copy.

    Args:
        destination: a folder, or the path of the copy.
        name: the name of the copy in a folder.
        timeout: see `ask()`.
        done: called after each command with the octets of files in it, holes included.
        replaces: set for a file that keeps the owner of an existing one: whether none may exist,
            and the mode; None keeps the mode, too.

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
