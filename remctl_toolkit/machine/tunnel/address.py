"""Addresses that tunnels listen on or connect to, and errors about them."""

from __future__ import annotations

import errno
import os
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from . import both_sockets as protocol
from .both_mux import ADDRESS

if TYPE_CHECKING:
    from .both_sockets import Pairs

Port: TypeAlias = "int | str | bytes | os.PathLike[str] | os.PathLike[bytes]"


@dataclass(frozen=True)
class Address:
    """An address to listen on, or to connect to.

    Attributes:
        host: a name or number; None for a Unix socket.
        port: the port, or the Unix socket's path.
        family: one of the protocol's families.
    """

    host: str | None
    port: int | bytes
    family: int = protocol.ANY

    @classmethod
    def checked(
        cls,
        side: str,
        host: str | None,
        port: Port,
        folder: bytes,
        *,
        listens: bool,
        family: int = protocol.ANY,
    ) -> Address:
        """Return the address that a caller gave, in arguments whose names begin with a letter.

        Raises:
            TypeError, ValueError: an argument is wrong.
        """
        if host is None:
            return cls(None, _path(f"{side}port", port, folder))
        return cls(_host(f"{side}host", host), _port(f"{side}port", port, listens), family)

    def encoded(self, patience: float) -> bytes:
        """Return it for the server, with the seconds that connecting may take."""
        milliseconds = min(int(patience * 1000), 2**32 - 1)
        if isinstance(self.port, bytes):
            return ADDRESS.pack(protocol.UNIX, 0, milliseconds) + self.port
        assert self.host is not None
        packed = ADDRESS.pack(self.family, self.port, milliseconds)
        return packed + self.host.encode("ascii")

    def look_up(self) -> Pairs:
        """Look it up on this side.

        Raises:
            socket.gaierror: the host is not known.
        """
        if isinstance(self.port, bytes):
            return [(socket.AF_UNIX, self.port)]
        assert self.host is not None
        return protocol.addresses(self.family, self.host, self.port)

    def explained(self, error: OSError, doing: str) -> OSError:
        """Return an error of this side with a text that has the address."""
        if isinstance(error, socket.gaierror):
            return socket.gaierror(error.errno, f"{doing} {self}: {error.strerror}")
        return error_named(protocol.error_name(error), f"{doing} {self}")

    @property
    def shown(self) -> int | str:
        """The port, or the path as text."""
        return os.fsdecode(self.port) if isinstance(self.port, bytes) else self.port

    def __str__(self) -> str:
        if isinstance(self.port, bytes):
            return os.fsdecode(self.port)
        return f"[{self.host}]:{self.port}" if ":" in str(self.host) else f"{self.host}:{self.port}"


def error_named(name: bytes, doing: str) -> OSError:
    """Return the exception for an error that the server sent by its name."""
    if name == b"EAI_NONAME":
        return socket.gaierror(socket.EAI_NONAME, f"{doing}: no such host is known there")
    text = name.decode("ascii", "replace")
    number = getattr(errno, text, errno.EIO) if re.fullmatch("E[A-Z0-9]{1,20}", text) else errno.EIO
    return OSError(number, f"{doing}: {os.strerror(number)}")


def _path(name: str, path: Port, folder: bytes) -> bytes:
    if isinstance(path, int) or not isinstance(path, (str, bytes, os.PathLike)):
        kind = type(path).__name__
        raise TypeError(f"{name} is a Unix socket's path without a host, not {kind}")
    octets = os.fsencode(path)
    if not octets or b"\0" in octets:
        raise ValueError(f"{name} is {path!r}: that cannot be the path of a Unix socket")
    return os.path.join(folder, octets)


def _host(name: str, host: str) -> str:
    if not isinstance(host, str):
        raise TypeError(f"{name} must be a string or None, not {type(host).__name__}")
    try:
        known = host.encode("idna").decode("ascii")
    except UnicodeError:
        known = ""
    if not known or not known.isprintable() or " " in known:
        raise ValueError(f"{name} is {host!r}: that cannot be a host's name or number")
    return known


def _port(name: str, port: Port, listens: bool) -> int:
    if isinstance(port, str) and port.isascii() and port.isdigit():
        port = int(port)
    if isinstance(port, str):
        raise ValueError(f"{name} is {port!r}: for a Unix socket's path, its host must be None")
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"{name} must be a number, not {type(port).__name__}")
    if not (0 if listens else 1) <= port <= 65535:
        least = "0 (for a free one)" if listens else "1"
        raise ValueError(f"{name} is {port}: it must be from {least} to 65535")
    return port
