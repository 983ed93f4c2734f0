"""Servers for tests of tunnels, and a replacement for a connection."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

from remctl_toolkit.machine.tunnel import mux as tunnel_mux
from remctl_toolkit.machine.tunnel.both_mux import Stream
from remctl_toolkit.machine.tunnel.mux import NearMux
from remctl_toolkit.machine.tunnel.tunnel import Tunnel

Talk = Callable[[socket.socket], object]


class NoConnection:
    """The attributes of a connection that tunnels use."""

    host = "far.example.org"
    far = SimpleNamespace(home="/")

    def __init__(self) -> None:
        self.parts: dict[object, object] = {}


def echo(sock: socket.socket) -> None:
    """Send back what comes, until it ends."""
    while octets := sock.recv(65536):
        sock.sendall(octets)


def reset(sock: socket.socket) -> None:
    """Close a connection as a broken one."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


def read_exactly(sock: socket.socket, size: int) -> bytes:
    pieces = []
    while size:
        pieces.append(sock.recv(min(size, 1 << 20)))
        assert pieces[-1], "the data ended too early"
        size -= len(pieces[-1])
    return b"".join(pieces)


@contextlib.contextmanager
def serving(talk: Talk, listener: socket.socket | None = None) -> Iterator[int]:
    """Serve each connection in a thread, and return the port; at the end all of them are closed."""
    if listener is None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    threads: list[threading.Thread] = []
    sockets: set[socket.socket] = set()

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            talk(sock)
        sockets.discard(sock)

    def accept() -> None:
        while True:
            try:
                sock = listener.accept()[0]
            except OSError as error:
                if error.errno != errno.EMFILE:
                    return  # It was shut down.
                time.sleep(0.01)
                continue
            sockets.add(sock)
            threads.append(threading.Thread(target=serve, args=[sock]))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        name = listener.getsockname()
        yield name[1] if isinstance(name, tuple) else 0
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        listener.close()
        for sock in list(sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def connect(port: int | str) -> socket.socket:
    """Connect to a port of this host, or to a Unix socket."""
    if isinstance(port, int):
        return socket.create_connection(("127.0.0.1", port), 30)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(port)
    return sock


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """Reserve a port that nothing listens on; the system gives it to no other program.

    Without a reservation, a connection to the port could be connected to itself.
    """
    with socket.socket(socket.AF_INET6) as holder:
        holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("::", 0))
        yield holder.getsockname()[1]


def answers(sock: socket.socket, octets: bytes = b"are you there?") -> bool:
    """Return whether the other end echoes data."""
    sock.sendall(octets)
    return read_exactly(sock, len(octets)) == octets


def is_broken(sock: socket.socket) -> bool:
    """Return True when the connection has ended; fail if it stays open."""
    sock.settimeout(20)
    try:
        while sock.recv(1 << 20):
            pass
    except (ConnectionResetError, BrokenPipeError):
        pass
    return True


def mux_of(tunnel: Tunnel) -> NearMux:
    return tunnel._mux


def muxes_over(channel: object) -> list[NearMux]:
    """Return those that live over that channel, or over its substitute."""
    return [mux for mux in tunnel_mux._muxes if mux._channel is channel]


def streams_of(mux: NearMux) -> list[Stream]:
    return [taker for taker in list(mux.takers.values()) if isinstance(taker, Stream)]


def unwritten(mux: NearMux) -> int:
    """Return how many octets wait for sockets of this side."""
    transports = [stream.transport for stream in streams_of(mux)]
    return sum(each.get_write_buffer_size() for each in transports if each is not None)
