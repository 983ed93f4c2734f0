"""remoto's classes of connections under the names that it has for them here."""

from __future__ import annotations

import socket
from typing import Any

from . import connection
from .connection import Connection as BaseConnection
from .connection import RemoteModule

LegacyModuleExecute = JsonModuleExecute = RemoteModule
docker = kubernetes = local = openshift = podman = connection

__all__ = ["BaseConnection", "needs_ssh"]


def needs_ssh(hostname: str, _socket: Any = socket) -> bool:
    """Return whether a host is another than this one by its name; both are reached over remctl."""
    name: str = _socket.gethostname()
    if hostname.lower() in ("localhost", "127.0.0.1", "127.0.1.1"):
        return False
    return hostname not in (_socket.getfqdn(), name, name.partition(".")[0])
