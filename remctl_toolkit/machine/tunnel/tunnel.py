"""Tunnels: forward ports and Unix sockets of one side to the other."""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
import weakref
from typing import TYPE_CHECKING, Self, TypeAlias

from ..base.program import check_seconds
from .both_mux import ADDRESS, ANY, IPV6, UNIX, Listener
from .mux import REPLY_TIMEOUT, FarListener, NearMux, TunnelError, with_mux

if TYPE_CHECKING:
    from ..base.connection import Connection

__all__ = ["Tunnel", "TunnelError", "connect_sock"]

Port: TypeAlias = "int | str | bytes | os.PathLike[str] | os.PathLike[bytes]"

_CONNECT_TIMEOUT = 30.0  # seconds


class Tunnel:
    """A forwarded port, like ``ssh -L`` and ``ssh -R``.

    It listens as soon as it exists.  Each connection to it is joined to a new connection on the
    other side: data goes in both directions, each direction ends by itself, and a reset of one
    connection resets the other.  If the second connection fails, the first one is reset.  All
    tunnels of a connection share one channel.

    Everybody who can connect to the port can use the tunnel: any user of the host where it listens,
    and with another address than localhost anybody on the network.  Only its owner can use a Unix
    socket.

    Args:
        connection: the connection to the server.
        lport: the port on this side; 0 for a free one, if it listens on this side.
        dport: the port on the server's side; 0 likewise.
        lhost: the host of `lport`: the one to listen on, or with `reverse` to connect to.  If a
            name has several addresses, the tunnel listens on all that the host has.  None: `lport`
            is the path of a Unix socket.
        dhost: the host of `dport`, resolved by the server: the one to connect to, or with `reverse`
            to listen on, as above.  None: `dport` is the path of a Unix socket, relative to the
            home directory.
        reverse: listen on the server, and connect on this side.
        connect_timeout: seconds for making each connection, and for starting to listen.

    Attributes:
        lport, dport: as given; the actual port instead of 0, and the absolute path as text.
        lhost, dhost, reverse: as given.

    Raises:
        TypeError, ValueError: an argument is wrong; nothing was done.
        OSError: it cannot listen, on this side or on the server: the port is in use (EADDRINUSE) or
            not allowed (EACCES), or the host does not have the address (EADDRNOTAVAIL).
        socket.gaierror: the host to listen on, or to connect to on this side, is unknown.
        TimeoutError: the server did not start to listen in time.
        TunnelError: the channel was lost meanwhile.
        ClosedError, RemctlError: see `Channel`.
    """

    def __init__(
        self,
        connection: Connection,
        lport: Port,
        dport: Port,
        lhost: str | None = "localhost",
        dhost: str | None = "localhost",
        *,
        reverse: bool = False,
        connect_timeout: float = _CONNECT_TIMEOUT,
    ) -> None:
        check_seconds("connect_timeout", connect_timeout)
        near, self.lport = _address("l", lhost, lport, os.getcwdb(), connect_timeout, not reverse)
        home = os.fsencode(connection.far.home)
        far, self.dport = _address("d", dhost, dport, home, connect_timeout, reverse)
        self.lhost, self.dhost, self.reverse = lhost, dhost, reverse
        timeout = connect_timeout + REPLY_TIMEOUT
        port = with_mux(connection, lambda mux: self._listen(mux, near, far, timeout))
        if port and reverse:
            self.dport = str(port) if isinstance(dport, str) else port
        elif port:
            self.lport = str(port) if isinstance(lport, str) else port
        text = f"unclosed {self!r}: use it in a with statement, or call close()"
        self._finalizer = weakref.finalize(self, _forgotten, self._mux, self._listener, text)
        self._finalizer.atexit = False  # The host notices when the program ends.

    def _listen(self, mux: NearMux, near: bytes, far: bytes, timeout: float) -> int:
        self._mux = mux
        where, address = _text(self.lhost, self.lport), near
        listener: Listener | FarListener = Listener(mux, (b"C", far))
        if self.reverse:
            if self.lhost is not None:  # Later, an unknown host could not be reported.
                known = mux.loop.getaddrinfo(self.lhost, None)
                mux.call(timeout, f"cannot connect to {where}", known)
            where, address = f"{_text(self.dhost, self.dport)} of {mux.host}", far
            listener = FarListener(mux, near)
        self._listener = listener
        try:
            return mux.call(timeout, f"cannot listen on {where}", listener.begin(address))
        except BaseException:
            _stop(mux, listener)
            raise

    @property
    def closed(self) -> bool:
        """True if it was closed or its channel was lost."""
        return self._mux.over or not self._finalizer.alive

    def close(self) -> None:
        """Stop listening, and reset the connections; calling it again does nothing.

        When this returns, the port is free.
        """
        if self._finalizer.detach() is not None:
            _stop(self._mux, self._listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        ways = "<-" if self.reverse else "->"
        state = ", closed" if hasattr(self, "_finalizer") and self.closed else ""
        near, far = _text(self.lhost, self.lport), _text(self.dhost, self.dport)
        return f"<Tunnel {near} {ways} {far}{state}>"


def connect_sock(
    connection: Connection,
    dport: Port,
    dhost: str | None = "localhost",
    ipv6: bool = False,
    *,
    connect_timeout: float = _CONNECT_TIMEOUT,
) -> socket.socket:
    """Connect to a port from the server, and return a socket for that connection.

    The socket is one of a pair of Unix sockets, so nobody else can use it.  A reset of the
    connection looks like the end of the data.

    Args:
        connection: the connection to the server.
        dport: the port.
        dhost: the host, resolved by the server.  None: `dport` is the path of a Unix socket on the
            server, relative to the home directory.
        ipv6: do not use IPv4.
        connect_timeout: seconds that connecting may take.

    Raises:
        TypeError, ValueError: an argument is wrong; nothing was done.
        OSError: the server could not connect: its own error, such as ConnectionRefusedError.
        socket.gaierror: the server does not know the host.
        TimeoutError: it did not connect in that time.
        TunnelError: the channel was lost meanwhile.
        ClosedError, RemctlError: see `Channel`.
    """
    check_seconds("connect_timeout", connect_timeout)
    home, family = os.fsencode(connection.far.home), IPV6 if ipv6 else ANY
    address, port = _address("d", dhost, dport, home, connect_timeout, False, family)
    doing = f"cannot connect to {_text(dhost, port)} from {connection.host}"
    timeout = connect_timeout + REPLY_TIMEOUT
    return with_mux(connection, lambda mux: mux.call(timeout, doing, mux.connect(address)))


def _address(
    side: str,
    host: str | None,
    port: Port,
    folder: bytes,
    timeout: float,
    listens: bool,
    family: int = ANY,
) -> tuple[bytes, int | str]:
    """Return an encoded address, and its port as given or its path as text.

    Raises:
        TypeError, ValueError: an argument is wrong; its name begins with the letter `side`.
    """
    milliseconds = min(int(timeout * 1000), 2**32 - 1)
    name = f"{side}port"
    if host is None:
        if isinstance(port, int) or not isinstance(port, (str, bytes, os.PathLike)):
            kind = type(port).__name__
            raise TypeError(
                f"{name} must be the path of a Unix socket if its host is None, not {kind}"
            )
        path = os.fsencode(port)
        if not path or b"\0" in path:
            raise ValueError(f"{name} is {port!r}: not a valid path of a Unix socket")
        path = os.path.join(folder, path)
        return ADDRESS.pack(UNIX, 0, milliseconds) + path, os.fsdecode(path)
    if isinstance(port, bool) or not isinstance(port, (int, str)):
        raise TypeError(f"{name} must be a number, not {type(port).__name__}")
    if isinstance(port, str) and not (port.isascii() and port.isdigit()):
        raise ValueError(f"{name} is {port!r}: for a Unix socket's path, its host must be None")
    if not (0 if listens else 1) <= int(port) <= 65535:
        least = "0 (for a free one)" if listens else "1"
        raise ValueError(f"{name} is {port}: it must be from {least} to 65535")
    return ADDRESS.pack(family, int(port), milliseconds) + _host(f"{side}host", host), port


def _host(name: str, host: str) -> bytes:
    if not isinstance(host, str):
        raise TypeError(f"{name} must be a string or None, not {type(host).__name__}")
    try:
        known = host.encode("idna")
    except UnicodeError:
        known = b""
    if not known or not known.decode("ascii").isprintable() or b" " in known:
        raise ValueError(f"{name} is {host!r}: not a valid host name or address")
    return known


def _text(host: str | None, port: int | str) -> str:
    if host is None:
        return str(port)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _stop(mux: NearMux, listener: Listener | FarListener) -> None:
    """End a listener, and wait for that; end the mux as well if it is unused."""
    if mux.pid != os.getpid():
        return
    try:
        mux.call(REPLY_TIMEOUT, "cannot stop listening", mux.stop(listener))
    except TimeoutError:
        mux.close("the server does not answer")
    except TunnelError:
        pass  # It was already lost.
    if mux.over:
        mux.close()


def _forgotten(mux: NearMux, listener: Listener | FarListener, text: str) -> None:
    """End the listener of a dropped tunnel, without waiting, in any thread."""
    if mux.pid == os.getpid() and not mux.over:
        with contextlib.suppress(TunnelError):
            mux.begin(mux.stop(listener))
        warnings.warn(text, ResourceWarning, stacklevel=2)
