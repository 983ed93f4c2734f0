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
    """Directories with a file for each host.

    All files are created at once, so that none is left from an earlier run.

    Args:
        hosts: all hosts.
        outdir: directory for standard output; None to write no files.
        errdir: the same for standard error.

    Raises:
        UsageError: a directory or file cannot be created, or both directories are the same.
    """

    def __init__(self, hosts: Iterable[Host], outdir: str | None, errdir: str | None) -> None:
        paths = {remctl.RemctlStream.STDOUT: outdir, remctl.RemctlStream.STDERR: errdir}
        self._folders = {
            stream: (path, _open_folder(path)) for stream, path in paths.items() if path is not None
        }
        descriptors = [descriptor for _, descriptor in self._folders.values()]
        if len(descriptors) == 2 and os.path.sameopenfile(*descriptors):
            raise UsageError("--outdir and --errdir must be different directories")
        for host in hosts if self._folders else ():
            for path, folder in self._folders.values():
                _create(path, folder, _name(host))

    def finished(self, outcome: Outcome) -> None:
        """Write the output of a host.

        Raises:
            OSError: a file cannot be written; `filename` is its name.
        """
        found = output(outcome)
        octets_of = {
            remctl.RemctlStream.STDOUT: found.stdout,
            remctl.RemctlStream.STDERR: found.stderr,
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
        raise UsageError(f"cannot use directory {path}: {error.strerror}") from None


def _create(path: str, folder: int, name: str) -> None:
    """Create an empty file, and remove whatever has its name, such as a link."""
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        os.close(os.open(name, _CREATE, _FILE_MODE, dir_fd=folder))
    except OSError as error:
        raise UsageError(f"cannot write {os.path.join(path, name)}: {error.strerror}") from None


def _name(host: Host) -> str:
    """Return the file name for a host, with the port if the user gave one.

    Slashes and other special characters become ``%2F`` and so on, and no name starts with a dot.
    """
    name = quote(os.fsencode(str(host)), safe=":[]")
    return f"%2E{name[1:]}" if name.startswith(".") else name
