"""Sockets of both sides of a tunnel: addresses, listening and connecting.

It is imported on this side, and its text is also sent to the remote host.
"""

import asyncio
import contextlib
import errno
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    Pairs = list[tuple[int, Any]]  # families, and addresses as the socket module has them

ANY, UNIX, IPV6 = 0, 1, 6
FAMILIES = {ANY: socket.AF_UNSPEC, IPV6: socket.AF_INET6}

NO_SUCH_ADDRESS = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # as of ::1 without IPv6
NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
RETRY_DELAY = 0.05  # seconds, where nothing announces that an operation can succeed


def error_name(error: "BaseException | None") -> bytes:
    """Return the name of an error: the numbers differ between systems."""
    if isinstance(error, socket.gaierror):
        return b"EAI_NONAME"
    if isinstance(error, OSError) and error.errno is None:
        return b"ENAMETOOLONG"  # Only a path that is too long for a Unix socket has no number.
    number = error.errno if isinstance(error, OSError) else None
    return errno.errorcode.get(number or errno.ECONNRESET, "EIO").encode()


def addresses(family: int, host: str, port: int, flags: int = 0) -> "Pairs":
    """Look up a host; localhost is both loopback addresses, whatever /etc/hosts says."""
    if host.lower() == "localhost":
        both = [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
        return [pair for pair in both if FAMILIES[family] in (pair[0], socket.AF_UNSPEC)]
    found = socket.getaddrinfo(host, port, FAMILIES[family], socket.SOCK_STREAM, 0, flags)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def listen(family: int, address: "Any") -> socket.socket:
    if family != socket.AF_UNIX:
        both = address[0] == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=128, dualstack_ipv6=both)
    sock = socket.socket(family)
    try:
        sock.bind(address)
        os.chmod(address, 0o600)  # Nobody can connect until it listens.
        sock.listen(128)
        return sock
    except BaseException:
        sock.close()
        raise


def bind(pairs: "Pairs", attempts: int = 100) -> "list[socket.socket]":
    """Return sockets that listen on all of these addresses that this host has, on the same port.

    Another user could take an address that is left out, and get connections that are meant for us.
    Port 0 is a port that is free on all addresses: one of so many attempts finds it.

    Raises:
        OSError: the host has none of the addresses, or cannot listen on one that it has.
    """
    socks: list[socket.socket] = []
    failure = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    try:
        for family, address in pairs:
            if socks:
                address = (address[0], socks[0].getsockname()[1], *address[2:])
            try:
                socks.append(listen(family, address))
            except OSError as error:
                failure = error
                if error.errno not in NO_SUCH_ADDRESS:
                    raise
        if socks:
            return socks
        raise failure
    except OSError:
        for sock in socks:
            sock.close()
        if socks and pairs[0][1][1] == 0 and failure.errno == errno.EADDRINUSE and attempts > 1:
            return bind(pairs, attempts - 1)
        raise


class Listener:
    """Sockets that listen, on one port (0: on the path of a Unix socket)."""

    def __init__(self, pairs: "Pairs") -> None:
        self.socks = bind(pairs)
        address = self.socks[0].getsockname()
        self.port: int = address[1] if isinstance(address, tuple) else 0
        self.path = "" if self.port else address
        self.file = os.lstat(address) if self.path else None
        self.loop: asyncio.AbstractEventLoop | None = None

    def start(self, accepted: "Callable[[socket.socket], None]") -> None:
        """Accept connections; the function is called with the socket of each."""
        self.loop = asyncio.get_running_loop()
        for sock in self.socks:
            sock.setblocking(False)
            self.watch(self.loop, sock, accepted)

    def watch(self, loop: asyncio.AbstractEventLoop, *what: "Any") -> None:
        if what[0].fileno() >= 0:
            loop.add_reader(what[0], self.accept, loop, *what)

    def accept(self, loop: asyncio.AbstractEventLoop, *what: "Any") -> None:
        listening, accepted = what
        try:
            sock = listening.accept()[0]
        except OSError as error:
            if error.errno in NO_RESOURCES:  # Connections that wait would wake us all the time.
                loop.remove_reader(listening)
                loop.call_later(RETRY_DELAY, self.watch, loop, *what)
        else:
            accepted(sock)

    def close(self) -> None:
        """Free the port; remove the path, unless it is another file by now."""
        for sock in self.socks:
            if self.loop is not None and sock.fileno() >= 0:
                self.loop.remove_reader(sock)
            sock.close()
        with contextlib.suppress(OSError):  # The file or its directory may be gone.
            if self.file is not None and os.path.samestat(self.file, os.lstat(self.path)):
                os.unlink(self.path)


async def connect(find: "Callable[[], Awaitable[Pairs]]") -> socket.socket:
    """Return a socket that is connected to the first address that answers.

    Raises:
        OSError: none does; the error is that of the last address that this host can use.
    """
    failure = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
    for family, address in await find():
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            if family == socket.AF_UNIX:
                await connect_unix(sock, address)
            else:
                await asyncio.get_running_loop().sock_connect(sock, address)
            return sock
        except BaseException as error:
            if sock is not None:
                sock.close()
            if not isinstance(error, OSError):
                raise
            if error.errno not in NO_SUCH_ADDRESS or failure.errno == errno.EHOSTUNREACH:
                failure = error
    raise failure


async def connect_unix(sock: socket.socket, path: bytes) -> None:
    while True:
        try:
            return sock.connect(path)
        except BlockingIOError:  # Its backlog is full.
            await asyncio.sleep(RETRY_DELAY)
