"""A TCP relay that remembers every octet that passed, and can change one on its way.

    with Wiretap("localhost", port_of_the_server) as tap:
        ...  # connect to localhost, tap.port
        assert b"secret" not in tap.to_server

`change` flips the lowest bit of one octet of what the server sends on the first connection, counted
from 0 after its first token, whose length differs from time to time.
"""

from __future__ import annotations

import select
import socket

from .loopback import LoopbackServer
from .wire import HEADER

CONNECT_LIMIT = 5.0  # seconds to reach the server in
CHUNK = 65536


class Wiretap(LoopbackServer):
    """Relay between clients and (`host`, `port`), and listen; a context manager."""

    def __init__(self, host: str, port: int, *, change: int | None = None) -> None:
        super().__init__()
        self.target = (host, port)
        self.change = change
        self.to_server = bytearray()
        self.to_client = bytearray()

    def handle(self, connection: socket.socket, number: int) -> None:
        """Relay one connection until either side ends."""
        with socket.create_connection(self.target, CONNECT_LIMIT) as upstream:
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                ready, _, _ = select.select([connection, upstream], [], [], self.timeout)
                if connection in ready:
                    octets = connection.recv(CHUNK)
                    self.to_server += octets
                    upstream.sendall(octets)
                elif upstream in ready:
                    octets = self._changed(upstream.recv(CHUNK))
                    self.to_client += octets
                    connection.sendall(octets)
                else:
                    raise TimeoutError("neither side has said anything")
                if not octets:
                    return

    def _changed(self, octets: bytes) -> bytes:
        seen = self.to_client + octets
        if self.change is None or len(seen) < HEADER.size:
            return octets
        _, length = HEADER.unpack_from(seen)
        place = HEADER.size + length + self.change - len(self.to_client)
        if not 0 <= place < len(octets):
            return octets
        return octets[:place] + bytes([octets[place] ^ 1]) + octets[place + 1 :]
