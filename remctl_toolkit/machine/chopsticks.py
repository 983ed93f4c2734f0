"""In place of chopsticks: its names, for programs that were written for it.

    tunnel = Tunnel("server.example.org")
    print(tunnel.call(time.time))

Groups, queues and their results are those of `remctl_toolkit.machine.group`.
"""

from __future__ import annotations

import getpass
from typing import Any

import remctl

from . import facts as facts
from . import helpers as helpers
from .base.accounts import connect, split_user
from .base.errors import MachineError
from .base.program import Word
from .facts import ip, python_executable, python_version
from .group.group import Group
from .group.member import LocalPath, Member
from .group.queue import AsyncResult, NotCompletedError, Queue
from .group.result import ErrorResult, GroupResult
from .helpers import check_output, output_lines

__all__ = [
    "AsyncResult",
    "BaseTunnel",
    "Docker",
    "ErrorResult",
    "Group",
    "GroupResult",
    "Local",
    "NotCompleted",
    "Queue",
    "RemoteException",
    "RemoteFileError",
    "SSHTunnel",
    "Sudo",
    "Tunnel",
    "check_output",
    "ip",
    "output_lines",
    "python_executable",
    "python_version",
]

RemoteException = remctl.RemctlError
NotCompleted = NotCompletedError


class RemoteFileError(MachineError, OSError):
    """A file was not copied, as it cannot be read or written, here or on the remote host."""


class Tunnel(Member):
    """An account of a host, for functions and files; it is connected to when it is first used.

    After `close()` it is connected to again when it is used again.  ``a + b`` and the other
    operators of groups make a `Group`.

    Args:
        host: its name, or ``user@host``.
        user: the account's user; None is the one of the server's command ``python``.
        port: None is remctl's.
        sudo: the account is that of root, whoever `user` is.  The program sudo is not run.
        settings: principal, python, shell, connect_timeout, ccache, source_ip, credentials: see
            `Connection`.

    Raises:
        TypeError, ValueError: an argument cannot be right.
    """

    def __init__(
        self,
        host: str,
        user: str | None = None,
        port: int | str | None = None,
        sudo: bool = False,
        **settings: Any,
    ) -> None:
        place, account = split_user(host, user)
        self._begin(host, place, "root" if sudo else account, port=port, **settings)

    def _begin(self, name: str, place: str, account: str | None, **settings: Any) -> None:
        super().__init__(name, lambda _: connect(place, account, **settings), None)

    def put(
        self, local_path: LocalPath, remote_path: Word | None = None, mode: int | None = None
    ) -> dict[str, Any]:
        """Copy one file there.

        Args:
            local_path: the file.
            remote_path: its path there; None is a new name in /tmp.
            mode: the permissions of the copy; None is 0o644 without the bits that the file here
                does not have, so that a private file stays private.

        Returns:
            "remote_path", "size" in octets, and "sha1sum".

        Raises:
            RemoteFileError: a file cannot be read or written.
            RemoteException: see `transfer.put()`.
        """
        found = self._copied(Member.put, local_path, remote_path, mode)
        del found["local_path"]  # Programs compare it with a dictionary of the other three.
        return found

    def fetch(self, remote_path: Word, local_path: LocalPath | None = None) -> dict[str, Any]:
        """Copy one file from there.

        Args:
            remote_path: the file.
            local_path: its path here; None is a new temporary file that no other user can read.

        Returns:
            "local_path", "remote_path", "size" in octets, and "sha1sum".

        Raises:
            See `put()`.
        """
        return self._copied(Member.fetch, remote_path, local_path)

    def _copied(self, copy: Any, *args: Any) -> dict[str, Any]:
        try:
            return dict(copy(self, *args))
        except OSError as error:
            raise RemoteFileError(error.errno, error.strerror, error.filename) from error

    def union(self, other: Any) -> Group:
        """Return the group of this and others; see `Group.union()`."""
        return Group([self]).union(other)

    def intersection(self, other: Any) -> Group:
        """Return the group of this, if it is among the others, or of nobody."""
        return Group([self]).intersection(other)

    def difference(self, other: Any) -> Group:
        """Return the group of this, unless it is among the others."""
        return Group([self]).difference(other)

    def symmetric_difference(self, other: Any) -> Group:
        """Return the group of those that are this or among the others, but not both."""
        return Group([self]).symmetric_difference(other)

    __or__ = __add__ = union
    __and__ = intersection
    __sub__ = difference
    __xor__ = symmetric_difference


SSHTunnel = Tunnel
BaseTunnel = Member


class Local(Tunnel):
    """This host, as whoever runs this program, by its remctld.

    Args:
        name: what it is called in results.
        settings: see `Tunnel`; also `port`.
    """

    def __init__(self, name: str = "localhost", **settings: Any) -> None:
        self._begin(name, "localhost", getpass.getuser(), **settings)


class Sudo(Tunnel):
    """Another account of this host, by its remctld.  The program sudo is not run.

    Args:
        user: the account's user.
        name: what it is called in results; None is ``USER@localhost``.
        settings: see `Local`.
    """

    def __init__(self, user: str = "root", name: str | None = None, **settings: Any) -> None:
        self._begin(name or f"{user}@localhost", "localhost", user, **settings)


class Docker(Tunnel):
    """There are no containers that are started here: a NotImplementedError says what there is."""

    def __init__(self, name: str, *args: Any, **settings: Any) -> None:
        raise NotImplementedError(
            f"container {name} cannot be started: for one that runs, there is "
            "remctl_toolkit.machine.remoto.DockerConnection(hostname, container_name=...)"
        )
