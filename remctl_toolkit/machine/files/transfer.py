"""Files and trees between here and there: upload, download, put, fetch."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable
from typing import Any, TypeAlias, TypedDict

from ..base.connection import Connection
from ..base.program import Word
from ..base.program import source as far_source
from . import both_receive, both_send
from .answers import LeftOut, Tail, TransferError, failure_of, far_path, malformed
from .sending import Frame, Upload

__all__ = ["Progress", "TransferError", "Transferred", "download", "fetch", "put", "upload"]

Progress: TypeAlias = Callable[[int, "int | None", str], object]

_TEMPORARY = "/tmp/remctl-{}"


class Transferred(TypedDict):
    """What `put()` and `fetch()` have done."""

    local_path: str
    remote_path: str
    size: int
    sha1sum: str


def _local_path(path: str | os.PathLike[str]) -> str:
    found = os.fsdecode(path)
    if not found:
        raise ValueError("a path cannot be empty")
    return found


def _last_name(path: str) -> str:
    """Return what a copy of it is called: "." if only its contents are meant."""
    name = os.path.basename(path.rstrip("/"))
    if name == "..":
        name = os.path.basename(os.path.abspath(path))
    return name or "."


# -- Upload ---------------------------------------------------------------------------------------


def _upload(
    connection: Connection,
    source_path: str,
    destination: bytes,
    *,
    progress: Progress | None,
    timeout: float | None,
    single: bool = False,
    change: Callable[[Frame], Frame] = lambda frame: frame,
) -> str:
    left_out = LeftOut(connection)
    # A single file is one whose digest is wanted: zeros count for that.
    sender = both_send.Sender(left_out.add, sparse=not single, folders=not single)
    total = both_send.total(source_path) if progress is not None else 0
    done = 0

    def acknowledged(contents: int) -> None:
        nonlocal done
        done += contents
        if progress is not None:
            progress(done, total, sender.where)

    name = _last_name(source_path)
    sending = Upload(connection, destination, name, timeout, acknowledged)
    frames: Any = sender.frames(source_path)
    with contextlib.closing(frames):
        path = sending.run(map(change, frames))
    left_out.check()
    return path


def upload(
    connection: Connection,
    source: str | os.PathLike[str],
    destination: Word,
    *,
    progress: Progress | None = None,
    timeout: float | None = None,
) -> str:
    """Copy a file or a tree to the far side, with modes and times.

    Each file appears at once and complete, under a temporary name until then.  A large one takes
    two sessions, if the server lets it have a second.  In a tree, links are copied as links; what
    cannot be read, or is no file, folder or link, is left out, and told at the end.  What cannot be
    written ends it.

    Args:
        source: a file or a folder; a link stands for what it leads to.
        destination: if it is a folder, the copy is put in it; otherwise it is the copy's path.
            See `far_path()` for what does not begin with a slash.
        progress: called with the octets done, the octets there are, and the path of the file that
            is being copied, after each command (8 MiB).  An exception in it ends the upload.
        timeout: seconds that the network may be silent for; None is for ever.

    Returns:
        The copy's path.

    Raises:
        OSError: a file could not be read here, or be written there; `filename` is its path.
        TransferError: something in the tree was left out, or the far side did not do as it must.
        RemctlError: see `Connection.run()`.
    """
    return _upload(
        connection,
        _local_path(source),
        far_path(connection, destination),
        progress=progress,
        timeout=timeout,
    )


def put(
    connection: Connection,
    local: str | os.PathLike[str],
    remote: Word | None = None,
    mode: int = 0o644,
    *,
    timeout: float | None = None,
) -> Transferred:
    """Copy one file to the far side, and tell its digest.

    Args:
        local: the file.
        remote: its path there; None is a new name in /tmp.
        mode: who may do what with it there.
        timeout: see `upload()`.

    Raises:
        OSError, TransferError, RemctlError: see `upload()`.
    """
    digest, size = hashlib.sha1(usedforsecurity=False), 0

    def change(frame: Frame) -> Frame:
        nonlocal size
        kind, body = frame
        if kind == b"b":
            digest.update(body)
            size += len(body)
        elif kind == b"c":
            length, crc, _, times = body.split(b" ", 3)
            body = b"%b %b %o %b" % (length, crc, mode, times)
        return kind, body

    if not 0 <= mode <= 0o777:
        raise ValueError(f"mode must be 0 to 0o777, not {mode!r}")
    local_path = _local_path(local)
    chosen = _TEMPORARY.format(secrets.token_hex(8)) if remote is None else remote
    path = _upload(
        connection,
        local_path,
        far_path(connection, chosen),
        progress=None,
        timeout=timeout,
        single=True,
        change=change,
    )
    return Transferred(
        local_path=local_path, remote_path=path, size=size, sha1sum=digest.hexdigest()
    )


# -- Download -------------------------------------------------------------------------------------


class _StoppedError(Exception):
    """The caller's `progress` raised what is the cause of this; it is not about a file."""


class _Download(both_receive.Receiver):
    """Makes here what the far side sends."""

    def __init__(
        self,
        connection: Connection,
        place: tuple[str, str, bytes],
        progress: Progress | None,
        digest: Any = None,
    ) -> None:
        parent, name, kinds = place
        super().__init__(parent, name, secrets.token_hex(8), kinds)
        self._connection = connection
        self._progress = progress
        self._digest = digest
        self.left_out = LeftOut(connection)
        self.done = 0
        self._total: int | None = None
        self.refusal: OSError | None = None

    def came(self, octets: bytes | None, length: int) -> None:
        """Take notice of a file's octets; None are a hole."""
        self.done += length
        if self._digest is not None:
            if octets is None:
                raise ValueError("a hole where none should be")
            self._digest.update(octets)
        if self._progress is not None:
            try:
                self._progress(self.done, self._total, self.where)
            except Exception as error:
                raise _StoppedError from error

    def _take_total(self, body: bytes) -> None:
        self._total = int(body)

    def _leave_out(self, body: bytes) -> None:
        self.left_out.add(failure_of(self._connection, body))

    def _refuse(self, body: bytes) -> None:
        self.refusal = failure_of(self._connection, body)
        self.ended = True

    handlers = {  # noqa: RUF012
        **both_receive.Receiver.handlers,
        b"t": _take_total,
        b"x": _leave_out,
        b"e": _refuse,
    }


def _download(
    connection: Connection,
    source_path: bytes,
    place: tuple[str, str, bytes],
    *,
    progress: Progress | None,
    timeout: float | None,
    digest: Any = None,
) -> _Download:
    single = digest is not None
    spec = {
        "source": source_path,
        "total": progress is not None,
        "sparse": not single,
        "folders": not single,
    }
    program = f"{far_source('files/both_send')}\nsend({spec!a})\n"
    receiver, errors = _Download(connection, place, progress, digest), Tail()
    try:
        result = connection.python_run(
            program, label="download", timeout=timeout, stdout=receiver, stderr=errors
        )
        if not receiver.ended:
            raise malformed(connection, f"it stopped ({errors.reason(result.status)})")
    except both_receive.Malformed as error:
        raise malformed(connection, str(error)) from None
    except _StoppedError as stopped:
        raise stopped.__cause__ or stopped from None
    finally:
        receiver.discard()
    if receiver.refusal is not None:
        raise receiver.refusal
    receiver.left_out.check()
    return receiver


def download(
    connection: Connection,
    source: Word,
    destination: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    timeout: float | None = None,
) -> str:
    """Copy a file or a tree from the far side, with modes and times.

    As `upload()`, the other way.  Whatever the far side sends, nothing is written but in the
    destination, and links that it sent are not followed.

    Args:
        source: a file or a folder over there; a link stands for what it leads to.
        destination: if it is a folder, the copy is put in it; otherwise it is the copy's path.
        progress: called with the octets done, the octets there are, and the path of the file that
            is being made.  An exception in it ends the download.
        timeout: see `upload()`.

    Returns:
        The copy's path.

    Raises:
        OSError: a file could not be read there, or be written here; `filename` is its path.
        TransferError: something in the tree was left out, or the far side did not do as it must.
        RemctlError: see `Connection.run()`.
    """
    path = far_path(connection, source)
    name = _last_name(os.fsdecode(path))
    place = both_receive.place(_local_path(destination), name)
    _download(connection, path, place, progress=progress, timeout=timeout)
    return os.path.normpath(os.path.join(*place[:2]))


def fetch(
    connection: Connection,
    remote: Word,
    local: str | os.PathLike[str] | None = None,
    *,
    timeout: float | None = None,
) -> Transferred:
    """Copy one file from the far side, and tell its digest.

    Args:
        remote: its path there.
        local: its path here; None is a new temporary file.
        timeout: see `upload()`.

    Raises:
        OSError, TransferError, RemctlError: see `download()`.
    """
    path = far_path(connection, remote)
    with contextlib.ExitStack() as undo:
        if local is None:
            descriptor, local = tempfile.mkstemp(prefix="remctl-")
            os.close(descriptor)
            undo.callback(os.unlink, local)
        parent, name, _ = both_receive.place(_local_path(local), _last_name(os.fsdecode(path)))
        digest = hashlib.sha1(usedforsecurity=False)
        place = parent, name, b"f"
        done = _download(
            connection, path, place, progress=None, timeout=timeout, digest=digest
        ).done
        undo.pop_all()
    return Transferred(
        local_path=os.path.join(parent, name),
        remote_path=os.fsdecode(path),
        size=done,
        sha1sum=digest.hexdigest(),
    )
