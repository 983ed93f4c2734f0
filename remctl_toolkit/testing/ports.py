"""Reserve loopback ports, even while nothing listens on them."""

from __future__ import annotations

import socket
import sys

from .errors import RealmError

__all__ = ["BACKLOG", "ReservedPort", "loopback_address"]

BACKLOG = 1024
"""Maximum number of connections that wait to be accepted."""


_LOOPBACK = ("127.0.0.1", "::1")


def loopback_address() -> str:
    """Return this machine's loopback address: 127.0.0.1 if it exists, else ::1.

    Raises:
        RealmError: neither exists.
    """
    for address in _LOOPBACK:
        try:
            ReservedPort(address).close()
        except OSError:
            continue
        return address
    raise RealmError(f"no loopback address ({', '.join(_LOOPBACK)}): run 'ip link set lo up'")


class ReservedPort:
    """A TCP port of one local address, reserved until close().

    A socket that is bound but never listens reserves it: connections are refused, and the system
    does not give the port to others. A socket with SO_REUSEADDR, which servers set, can listen on
    it. This works on Linux only; elsewhere the port is free at first, but not reserved.
    """

    def __init__(self, address: str, number: int = 0) -> None:
        """Reserve a port.

        Two processes may reserve the same number if both choose it; only one of them can listen.

        Args:
            address: a local IPv4 or IPv6 address, as text.
            number: the port; 0 means any free port.

        Raises:
            OSError: this machine does not have the address, or the port is in use (EADDRINUSE).
        """
        self.address = address
        self._keeping: socket.socket | None = self._bound(number)
        self.number: int = self._keeping.getsockname()[1]
        if sys.platform != "linux":
            self.close()

    def listen(self) -> socket.socket:
        """Return a new socket that listens on the port, with a long backlog.

        Raises:
            OSError: another socket uses the port (impossible on Linux before close() if the system
                chose the port).
        """
        listener = self._bound(self.number)
        try:
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    def free(self) -> bool:
        """Return whether nobody listens on the port or uses the UDP port of the same number."""
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
        """Release the port; closing twice is harmless."""
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
