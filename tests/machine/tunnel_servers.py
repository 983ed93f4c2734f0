"""Servers at the ends of tunnels."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

Talk = Callable[[socket.socket], object]


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


def unused_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
