"""Loopback ports that stay ours, also while nothing listens on them."""

from __future__ import annotations

import socket
import sys

from .errors import RealmError

__all__ = ["BACKLOG", "ReservedPort", "loopback_address"]

BACKLOG = 1024
"""Connections that may wait for a server to accept them."""


_LOOPBACK = ("127.0.0.1", "::1")


def loopback_address() -> str:
    """Return the address of this machine's loopback interface: 127.0.0.1 if it has that, or ::1.

    Raises:
        RealmError: it has neither.
    """
    for address in _LOOPBACK:
        try:
            ReservedPort(address).close()
        except OSError:
            continue
        return address
    raise RealmError(f"no loopback address ({', '.join(_LOOPBACK)}): run 'ip link set lo up'")


class ReservedPort:
    """A TCP port of one local address, kept until close(); the system chooses it if nobody does.

    It is kept by a socket that is bound and never listens: a connection is refused, nobody else is
    given the port, and a socket with SO_REUSEADDR (which servers set) can still listen on it.
    Only Linux allows that last part; elsewhere the port is merely one that was free just now.
    """

    def __init__(self, address: str, number: int = 0) -> None:
        """Reserve a port.

        Two processes may reserve the same number if both ask for it; only one of them can listen.

        Args:
            address: a local IPv4 or IPv6 address, as text.
            number: the port; 0 means any that is free.

        Raises:
            OSError: the address is not one of this machine's, or the port is in use (EADDRINUSE).
        """
        self.address = address
        self._keeping: socket.socket | None = self._bound(number)
        self.number: int = self._keeping.getsockname()[1]
        if sys.platform != "linux":
            self.close()

    def listen(self) -> socket.socket:
        """Return a new socket that listens on the port, with a long backlog.

        Raises:
            OSError: somebody else has the port (never on Linux, before close(), if the system
                chose it).
        """
        listener = self._bound(self.number)
        try:
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    def free(self) -> bool:
        """Whether nobody listens on the port, nor has the UDP port of the same number."""
        try:
            self._bound(self.number).close()
        except OSError:
            return False
        with socket.socket(self._family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((self.address, self.number))
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Give the port up; closing twice is harmless."""
        if self._keeping is not None:
            self._keeping.close()
            self._keeping = None

    @property
    def _family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    def _bound(self, port: int) -> socket.socket:
        """Return a stream socket bound to the address and a port (0: any free one)."""
        made = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((self.address, port))
        except BaseException:
            made.close()
            raise
        return made
