"""Which commands of a server lead to an account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remctl_toolkit.machine import Connection, MachineError
from remctl_toolkit.machine.base.errors import NoPythonError

from .request import CONNECT_TIMEOUT

if TYPE_CHECKING:
    from .request import Request

__all__ = ["UnknownUserError", "connect"]


class UnknownUserError(MachineError):
    """The server has no commands that run as this user, or not for us."""


def connect(request: Request) -> Connection:
    """Connect to the account that was asked for.

    For user USER these are the commands python-USER and sh-USER, or else python and sh if that is
    whom they run as.  Without a user they are python and sh.

    Raises:
        UnknownUserError: there is no such account.
        RemctlError: see `Connection`.
    """
    python, shell = request.python or "python", request.shell
    shell = "sh" if shell is None else shell or None
    user = request.user
    if user is None:
        return _connect(request, python, shell)
    named = f"{python}-{user}"
    try:
        return _connect(request, named, shell and f"{shell}-{user}")
    except NoPythonError as error:
        reason = str(error)
    text = f"no account {user!r} on {request.host} for us: {reason}"
    try:
        connection = _connect(request, python, shell)
    except NoPythonError:
        raise UnknownUserError(text) from None
    if connection.far.user != user:
        connection.close()
        raise UnknownUserError(f"{text} ({python!r} is there, for {connection.far.user!r})")
    return connection


def _connect(request: Request, python: str, shell: str | None) -> Connection:
    settings: dict[str, Any] = {"ccache": request.ccache, "source_ip": request.source_ip}
    return Connection(
        request.host,
        request.port,
        request.principal,
        python=python,
        shell=shell,
        connect_timeout=request.timeout or CONNECT_TIMEOUT,
        **settings,
    )
