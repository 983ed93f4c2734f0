"""Find the remctl commands of an account."""

from __future__ import annotations

from typing import Any

from .connection import Connection
from .errors import MachineError, NoPythonError


class UnknownUserError(MachineError):
    """The server has no commands that run as this user, or does not authorize this principal."""


def split_user(host: str, user: str | None = None) -> tuple[str, str | None]:
    """Split ``user@host``; return the host and the user.

    Raises:
        ValueError: a part is missing, or `user` names another user.
    """
    named, at, name = host.rpartition("@")
    if not at:
        name, named = host, user or ""
    if not name or user == "" or (at and not named):
        raise ValueError(f"host must be HOST or USER@HOST, not {host!r}")
    if user not in (None, named):
        raise ValueError(f"user is {user!r}, but the host is {host!r}")
    return name, named or None


def connect(
    host: str,
    user: str | None = None,
    *,
    python: str = "python",
    shell: str | None = "sh",
    **settings: Any,
) -> Connection:
    """Connect to an account of a host.

    For user USER, use the commands python-USER and sh-USER, or else python and sh if these run as
    USER.  Without a user, use python and sh.

    Args:
        host: the host.
        user: the account's user.
        python, shell: the commands, without a user.
        settings: see `Connection`.

    Raises:
        UnknownUserError: there is no such account.
        RemctlError: see `Connection`.
    """
    if user is None:
        return Connection(host, python=python, shell=shell, **settings)
    named = f"{python}-{user}"
    try:
        return Connection(host, python=named, shell=shell and f"{shell}-{user}", **settings)
    except NoPythonError as error:
        text = f"no account {user!r} on {host} for this principal: {error}"
        failure = error
    try:
        connection = Connection(host, python=python, shell=shell, **settings)
    except NoPythonError:
        connection = None
    if connection is not None and connection.far.user == user:
        return connection
    if connection is not None:
        connection.close()
        text += f" ({python!r} runs as {connection.far.user!r})"
    unknown = UnknownUserError(text)
    unknown.host, unknown.port = failure.host, failure.port
    raise unknown
