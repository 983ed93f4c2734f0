"""Files and directories of a machine, for plumbum's paths."""

from __future__ import annotations

import os
import re
import shlex
from typing import IO, TYPE_CHECKING, Any

from plumbum.machines.remote import _glob_to_regex
from plumbum.path.local import LocalPath
from plumbum.path.remote import RemotePath

from ..files import paths, transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..base.connection import Connection
    from ..files.transfer import Transferred


class MachineFiles:
    """The part of a machine that its paths use."""

    connection: Connection
    host: str
    custom_encoding: str | None
    path: Callable[..., RemotePath]
    _session: Any
    _opened: Callable[[], Connection]

    def _own_path(self, path: Any) -> str:
        if isinstance(path, LocalPath):
            raise TypeError(f"path on {self.host} cannot be a local path: {path!r}")
        if isinstance(path, RemotePath):
            if path.remote is not self:
                raise TypeError(f"{path!r} points to a different remote machine")
            return str(path)
        given = os.fsdecode(path)
        kept = str(self.path(given))
        # plumbum's paths drop "/" and "/." at the end, which matter for copies.
        end = "/." if given.endswith("/.") else "/" if given.endswith("/") else ""
        return kept if kept == "/" else kept + end

    def _path_listdir(self, fn: str) -> list[str]:
        return self._find(fn, "-maxdepth 1", retcode=0, deep=False)

    def _path_glob(self, fn: str, pattern: str) -> list[str]:
        matching: re.Pattern[str] = re.compile(_glob_to_regex(pattern))
        depth = "" if "**" in pattern.split("/") else f"-maxdepth {pattern.count('/') + 1}"
        prefix = f"{str(fn).rstrip('/')}/"
        # Unreadable directories are skipped, as by glob.glob().
        found = self._find(fn, depth, retcode=None, deep=True)
        return sorted(prefix + name for name in found if matching.match(name))

    def _find(self, folder: str, depth: str, retcode: int | None, deep: bool) -> list[str]:
        from ..files.answers import entries_below

        # All find(1) in use have -mindepth and -print0, although POSIX does not.
        find = f"find -H {shlex.quote(str(folder))} -mindepth 1 {depth} -print0"
        text: str = self._session.run(find, retcode=retcode)[1]
        return entries_below(self.connection, str(folder), text, deep=deep)

    def _path_read(self, fn: str) -> bytes:
        octets: bytes = paths.read(self._opened(), self._own_path(fn))
        return octets

    def _path_write(self, fn: str, data: bytes | str) -> None:
        if isinstance(data, str):
            data = data.encode(self.custom_encoding or "utf8")
        paths.write(self._opened(), self._own_path(fn), bytes(data))

    def upload(self, src: Any, dst: Any, **how: Any) -> Any:
        """Copy a local file or folder to the host; see `transfer.upload()`."""
        if isinstance(src, RemotePath):
            raise TypeError(f"src of upload() cannot be a remote path: {src!r}")
        return transfer.upload(self._opened(), os.fspath(src), self._own_path(dst), **how)

    def download(self, src: Any, dst: Any, **how: Any) -> Any:
        """Copy a file or folder of the host; see `transfer.download()`."""
        if isinstance(dst, RemotePath):
            raise TypeError(f"dst of download() cannot be a remote path: {dst!r}")
        return transfer.download(self._opened(), self._own_path(src), os.fspath(dst), **how)

    def put(self, local: Any, remote: Any = None, **how: Any) -> Transferred:
        """Copy a local file to the host, and return its digest; see `transfer.put()`."""
        remote = None if remote is None else self._own_path(remote)
        return transfer.put(self._opened(), os.fspath(local), remote, **how)

    def fetch(self, remote: Any, local: Any = None, **how: Any) -> Transferred:
        """Copy a file of the host, and return its digest; see `transfer.fetch()`."""
        local = None if local is None else os.fspath(local)
        return transfer.fetch(self._opened(), self._own_path(remote), local, **how)

    @property
    def sftp(self) -> _Files:
        """The object that plumbum's ``path.open(mode)`` uses; see `paths.open()`."""
        return _Files(self)


class _Files:
    def __init__(self, machine: MachineFiles) -> None:
        self._machine = machine

    def open(self, path: Any, mode: str = "r", bufsize: int = -1) -> IO[Any]:
        """Open a file; plumbum passes `bufsize`, which is ignored."""
        machine = self._machine
        encoding = None if "b" in mode else machine.custom_encoding or "utf8"
        return paths.open(machine._opened(), machine._own_path(path), mode, encoding=encoding)
