"""Faults between a client and a server: a TCP relay with faults, and ports that misbehave.

    with Proxy("localhost", port_of_the_server) as proxy:
        proxy.stall(TO_CLIENT, after=100)
        ...  # connect to localhost, proxy.port: the server's 101st byte never arrives
        proxy.release()

A fault befalls one direction of every connection, or of those that `connections` names (counted
from 1), once `after` bytes of that direction have been forwarded on that connection.  A direction
has one fault at a time; setting another replaces it, also for connections that are open already.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Container, Iterator
from types import TracebackType
from typing import Self

from .loopback import LoopbackServer
from .relay import IDLE_LIMIT, Broken, Direction, Fault, Kind, Ledger, Relay

TO_SERVER = Direction.TO_SERVER
TO_CLIENT = Direction.TO_CLIENT

CONNECT_LIMIT = 5.0  # seconds to reach the server in
SETTLE = 0.2  # seconds in which a connect() on loopback is done if it ever will be


class Proxy(LoopbackServer):
    """Relay between clients and (`host`, `port`), with faults on demand; a context manager."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.target = (host, port)
        self._ledger = Ledger()
        self._wakers: set[socket.socket] = set()

    def stall(
        self, direction: Direction, *, after: int = 0, connections: Container[int] | None = None
    ) -> None:
        """Keep the connection open and forward nothing more, not even the end of file."""
        self._set(direction, Fault(Kind.STALL, after, connections=connections))

    def close(
        self, direction: Direction, *, after: int = 0, connections: Container[int] | None = None
    ) -> None:
        """Send FIN to both ends; what they still send is swallowed."""
        self._set(direction, Fault(Kind.CLOSE, after, connections=connections))

    def reset(
        self, direction: Direction, *, after: int = 0, connections: Container[int] | None = None
    ) -> None:
        """Send RST to both ends; with `after` 0 a client may see it in its connect() already."""
        self._set(direction, Fault(Kind.RESET, after, connections=connections))

    def dribble(
        self,
        direction: Direction,
        *,
        seconds: float = 0.0,
        after: int = 0,
        connections: Container[int] | None = None,
    ) -> None:
        """Forward one byte per write, with `seconds` between them."""
        self._set(direction, Fault(Kind.DRIBBLE, after, seconds, connections))

    def delay(
        self,
        direction: Direction,
        *,
        seconds: float,
        after: int = 0,
        connections: Container[int] | None = None,
    ) -> None:
        """Hold the next bytes back for `seconds`, once on each connection."""
        self._set(direction, Fault(Kind.DELAY, after, seconds, connections))

    def release(self, direction: Direction | None = None) -> None:
        """Remove the fault of one direction or both, and forward the held data."""
        for each in Direction if direction is None else (direction,):
            self._ledger.lift(each)
        self._wake_relays()

    def forwarded(self, direction: Direction) -> int:
        """Return the number of bytes in a direction, over all connections."""
        return self._ledger.forwarded(direction)

    def struck(self, direction: Direction) -> int:
        """Return how many times a fault of a direction has hit a connection."""
        return self._ledger.struck(direction)

    def handle(self, connection: socket.socket, number: int) -> None:
        """Relay one connection until it ends, one way or the other."""
        try:
            upstream = socket.create_connection(self.target, CONNECT_LIMIT)
        except OSError as error:
            self.record_error(error)
            self.drop(connection, reset=True)
            return
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with upstream, self._woken() as woken:
            try:
                Relay(self._ledger, number, connection, upstream, woken, self.stopping).run()
            except Broken:
                self.drop(connection, reset=True)
                self.drop(upstream, reset=True)

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        self.stopping.set()
        self._wake_relays()
        super().stop()

    def _set(self, direction: Direction, fault: Fault) -> None:
        self._ledger.set(direction, fault)
        self._wake_relays()

    @contextlib.contextmanager
    def _woken(self) -> Iterator[socket.socket]:
        """A socket that becomes readable when a relay has to look at the faults again."""
        woken, waker = socket.socketpair()
        with woken, waker:
            with self._lock:
                self._wakers.add(waker)
            try:
                yield woken
            finally:
                with self._lock:
                    self._wakers.discard(waker)

    def _wake_relays(self) -> None:
        with self._lock:
            for waker in self._wakers:
                waker.send(b"!")


class SilentServer(LoopbackServer):
    """A server that accepts connections, discards all data, and never answers."""

    def handle(self, connection: socket.socket, number: int) -> None:
        """Read until the client closes or the server is stopped."""
        connection.settimeout(IDLE_LIMIT)
        while connection.recv(65536):
            pass


class DeafListener:
    """A listening port whose queue is full: a connect() to it hangs; a context manager.

    It listens on `host` and `port`, by default a free port.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sockets = contextlib.ExitStack()

    def __enter__(self) -> Self:
        address = (self.host, self.port)
        listener = self._sockets.enter_context(
            socket.create_server(address, family=self._family, backlog=0)
        )
        self.port = listener.getsockname()[1]
        with contextlib.ExitStack() as undo:
            undo.callback(self._sockets.close)
            self._fill()
            undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sockets.close()

    def is_deaf(self) -> bool:
        """Return whether a connect() stays in progress."""
        with socket.socket(self._family) as probe:
            return not self._connects(probe)

    def _fill(self) -> None:
        for _ in range(8):
            if not self._connects(self._sockets.enter_context(socket.socket(self._family))):
                return
        raise RuntimeError("the queue of a socket that listens with a backlog of 0 does not fill")

    def _connects(self, client: socket.socket) -> bool:
        client.setblocking(False)
        client.connect_ex((self.host, self.port))
        poller = select.poll()
        poller.register(client, select.POLLOUT)
        return bool(poller.poll(SETTLE * 1000))


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    """Reserve a loopback port where nothing listens during the block."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
