"""A relay that records every token, and can change tokens.

    with Wiretap("localhost", port_of_the_server) as tap:
        ...  # connect to localhost, tap.port
        assert b"secret" not in tap.to_server

`change` gets each token with its header, and whether it goes to the client; it returns the bytes to
forward.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from .loopback import LoopbackServer
from .wire import HEADER, pack_token

CONNECT_LIMIT = 5.0  # seconds to reach the server in

Change = Callable[[bytes, bool], bytes]


class Wiretap(LoopbackServer):
    """Relay between clients and (`host`, `port`), and record; a context manager."""

    def __init__(self, host: str, port: int, *, change: Change | None = None) -> None:
        super().__init__()
        self.target = (host, port)
        self.change = change
        self.to_server = bytearray()
        self.to_client = bytearray()

    def handle(self, connection: socket.socket, number: int) -> None:
        """Relay one connection until either side ends."""
        with socket.create_connection(self.target, CONNECT_LIMIT) as upstream:
            upstream.settimeout(self.timeout)
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._relay, args=(upstream, connection, True))
            back.start()
            self._relay(connection, upstream, False)
            back.join(self.timeout)

    def _relay(self, source: socket.socket, destination: socket.socket, to_client: bool) -> None:
        seen = self.to_client if to_client else self.to_server
        with contextlib.suppress(OSError), source.makefile("rb") as octets:
            while token := octets.read(HEADER.size):
                if len(token) == HEADER.size:
                    token += octets.read(HEADER.unpack(token)[1])
                if self.change is not None:
                    token = self.change(token, to_client)
                seen += token
                destination.sendall(token)
        with contextlib.suppress(OSError):
            destination.shutdown(socket.SHUT_RDWR)


def flip_octet(place: int) -> Change:
    """Flip the lowest bit of an octet that the server sends, on one connection.

    It is counted from 0 after the server's first token, whose length differs from time to time.
    """
    passed: list[int] = []  # the lengths of the tokens before

    def change(token: bytes, to_client: bool) -> bytes:
        if not to_client:
            return token
        at = place - sum(passed[1:]) if passed else -1
        passed.append(len(token))
        if not 0 <= at < len(token):
            return token
        return token[:at] + bytes([token[at] ^ 1]) + token[at + 1 :]

    return change


def change_flags(change: Callable[[int], int]) -> Change:
    """Change the flags of both sides' tokens."""

    def changed(token: bytes, _: bool) -> bytes:
        flags, _length = HEADER.unpack_from(token)
        return pack_token(change(flags), token[HEADER.size :])

    return changed
