"""Copy files and trees to and from the remote host: upload, download, put, fetch."""

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
from .answers import (
    LeftOut,
    TransferError,
    ask,
    check_mode,
    failure_of,
    far_path,
    malformed,
)
from .both_place import Place, umask
from .both_receive import Receiver
from .both_send import Sender, total
from .sending import Frame, send

__all__ = ["Progress", "TransferError", "Transferred", "download", "fetch", "put", "upload"]

Progress: TypeAlias = Callable[[int, "int | None", str], object]

_PUT_MODE = 0o644
_PRIVATE = 0o600


class Transferred(TypedDict):
    """The result of `put()` and `fetch()`."""

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
    """Return the name of a copy in a folder; "." if only the contents are copied."""
    name = os.path.basename(path.rstrip("/"))
    if name == "..":
        name = os.path.basename(os.path.abspath(path))
    return name or "."


# -- Upload ---------------------------------------------------------------------------------------


def _upload(
    connection: Connection,
    source: str | os.PathLike[str],
    destination: Word,
    *,
    progress: Progress | None = None,
    timeout: float | None,
    change: Callable[[Frame], Frame] | None = None,
) -> str:
    source_path, place = _local_path(source), far_path(connection, destination)
    left_out = LeftOut(connection)
    # A changed file is a single one whose digest is computed, which includes its holes.
    sender = Sender(left_out.add, single=change is not None)
    octets = total(source_path) if progress is not None else 0
    so_far = 0

    def done(contents: int) -> None:
        nonlocal so_far
        so_far += contents
        if progress is not None:
            progress(so_far, octets, sender.where)

    frames: Any = sender.frames(source_path)
    with contextlib.closing(frames):
        changed = frames if change is None else map(change, frames)
        name = _last_name(source_path)
        path = send(connection, place, name, changed, timeout=timeout, done=done)
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
    """Copy a local file or tree to the remote host, with modes and times.

    Each file appears at once and complete; until then it has a temporary name and is private.  In a
    tree, links are copied as links.  Special files and entries that cannot be read are left out,
    and reported at the end.  An entry that cannot be written ends the upload.

    Args:
        source: a file or a folder; links are followed.
        destination: if it is a folder, the copy is put in it; otherwise it is the copy's path,
            relative to the account's home.  Links of other users in the path are not followed.
        progress: called with the octets done, the octets in all, and the path of the current file,
            after each command (8 MiB).  An exception in it ends the upload.
        timeout: seconds that the host may be silent or make no progress, in addition to ten for
            each command; None waits for ever.

    Returns:
        The copy's path.

    Raises:
        OSError: a local file could not be read, or a remote one not be written; `filename` is its
            path.
        TransferError: an entry of the tree was left out, or the host sent malformed data.
        RemctlError: see `Connection.run()`.
    """
    return _upload(connection, source, destination, progress=progress, timeout=timeout)


def put(
    connection: Connection,
    local: str | os.PathLike[str],
    remote: Word | None = None,
    mode: int | None = None,
    *,
    timeout: float | None = None,
) -> Transferred:
    """Copy one file to the remote host, and return its digest.

    Args:
        local: the file.
        remote: the copy's path; None is a new name in /tmp.
        mode: the permissions of the copy; None is 0o644 without the bits that the local file does
            not have, so that a private file stays private.
        timeout: see `upload()`.

    Raises:
        OSError, TransferError, RemctlError: see `upload()`.
    """
    check_mode(mode)
    digest, size = hashlib.sha1(usedforsecurity=False), 0

    def change(frame: Frame) -> Frame:
        nonlocal size
        letter, number, octets = frame
        if letter == b"b":
            digest.update(octets)
            size += len(octets)
        elif letter == b"c":
            number = number & _PUT_MODE if mode is None else mode
        return letter, number, octets

    if remote is None:
        remote = f"/tmp/remctl-{secrets.token_hex(8)}"
    path = _upload(connection, local, remote, timeout=timeout, change=change)
    return Transferred(
        local_path=os.fsdecode(local), remote_path=path, size=size, sha1sum=digest.hexdigest()
    )


# -- Download -------------------------------------------------------------------------------------


def _download(
    connection: Connection,
    source: Word,
    destination: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    timeout: float | None,
    mode: int | None = None,
    digest: Any = None,
) -> tuple[str, int]:
    """Return the copy's path, and how many octets it has."""
    place, source_path = _local_path(destination), far_path(connection, source)
    name = _last_name(os.fsdecode(source_path))
    single = digest is not None
    left_out = LeftOut(connection)
    so_far, octets_in_all = 0, None

    def on_data(octets: bytes | None, length: int) -> None:
        nonlocal so_far
        so_far += length
        if digest is not None:
            digest.update(octets)
        if progress is not None:
            progress(so_far, octets_in_all, receiver.where)

    def take(letter: bytes, number: int, octets: bytes) -> None:
        nonlocal octets_in_all
        if letter == b"x":
            left_out.add(failure_of(connection, octets))
        elif letter == b"t":
            octets_in_all = receiver.attempt(lambda _: int(octets))
        else:
            receiver.take(letter, number, octets)

    token = secrets.token_hex(8)
    receiver = Receiver(Place(place), name, token, mask=umask(), mode=mode, on_data=on_data)
    try:
        ask(
            connection,
            ("both_place", "both_send", "far_answer", "far_send"),
            f"send_files({source_path!a}, {single}, {progress is not None})",
            label="download",
            timeout=timeout,
            take=take,
            letters=b"fbca" if single else b"fbcadulhtx",
        )
        if not receiver.complete():
            raise malformed(connection, "it is incomplete")
    finally:
        receiver.discard()
    left_out.check()
    return os.path.normpath(os.path.join(place, name) if receiver.into else place), so_far


def download(
    connection: Connection,
    source: Word,
    destination: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    timeout: float | None = None,
) -> str:
    """Copy a file or tree of the remote host, with modes and times; see `upload()`.

    Whatever the host sends, data is only written in the destination, links that it sent are not
    followed, and the umask is applied.

    Args:
        source: a remote file or folder; links are followed.
        destination: if it is a folder, the copy is put in it; otherwise it is the copy's path.
        progress: called with the octets done, the octets in all, and the path of the current file.
            An exception in it ends the download.
        timeout: see `upload()`.

    Returns:
        The copy's path.

    Raises:
        OSError: a remote file could not be read, or a local one not be written; `filename` is its
            path.
        TransferError: an entry of the tree was left out, or the host sent malformed data.
        RemctlError: see `Connection.run()`.
    """
    return _download(connection, source, destination, progress=progress, timeout=timeout)[0]


def fetch(
    connection: Connection,
    remote: Word,
    local: str | os.PathLike[str] | None = None,
    *,
    timeout: float | None = None,
) -> Transferred:
    """Copy one file of the remote host, and return its digest.

    Args:
        remote: the remote file.
        local: the copy's path; None is a new temporary file that no other user can read.
        timeout: see `upload()`.

    Raises:
        OSError, TransferError, RemctlError: see `download()`.
    """
    mode = None
    if local is None:
        local = os.path.join(tempfile.gettempdir(), f"remctl-{secrets.token_hex(8)}")
        mode = _PRIVATE
    digest = hashlib.sha1(usedforsecurity=False)
    copy, size = _download(connection, remote, local, timeout=timeout, mode=mode, digest=digest)
    remote_path = os.fsdecode(far_path(connection, remote))
    return Transferred(
        local_path=copy, remote_path=remote_path, size=size, sha1sum=digest.hexdigest()
    )
