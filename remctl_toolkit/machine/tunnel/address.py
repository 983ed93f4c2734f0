"""Where tunnels listen and lead to, here and there, and what is said when that cannot be."""

from __future__ import annotations

import errno
import os
import re
import socket
from dataclasses import dataclass
from typing import Any

from . import both_mux as protocol


@dataclass(frozen=True)
class Address:
    """Where to listen, or to connect to.

    Attributes:
        host: a name or number; None for a Unix socket.
        port: the port, or the Unix socket's path.
        family: one of the protocol's families.
    """

    host: str | None
    port: int | bytes
    family: int = protocol.ANY

    def encoded(self, patience: float) -> bytes:
        """Return it for the far side, with the seconds that connecting may take."""
        milliseconds = min(int(patience * 1000), 2**32 - 1)
        if isinstance(self.port, bytes):
            return protocol.ADDRESS.pack(protocol.UNIX, 0, milliseconds) + self.port
        assert self.host is not None
        packed = protocol.ADDRESS.pack(self.family, self.port, milliseconds)
        return packed + self.host.encode("ascii")

    def found_here(self) -> list[tuple[int, Any]]:
        """Return what it is on this side: families, and addresses for the socket module.

        Raises:
            socket.gaierror: the host is not known.
        """
        if isinstance(self.port, bytes):
            return [(socket.AF_UNIX, self.port)]
        assert self.host is not None
        return protocol.addresses(self.family, self.host, self.port)

    def __str__(self) -> str:
        if isinstance(self.port, bytes):
            return os.fsdecode(self.port)
        return f"[{self.host}]:{self.port}" if ":" in str(self.host) else f"{self.host}:{self.port}"


def error_named(name: bytes, doing: str) -> OSError:
    """Return the exception for an error that the far side gave this name."""
    if name == b"EAI_NONAME":
        return socket.gaierror(socket.EAI_NONAME, f"{doing}: no such host is known there")
    text = name.decode("ascii", "replace")
    number = getattr(errno, text, errno.EIO) if re.fullmatch("E[A-Z0-9]{1,20}", text) else errno.EIO
    return OSError(number, f"{doing}: {os.strerror(number)}")
