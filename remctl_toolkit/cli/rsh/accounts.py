"""Connect remctl-rsh to the requested account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remctl_toolkit.machine.base import accounts

from .request import CONNECT_TIMEOUT

if TYPE_CHECKING:
    from remctl_toolkit.machine import Connection

    from .request import Request

__all__ = ["connect"]


def connect(request: Request) -> Connection:
    """Connect to the account; see `accounts.connect()`."""
    return accounts.connect(
        request.host,
        request.user,
        port=request.port,
        principal=request.principal,
        python=request.python or "python",
        shell="sh" if request.shell is None else request.shell or None,
        connect_timeout=request.timeout or CONNECT_TIMEOUT,
        ccache=request.ccache,
        source_ip=request.source_ip,
    )
