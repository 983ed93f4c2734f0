"""Sends the frames of an upload: small files many to a command, large ones in pieces."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias
from zlib import crc32

import remctl

from ..base.connection import STARTS_AND_ENDS, Connection
from ..base.program import source as far_source
from .answers import Bounded, Tail, ask, malformed, reply_of
from .both_send import header
from .lanes import Lanes

__all__ = ["Frame", "Upload"]

Frame: TypeAlias = tuple[bytes, bytes]

# The server has three times this in memory while it takes a command.
_BATCH = 8 << 20
# A temporary file may be about to be made by a command that was interrupted; then its removal
# waits for it so long.
_LATE = 2.0  # seconds


class _Frames:
    """Frames that wait to be sent."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0  # octets
        self.contents = 0  # octets of files among them, holes included

    def add(self, kind: bytes, body: bytes) -> None:
        self.pieces += (header(kind, len(body)), body)
        self.size += 5 + len(body)
        if kind == b"b":
            self.contents += len(body)
        elif kind == b"h":
            self.contents += int(body)

    def move(self, others: _Frames) -> None:
        """Take what others has."""
        self.pieces += others.pieces
        self.size += others.size
        self.contents += others.contents
        others.clear()


class _Piece:
    """Octets of a large file that one command writes, and where they belong."""

    def __init__(self) -> None:
        self.octets: list[bytes] = []
        self.size = self.crc = 0
        self.contents = 0  # octets of the file, with the holes before them
        self.extents: list[list[int]] = []  # where each begins, and its length

    def add(self, hole: int, position: int, octets: bytes) -> None:
        if self.extents and not hole:
            self.extents[-1][1] += len(octets)
        else:
            self.extents.append([position, len(octets)])
        self.contents += hole + len(octets)
        self.octets.append(octets)
        self.size += len(octets)
        self.crc = crc32(octets, self.crc)


class _LargeFile:
    """A file that has been begun over there, and is sent in pieces by up to two sessions."""

    def __init__(
        self,
        connection: Connection,
        spec: dict[str, Any],
        timeout: float | None,
        acknowledged: Callable[[int], object],
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._acknowledged = acknowledged
        self._state = spec["state"]
        match self._state:
            case {"stack": list(stack), "part": (bytes(name), int(), int(), tuple(file))}:
                self._name, self._file = name, file
            case _:
                raise malformed(connection, "its answer is none")
        names = [entry[0] for entry in stack]
        inner = [entry for entry in names if entry != b"."]
        self._program = _piece_program(
            {
                "parent": spec["parent"],
                "names": names,
                "part": f".remctl-{spec['token']}.part",
                "file": file,
                "path": os.path.join(spec["parent"], *inner, name),
            }
        )
        self._piece = _Piece()
        self._position = self._end = 0  # now, and behind the last octets
        self._lanes = Lanes(connection, self._send)

    def add(self, kind: bytes, body: bytes) -> None:
        """Take a frame with octets, or that of a hole."""
        if kind == b"h":
            self._position += int(body)
            return
        self._piece.add(self._position - self._end, self._position, body)
        self._end = self._position = self._position + len(body)
        if self._piece.size >= _BATCH:
            self._hand()

    def _hand(self) -> None:
        piece, self._piece = self._piece, _Piece()
        self._lanes.hand(piece)
        self._tell()

    def _tell(self) -> None:
        for piece in self._lanes.done():
            self._acknowledged(piece.contents)

    def finish(self, kind: bytes, body: bytes) -> tuple[dict[str, Any], list[Frame]]:
        """Wait until all is written; return the state then, and what is left to be sent."""
        if self._piece.size:
            self._hand()
        self._lanes.end()
        self._tell()
        # Each piece was checked by itself.  What the whole has to be is in the last frame, if it
        # is complete.
        crc = int(body.split(b" ")[1]) if kind == b"c" else 0
        state = {**self._state, "part": (self._name, self._end, crc, self._file)}
        hole = self._position - self._end
        return state, [*([(b"h", b"%d" % hole)] if hole else []), (kind, body)]

    def stop(self) -> None:
        """End what is under way."""
        self._lanes.stop()

    def _send(self, session: remctl.Remctl, piece: _Piece) -> None:
        # In a thread of its own.
        program = f"{self._program}take(SPEC, {piece.extents!a}, {piece.crc})\n"
        command, octets = self._connection._python_command(program, b"", "upload")
        payload = b"".join((octets, *piece.octets))
        piece.octets.clear()  # Once is enough.
        answer, errors = Bounded(self._connection), Tail()
        session.set_timeout(0 if self._timeout is None else self._timeout + STARTS_AND_ENDS)
        result = session.run((*command, payload), stdout=answer, stderr=errors)
        reply = reply_of(self._connection, answer.octets(), errors.reason(result.status))
        if reply.get("written") != piece.size:
            raise malformed(self._connection, "its answer is none")


def _piece_program(spec: dict[str, Any]) -> str:
    return f"{far_source('files/far_piece')}\nSPEC = {spec!a}\n"


class Upload:
    """Sends frames in as few commands as may be, and knows what to take away if it fails.

    Small files share a command, and are written and renamed by it.  A large one is begun by a
    command, written by others, two at a time, and ended by one more; in between it is a temporary
    file.
    """

    def __init__(
        self,
        connection: Connection,
        destination: bytes,
        name: str,
        timeout: float | None,
        acknowledged: Callable[[int], object],
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._acknowledged = acknowledged
        self._spec: dict[str, Any] = {
            "parent": destination,
            "name": os.fsencode(name),
            "token": secrets.token_hex(8),
            "state": None,
            "abandon": None,
        }
        self._whole = _Frames()  # of entries that are complete
        self._file = _Frames()  # of the file that is not
        self._large: _LargeFile | None = None  # That file, once it is sent in pieces.
        self._begun = False  # That file has a temporary one over there, or may have.
        self._known = False  # The far side has said so.

    def run(self, frames: Iterable[Frame]) -> str:
        """Send them all; return the path of what was made."""
        try:
            for kind, body in frames:
                self._add(kind, body)
            self._send(self._whole)
        except BaseException as error:
            if self._large is not None:
                self._large.stop()
            if self._begun:
                self._abandon(error)
            raise
        path = os.path.join(self._spec["parent"], self._spec["name"])
        return os.fsdecode(os.path.normpath(path))

    def _add(self, kind: bytes, body: bytes) -> None:
        if self._large is not None:
            if kind in b"ac":
                self._end_large(self._large, kind, body)
            else:
                self._large.add(kind, body)
            return
        in_file = kind == b"f" or bool(self._file.pieces)
        (self._file if in_file else self._whole).add(kind, body)
        if in_file and kind == b"c":
            self._whole.move(self._file)
        elif in_file and kind == b"a":
            self._file.clear()
        elif self._whole.size + self._file.size >= _BATCH:
            self._send(self._whole)
            if self._file.size >= _BATCH:
                self._begin_large()

    def _begin_large(self) -> None:
        held, self._file = self._file.pieces, _Frames()
        begin = _Frames()
        begin.add(b"f", held[1])
        # By itself: what comes later makes no file, so it cannot leave one behind.
        self._begun = True
        self._send(begin)
        self._known = True
        self._large = large = _LargeFile(
            self._connection, self._spec, self._timeout, self._acknowledged
        )
        for head, body in zip(held[2::2], held[3::2], strict=True):
            large.add(head[:1], body)

    def _end_large(self, large: _LargeFile, kind: bytes, body: bytes) -> None:
        self._spec["state"], frames = large.finish(kind, body)
        last = _Frames()
        for frame in frames:
            last.add(*frame)
        self._send(last)
        self._large = None
        self._begun = self._known = False

    def _send(self, frames: _Frames) -> None:
        """Send frames; there are none of them afterwards."""
        if not frames.pieces:
            return
        payload, done = b"".join(frames.pieces), frames.contents
        frames.clear()
        try:
            reply = self._ask(self._spec, payload)
        except OSError as error:
            if self._large is None and not isinstance(error, remctl.RemctlError):
                self._begun = False  # The far side said so, when it had put things in order.
            raise
        match reply:
            case {"state": dict(), "parent": bytes(), "name": bytes()}:
                self._spec.update({key: reply[key] for key in ("state", "parent", "name")})
            case _:
                raise malformed(self._connection, "its answer is none")
        self._acknowledged(done)

    def _ask(self, spec: dict[str, Any], payload: bytes) -> dict[str, Any]:
        program = f"{far_source('files/both_receive')}\nreceive({spec!a})\n"
        return ask(self._connection, program, payload, label="upload", timeout=self._timeout)

    def _abandon(self, error: BaseException) -> None:
        state = self._spec["state"]
        if state is not None:
            state = {**state, "part": None}
        wait = 0.0 if self._known else _LATE
        try:
            self._ask({**self._spec, "state": state, "abandon": wait}, b"")
        except Exception as another:
            name = f".remctl-{self._spec['token']}.part"
            host = self._connection.host
            error.add_note(f"a temporary file {name} may be left on {host}: {another}")
