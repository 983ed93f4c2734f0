"""Files with the output of each host: ``--outdir`` and ``--errdir``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from urllib.parse import quote

import remctl
from remctl_toolkit.fleet import Host, Outcome

from .secret import UsageError
from .words import output

__all__ = ["Folders"]

_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folders:
    """Folders with a file for each host, which takes the place of the one of an earlier run.

    Args:
        hosts: all hosts; a file is made for each at once, so that none is of an earlier run.
        outdir: the folder for what they print on standard output; None is none.
        errdir: the same, for standard error.

    Raises:
        UsageError: a folder or file cannot be made, or both folders are one.
    """

    def __init__(self, hosts: Iterable[Host], outdir: str | None, errdir: str | None) -> None:
        paths = {remctl.RemctlStream.STDOUT: outdir, remctl.RemctlStream.STDERR: errdir}
        self._folders = {
            stream: (path, _open_folder(path)) for stream, path in paths.items() if path is not None
        }
        descriptors = [descriptor for _, descriptor in self._folders.values()]
        if len(descriptors) == 2 and os.path.sameopenfile(*descriptors):
            raise UsageError("--outdir and --errdir must be two folders")
        for host in hosts if self._folders else ():
            for path, folder in self._folders.values():
                _create(path, folder, _name(host))

    def finished(self, outcome: Outcome) -> None:
        """Write what a host has printed.

        Raises:
            OSError: that is not possible; it has the file's name.
        """
        said = output(outcome)
        octets_of = {
            remctl.RemctlStream.STDOUT: said.stdout,
            remctl.RemctlStream.STDERR: said.stderr,
        }
        name = _name(outcome.host)
        for stream, (path, folder) in self._folders.items():
            octets = octets_of[stream]
            if not octets:
                continue
            try:
                with open(os.open(name, _WRITE, dir_fd=folder), "wb") as file:
                    file.write(octets)
            except OSError as error:
                error.filename = os.path.join(path, name)
                raise


def _open_folder(path: str) -> int:
    try:
        os.makedirs(path, _FOLDER_MODE, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"cannot use the folder {path}: {error.strerror}") from None


def _create(path: str, folder: int, name: str) -> None:
    """Make an empty file, in place of whatever has its name, a link for example."""
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        os.close(os.open(name, _CREATE, _FILE_MODE, dir_fd=folder))
    except OSError as error:
        raise UsageError(f"cannot write {os.path.join(path, name)}: {error.strerror}") from None


def _name(host: Host) -> str:
    """Return the name of a host's file: its own, with its port if it was named with one.

    Nothing leads out of the folder, or hides there: other characters are written as ``%2F``.
    """
    name = quote(os.fsencode(str(host)), safe=":[]")
    return f"%2E{name[1:]}" if name.startswith(".") else name
