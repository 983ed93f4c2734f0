"""A TCP relay on loopback that delays all data; needs no privileges.

Each side has its own TCP connection with the relay. So this shows the delay of answers, but not
of acknowledgements and connecting, which peers/network.py shows.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from functools import partial

__all__ = ["Relay"]


class _Side(asyncio.Protocol):
    """One of the two connections of a pair."""

    def __init__(self, relay: Relay, other: _Side | None = None) -> None:
        self.relay = relay
        self.other = other
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []  # arrived before the other side was connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.acknowledge()
        if self.other is None:
            self.relay.connect_for(self)
        else:
            self.other.other = self
            for data in self.other.early:
                self.other.data_received(data)

    def acknowledge(self) -> None:
        """Make TCP acknowledge at once, because its delays are not part of ours."""
        assert self.transport is not None
        connection = self.transport.get_extra_info("socket")
        if hasattr(socket, "TCP_QUICKACK"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def data_received(self, data: bytes) -> None:
        self.acknowledge()
        if self.other is None:
            self.early.append(data)
        else:
            self.relay.later(partial(self.other.deliver, data))

    def deliver(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.relay.later(self.other.transport.close)


class Relay:
    """A context manager that relays from a new port to a server, in a thread."""

    def __init__(self, host: str, port: int) -> None:
        """Name the server."""
        self.delay = 0.0
        """Seconds, in each direction."""
        self.port = 0
        self._server = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: set[asyncio.Task[object]] = set()

    def __enter__(self) -> Relay:
        self._thread.start()
        listening = self._loop.create_server(partial(_Side, self), "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def connect_for(self, side: _Side) -> None:
        """Connect to the server for a new client."""
        connecting = self._loop.create_connection(partial(_Side, self, side), *self._server)
        task: asyncio.Task[object] = self._loop.create_task(connecting)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def later(self, function: Callable[[], None]) -> None:
        """Call a function after the delay, in the order of the calls."""
        self._loop.call_later(self.delay, function)
